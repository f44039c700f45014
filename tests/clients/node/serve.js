// The mode `serve`: does what each line on standard input says, through the official client.
//
// The commands and the answers are described in tests/clients/README.md.
'use strict';

const readline = require('node:readline');
const {
  ConsumeResult, FilterExpression, Producer, PushConsumer, SimpleConsumer,
} = require('rocketmq-client-nodejs');
const {
  FilterType, TransactionResolution,
} = require('rocketmq-client-nodejs/proto/apache/rocketmq/v2/definition_pb');

// Larger bodies are told by their size.
const TOLD = 4096;

const VERDICTS = {
  commit: TransactionResolution.COMMIT,
  rollback: TransactionResolution.ROLLBACK,
  unknown: TransactionResolution.TRANSACTION_RESOLUTION_UNSPECIFIED,
};

function view(message) {
  return {
    topic: message.topic,
    id: message.messageId,
    size: message.body.length,
    body: message.body.length <= TOLD ? message.body.toString() : undefined,
    // Unset texts are empty in this library.
    tag: message.tag || undefined,
    keys: [ ...message.keys ].sort(),
    properties: Object.fromEntries(message.properties),
    message_group: message.messageGroup || undefined,
    attempt: message.deliveryAttempt,
    deliver_at_ms: message.deliveryTimestamp?.getTime(),
    corrupted: message.corrupted,
  };
}

const subscriptions = command => new Map([[
  command.topic,
  new FilterExpression(command.filter ?? '*', command.sql ? FilterType.SQL : FilterType.TAG),
]]);

// What the application gives to the library, unless it is told to leave it out.
const given = (command, part, options) => command.without === part ? {} : options;

function server(basics, report) {
  const clients = new Map();
  const held = [];

  const consuming = command => ({
    ...given(command, 'configuration', basics),
    ...given(command, 'group', { consumerGroup: command.group }),
    ...given(command, 'subscription', { subscriptions: subscriptions(command) }),
  });

  const started = async (command, client) => {
    await client.startup();
    clients.set(command.client, client);
  };

  const commands = {
    producer(command) {
      const checker = command.verdict && {
        async check(message) {
          report('asked', { client: command.client, message: view(message) });
          return VERDICTS[command.verdict];
        },
      };
      const maxAttempts = command.attempts;
      const sessionCredentials = command.access_key && {
        accessKey: command.access_key, accessSecret: command.secret_key,
      };
      const options = { ...given(command, 'configuration', basics), sessionCredentials, topic: command.topics, maxAttempts, checker };
      return started(command, new Producer(options));
    },

    simple(command) {
      return started(command, new SimpleConsumer({
        ...consuming(command),
        awaitDuration: command.await_ms,
      }));
    },

    push(command) {
      const times = new Map();
      return started(command, new PushConsumer({
        ...consuming(command),
        ...given(command, 'listener', { messageListener: {
          async consume(message) {
            times.set(message.messageId, (times.get(message.messageId) ?? 0) + 1);
            const failing = !command.fail_body || command.fail_body === message.body.toString();
            const fails = failing && times.get(message.messageId) <= (command.fail_attempts ?? 0);
            report('received', { client: command.client, message: view(message) });
            return fails ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS;
          },
        } }),
      }));
    },

    async send(command) {
      const producer = clients.get(command.client);
      const message = {
        topic: command.topic,
        body: command.body_size === undefined
          ? Buffer.from(command.body ?? '') : Buffer.alloc(command.body_size, 'x'),
        tag: command.tag,
        keys: command.keys,
        properties: command.properties && new Map(Object.entries(command.properties)),
        messageGroup: command.message_group,
        deliveryTimestamp: command.deliver_at_ms === undefined ? undefined : new Date(command.deliver_at_ms),
        priority: command.priority,
      };
      const transaction = command.transaction && producer.beginTransaction();
      const receipt = await producer.send(message, transaction);
      if (command.transaction === 'commit') await transaction.commit();
      if (command.transaction === 'rollback') await transaction.rollback();
      return { id: receipt.messageId, recall_handle: receipt.recallHandle || undefined };
    },

    async recall(command) {
      const receipt = await clients.get(command.client).recallMessage(command.topic, command.recall_handle);
      return { id: receipt.messageId };
    },

    async receive(command) {
      const messages = await clients.get(command.client).receive(command.max, command.invisible_ms);
      return { messages: messages.map(message => ({ token: held.push(message) - 1, ...view(message) })) };
    },

    ack: command => clients.get(command.client).ack(held[command.token]),

    change: command => clients.get(command.client)
      .changeInvisibleDuration(held[command.token], command.invisible_ms),

    async close(command) {
      await clients.get(command.client).shutdown();
      clients.delete(command.client);
    },
  };

  return async command => {
    try {
      report('answer', { n: command.n, ...await commands[command.do](command) });
    } catch (error) {
      // Starting wraps what went wrong, and the recall tells its code in the text only.
      let cause = error;
      while (cause.cause instanceof Error) cause = cause.cause;
      const told = /\(code: (\d+)\)/.exec(cause.message);
      // Small numbers are statuses of gRPC.
      const code = cause.code > 1000 ? cause.code : told ? Number(told[1]) : undefined;
      report('answer', { n: command.n, error: `${cause.name}: ${cause.message}`.slice(0, 500), code });
    }
  };
}

async function serve(basics, report) {
  const answer = server(basics, report);
  report('ready');
  const lines = readline.createInterface({ input: process.stdin });
  for await (const line of lines) answer(JSON.parse(line));
  report('done');
}

module.exports = { serve };
