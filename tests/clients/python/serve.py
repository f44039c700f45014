"""The mode `serve`: does what each line on standard input says, through the official client.

The commands and the answers are described in tests/clients/README.md.
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from rocketmq import (ClientConfiguration, ConsumeResult, Credentials, FilterExpression, Message,
                      MessageListener, Producer, PushConsumer, SimpleConsumer, TransactionChecker,
                      TransactionResolution)
from rocketmq.grpc_protocol import FilterType

# Calls that may wait at the same time; long polls are among them.
AT_ONCE = 64
# Larger bodies are told by their size.
TOLD = 4096

VERDICTS = {
    "commit": TransactionResolution.COMMIT,
    "rollback": TransactionResolution.ROLLBACK,
    "unknown": TransactionResolution.TRANSACTION_RESOLUTION_UNSPECIFIED,
}


def view(message):
    told = {
        "topic": message.topic, "id": message.message_id, "size": len(message.body),
        "tag": message.tag, "keys": sorted(message.keys), "properties": message.properties,
        "message_group": message.message_group, "attempt": message.delivery_attempt,
        "deliver_at_ms": message.delivery_timestamp or None, "corrupted": message.corrupted,
    }
    if len(message.body) <= TOLD:
        told["body"] = message.body.decode()
    return told


class Checker(TransactionChecker):
    def __init__(self, report, client, verdict):
        self.report, self.client, self.verdict = report, client, verdict

    def check(self, message):
        self.report("asked", client=self.client, message=view(message))
        return VERDICTS[self.verdict]


class Listener(MessageListener):
    def __init__(self, report, command):
        self.report, self.command = report, command
        self.lock, self.times = threading.Lock(), {}

    def consume(self, message):
        with self.lock:
            times = self.times[message.message_id] = self.times.get(message.message_id, 0) + 1
        failing = self.command.get("fail_body") in (None, message.body.decode())
        fails = failing and times <= self.command.get("fail_attempts", 0)
        self.report("received", client=self.command["client"], message=view(message))
        return ConsumeResult.FAILURE if fails else ConsumeResult.SUCCESS


class Server:
    def __init__(self, options, configuration, report):
        self.configuration, self.report, self.tls = configuration, report, options.tls
        self.endpoints = options.endpoints
        self.clients, self.held = {}, {}
        self.lock = threading.Lock()

    def producer(self, command):
        name, verdict = command["client"], command.get("verdict")
        checker = Checker(self.report, name, verdict) if verdict else None
        configuration = self.given(command, "configuration", self.configuration)
        if "access_key" in command:
            keys = Credentials(command["access_key"], command["secret_key"])
            configuration = ClientConfiguration(self.endpoints, keys)
        producer = Producer(configuration, command.get("topics"), checker=checker, tls_enable=self.tls)
        producer.startup()
        self.clients[name] = producer

    @staticmethod
    def given(command, part, value):
        return None if command.get("without") == part else value

    def consuming(self, command):
        kind = FilterType.SQL if command.get("sql") else FilterType.TAG
        subscription = {command["topic"]: FilterExpression(command.get("filter", "*"), kind)}
        return (self.given(command, "configuration", self.configuration),
                self.given(command, "group", command["group"]),
                self.given(command, "subscription", subscription))

    def simple(self, command):
        consumer = SimpleConsumer(*self.consuming(command),
                                  await_duration=command["await_ms"] // 1000, tls_enable=self.tls)
        consumer.startup()
        self.clients[command["client"]] = consumer

    def push(self, command):
        configuration, group, subscription = self.consuming(command)
        listener = self.given(command, "listener", Listener(self.report, command))
        consumer = PushConsumer(configuration, group, listener, subscription, tls_enable=self.tls)
        consumer.startup()
        self.clients[command["client"]] = consumer

    def send(self, command):
        message = Message()
        message.topic = command["topic"]
        size = command.get("body_size")
        message.body = command.get("body", "").encode() if size is None else b"x" * size
        if command.get("tag") is not None:
            message.tag = command["tag"]
        for key in command.get("keys", []):
            message.keys = key
        for key, value in command.get("properties", {}).items():
            message.add_property(key, value)
        if command.get("message_group") is not None:
            message.message_group = command["message_group"]
        if command.get("deliver_at_ms") is not None:
            # Whole seconds when sending, milliseconds when receiving: the next one is not early.
            message.delivery_timestamp = -(-command["deliver_at_ms"] // 1000)
        if command.get("priority") is not None:
            message.priority = command["priority"]
        producer, ending = self.clients[command["client"]], command.get("transaction")
        transaction = producer.begin_transaction() if ending else None
        if command.get("asynchronous"):
            receipt = producer.send_async(message).result()
        else:
            receipt = producer.send(message, transaction)
        if ending == "commit":
            transaction.commit()
        elif ending == "rollback":
            transaction.rollback()
        return {"id": receipt.message_id, "recall_handle": receipt.recall_handle}

    def recall(self, command):
        producer = self.clients[command["client"]]
        return {"id": producer.recall_message(command["topic"], command["recall_handle"])}

    def receive(self, command):
        consumer = self.clients[command["client"]]
        wanted = command["max"], command["invisible_ms"] // 1000
        if command.get("asynchronous"):
            messages = consumer.receive_async(*wanted).result() or []
        else:
            messages = consumer.receive(*wanted) or []
        told = []
        with self.lock:
            for message in messages:
                token = len(self.held)
                self.held[token] = message
                told.append({"token": token, **view(message)})
        return {"messages": told}

    def ack(self, command):
        self.clients[command["client"]].ack(self.held[command["token"]])

    def change(self, command):
        seconds = command["invisible_ms"] // 1000
        self.clients[command["client"]].change_invisible_duration(self.held[command["token"]], seconds)

    def close(self, command):
        self.clients.pop(command["client"]).shutdown()

    def answer(self, command):
        try:
            result = getattr(self, command["do"])(command) or {}
            self.report("answer", n=command["n"], **result)
        except Exception as error:
            code = getattr(error, "code", None)
            text = f"{type(error).__name__}: {error}"[:500]
            # The enum of gRPC statuses is no code of the protocol.
            self.report("answer", n=command["n"], error=text,
                        code=int(code) if isinstance(code, int) else None)


COMMANDS = {"producer", "simple", "push", "send", "recall", "receive", "ack", "change", "close"}


def serve(options, configuration, report):
    server = Server(options, configuration, report)
    report("ready")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] not in COMMANDS:
                raise ValueError(f"unknown command {command['do']}")
            pool.submit(server.answer, command)
    report("done")
