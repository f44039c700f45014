// The official Node.js client, unmodified, as a program that the tests drive.
//
// Reports one JSON object per line on standard output; see tests/clients/README.md.
'use strict';

const { parseArgs } = require('node:util');
const { performance } = require('node:perf_hooks');
const {
  ConsumeResult, FilterExpression, Producer, PushConsumer, SimpleConsumer,
} = require('rocketmq-client-nodejs');
const {
  TransactionResolution,
} = require('rocketmq-client-nodejs/proto/apache/rocketmq/v2/definition_pb');

const { serve } = require('./serve');

const started = performance.now();
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const describe = error => `${error.name}: ${error.message}`.slice(0, 500);

function report(event, fields = {}) {
  const at_ms = Math.round(performance.now() - started);
  process.stdout.write(JSON.stringify({ event, ...fields, at_ms }) + '\n');
}

function parse() {
  const text = name => ({ [name]: { type: 'string' } });
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: Object.assign({}, ...[
      'endpoints', 'topic', 'group', 'prefix', 'tag', 'filter', 'count', 'seconds', 'interval-ms',
      'await-s', 'invisible-s', 'leave-first', 'fail-first', 'tls', 'message-groups',
      'fail-body',
    ].map(text)),
  });
  const number = (name, otherwise) => (values[name] === undefined ? otherwise : Number(values[name]));
  return {
    mode: positionals[0],
    endpoints: values.endpoints,
    topic: values.topic,
    group: values.group ?? 'node',
    prefix: values.prefix ?? 'node',
    tag: values.tag,
    filter: values.filter ?? '*',
    count: number('count', Infinity),
    seconds: number('seconds', 3600),
    intervalMs: number('interval-ms', 0),
    awaitMs: number('await-s', 10) * 1000,
    invisibleMs: number('invisible-s', 30) * 1000,
    leaveFirst: number('leave-first', 0),
    failFirst: number('fail-first', 0),
    tls: values.tls === 'true',
    messageGroups: number('message-groups', 0),
    failBody: values['fail-body'],
  };
}

// The library's own logger writes to the home directory.
const quiet = { info() {}, debug() {}, warn() {}, error(...text) { console.error(...text); } };

function basics(options) {
  return { endpoints: options.endpoints, namespace: '', sslEnabled: options.tls, logger: quiet };
}

const expired = options => performance.now() - started > options.seconds * 1000;

async function produce(options) {
  const producer = new Producer({ ...basics(options), topic: options.topic });
  await producer.startup();
  report('ready');
  for (let count = 0; count < options.count && !expired(options); count++) {
    const body = `${options.prefix}-${count}`;
    try {
      const receipt = await producer.send({
        topic: options.topic, tag: options.tag, keys: [ body ], body: Buffer.from(body),
        messageGroup: options.messageGroups ? `group-${count % options.messageGroups}` : undefined,
      });
      report('sent', { body, id: receipt.messageId, offset: receipt.offset });
    } catch (error) {
      report('failed', { body, error: describe(error) });
    }
    await sleep(options.intervalMs);
  }
  report('done');
}

async function transact(options) {
  const asked = new Map();
  const checker = {
    async check(message) {
      const body = message.body.toString();
      const times = (asked.get(body) ?? 0) + 1;
      asked.set(body, times);
      report('asked', { body, id: message.messageId });
      const count = Number(body.slice(body.lastIndexOf('-') + 1));
      if (count % 8 >= 4 && times === 1) {
        return TransactionResolution.TRANSACTION_RESOLUTION_UNSPECIFIED;
      }
      return count % 4 === 2 ? TransactionResolution.COMMIT : TransactionResolution.ROLLBACK;
    },
  };
  const producer = new Producer({ ...basics(options), topic: options.topic, checker });
  await producer.startup();
  report('ready');
  const wanted = new Map();
  for (let count = 0; count < options.count; count++) {
    const body = `${options.prefix}-${count}`;
    if (count % 4 >= 2) wanted.set(body, count % 8 >= 4 ? 2 : 1);
    try {
      const transaction = producer.beginTransaction();
      const message = { topic: options.topic, body: Buffer.from(body) };
      const receipt = await producer.send(message, transaction);
      report('sent', { body, id: receipt.messageId });
      if (count % 4 === 0) {
        await transaction.commit();
        report('committed', { body });
      } else if (count % 4 === 1) {
        await transaction.rollback();
        report('rolled_back', { body });
      }
    } catch (error) {
      report('failed', { body, error: describe(error) });
    }
  }
  const decided = () => [ ...wanted ].every(([ body, times ]) => (asked.get(body) ?? 0) >= times);
  while (!decided() && !expired(options)) await sleep(50);
  if (decided()) report('decided');
  // The last answer is under way. Whoever started this sees when it has arrived, and ends it.
  while (!expired(options)) await sleep(50);
  report('done');
}

function received(message) {
  report('received', {
    body: message.body.toString(), id: message.messageId, tag: message.tag,
    attempt: message.deliveryAttempt,
  });
}

async function simple(options) {
  const consumer = new SimpleConsumer({
    ...basics(options),
    consumerGroup: options.group,
    subscriptions: new Map([[ options.topic, new FilterExpression(options.filter) ]]),
    awaitDuration: options.awaitMs,
  });
  await consumer.startup();
  report('ready');
  let deliveries = 0;
  let acked = 0;
  while (acked < options.count && !expired(options)) {
    let messages;
    try {
      messages = await consumer.receive(32, options.invisibleMs);
    } catch (error) {
      report('receive_failed', { error: describe(error) });
      await sleep(100);
      continue;
    }
    for (const message of messages) {
      received(message);
      if (++deliveries <= options.leaveFirst) continue;
      try {
        await consumer.ack(message);
        acked++;
        report('acked', { id: message.messageId });
      } catch (error) {
        report('ack_failed', { id: message.messageId, error: describe(error) });
      }
    }
  }
  report('done');
}

async function push(options) {
  let deliveries = 0;
  let consumed = 0;
  const consumer = new PushConsumer({
    ...basics(options),
    consumerGroup: options.group,
    subscriptions: new Map([[ options.topic, new FilterExpression(options.filter) ]]),
    messageListener: {
      async consume(message) {
        received(message);
        if (++deliveries <= options.failFirst) return ConsumeResult.FAILURE;
        if (message.body.toString() === options.failBody) return ConsumeResult.FAILURE;
        consumed++;
        return ConsumeResult.SUCCESS;
      },
    },
  });
  await consumer.startup();
  report('ready');
  while (consumed < options.count && !expired(options)) await sleep(50);
  // The acks of the last deliveries are under way, and shutdown would cut them off.
  await sleep(1000);
  await consumer.shutdown();
  report('done');
}

const modes = {
  produce, transact, simple, push, serve: options => serve(basics(options), report),
};
const options = parse();
if (!modes[options.mode]) {
  console.error(`unknown mode ${options.mode}: ${Object.keys(modes).join(', ')}`);
  process.exit(2);
}
// The client's timers keep the process alive; a program that is done ends.
modes[options.mode](options).then(
  () => process.exit(0),
  error => {
    console.error(error);
    process.exit(1);
  },
);
