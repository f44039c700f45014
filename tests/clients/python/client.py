"""The official Python client, unmodified, as a program that the tests drive.

Reports one JSON object per line on standard output; see tests/clients/README.md.
"""

import argparse
import json
import os
import sys
import threading
import time

from rocketmq import (ClientConfiguration, ConsumeResult, Credentials,
                      FilterExpression, Message, MessageListener, Producer,
                      PushConsumer, SimpleConsumer, TransactionChecker,
                      TransactionResolution)

from serve import serve

started = time.monotonic()
output = threading.Lock()


def report(event, **fields):
    with output:
        fields = {"event": event, **fields, "at_ms": int((time.monotonic() - started) * 1000)}
        print(json.dumps(fields), flush=True)


def expired(options):
    return time.monotonic() - started > options.seconds


def describe(error):
    return f"{type(error).__name__}: {error}"[:500]


def produce(options, configuration):
    producer = Producer(configuration, (options.topic,), tls_enable=options.tls)
    producer.startup()
    report("ready")
    for count in range(options.count):
        if expired(options):
            break
        message = Message()
        message.topic = options.topic
        message.body = f"{options.prefix}-{count}".encode()
        message.keys = f"{options.prefix}-{count}"
        if options.tag:
            message.tag = options.tag
        if options.message_groups:
            message.message_group = f"group-{count % options.message_groups}"
        try:
            receipt = producer.send(message)
            report("sent", body=message.body.decode(), id=receipt.message_id, offset=receipt.offset)
        except Exception as error:
            report("failed", body=message.body.decode(), error=describe(error))
        time.sleep(options.interval_ms / 1000)
    report("done")


class Checker(TransactionChecker):
    def __init__(self):
        self.lock = threading.Lock()
        self.asked = {}

    def check(self, message):
        body = message.body.decode()
        with self.lock:
            times = self.asked[body] = self.asked.get(body, 0) + 1
        report("asked", body=body, id=message.message_id)
        count = int(body.rsplit("-", 1)[1])
        if count % 8 >= 4 and times == 1:
            return TransactionResolution.TRANSACTION_RESOLUTION_UNSPECIFIED
        return TransactionResolution.COMMIT if count % 4 == 2 else TransactionResolution.ROLLBACK

    def decided(self, prefix, count):
        wanted = {f"{prefix}-{n}": 2 if n % 8 >= 4 else 1 for n in range(count) if n % 4 >= 2}
        with self.lock:
            return all(self.asked.get(body, 0) >= times for body, times in wanted.items())


def transact(options, configuration):
    checker = Checker()
    producer = Producer(configuration, (options.topic,), checker=checker, tls_enable=options.tls)
    producer.startup()
    report("ready")
    for count in range(options.count):
        message = Message()
        message.topic = options.topic
        message.body = f"{options.prefix}-{count}".encode()
        body = message.body.decode()
        try:
            transaction = producer.begin_transaction()
            receipt = producer.send(message, transaction)
            report("sent", body=body, id=receipt.message_id)
            if count % 4 == 0:
                transaction.commit()
                report("committed", body=body)
            elif count % 4 == 1:
                transaction.rollback()
                report("rolled_back", body=body)
        except Exception as error:
            report("failed", body=body, error=describe(error))
    while not checker.decided(options.prefix, options.count) and not expired(options):
        time.sleep(0.05)
    if checker.decided(options.prefix, options.count):
        report("decided")
    # The last answer is under way in the client's own thread. Whoever started this sees when it has
    # arrived, and ends it.
    while not expired(options):
        time.sleep(0.05)
    report("done")


def received(message):
    report("received", body=message.body.decode(), id=message.message_id, tag=message.tag,
           attempt=message.delivery_attempt)


def simple(options, configuration):
    subscription = {options.topic: FilterExpression(options.filter)}
    consumer = SimpleConsumer(configuration, options.group, subscription,
                              await_duration=options.await_s, tls_enable=options.tls)
    consumer.startup()
    report("ready")
    deliveries, acked = 0, 0
    while acked < options.count and not expired(options):
        try:
            messages = consumer.receive(32, options.invisible_s)
        except Exception as error:
            report("receive_failed", error=describe(error))
            time.sleep(0.1)
            continue
        for message in messages or []:
            deliveries += 1
            received(message)
            if deliveries <= options.leave_first:
                continue
            try:
                consumer.ack(message)
                acked += 1
                report("acked", id=message.message_id)
            except Exception as error:
                report("ack_failed", id=message.message_id, error=describe(error))
    report("done")


class Listener(MessageListener):
    def __init__(self, options):
        self.options = options
        self.lock = threading.Lock()
        self.deliveries = 0
        self.consumed = 0

    def consume(self, message):
        with self.lock:
            self.deliveries += 1
            fail = (self.deliveries <= self.options.fail_first
                    or message.body.decode() == self.options.fail_body)
            self.consumed += not fail
        received(message)
        return ConsumeResult.FAILURE if fail else ConsumeResult.SUCCESS


def push(options, configuration):
    listener = Listener(options)
    consumer = PushConsumer(configuration, options.group, listener,
                            {options.topic: FilterExpression(options.filter)},
                            tls_enable=options.tls)
    consumer.startup()
    report("ready")
    while listener.consumed < options.count and not expired(options):
        time.sleep(0.05)
    # The acks of the last deliveries are under way in the client's own threads, and shutdown
    # would cut them off.
    time.sleep(1)
    consumer.shutdown()
    report("done")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["produce", "transact", "simple", "push", "serve"])
    parser.add_argument("--endpoints", required=True)
    parser.add_argument("--topic")
    parser.add_argument("--group", default="python")
    parser.add_argument("--prefix", default="python")
    parser.add_argument("--tag")
    parser.add_argument("--filter", default="*")
    parser.add_argument("--count", type=int, default=sys.maxsize)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--interval-ms", type=float, default=0)
    parser.add_argument("--await-s", type=int, default=10)
    parser.add_argument("--invisible-s", type=int, default=30)
    parser.add_argument("--leave-first", type=int, default=0)
    parser.add_argument("--fail-first", type=int, default=0)
    parser.add_argument("--message-groups", type=int, default=0)
    parser.add_argument("--fail-body")
    parser.add_argument("--tls", type=lambda text: text == "true", default=False)
    options = parser.parse_args()

    configuration = ClientConfiguration(options.endpoints, Credentials())
    if options.mode == "serve":
        serve(options, configuration, report)
    else:
        modes = {"produce": produce, "transact": transact, "simple": simple, "push": push}
        modes[options.mode](options, configuration)
    # The client's own threads are not daemons; a program that is done ends.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
