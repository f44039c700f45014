"""Writes the descriptors that the official Python client carries, as one FileDescriptorSet.

They are literals in its generated modules, and are read from there without running them: the
modules would register themselves and need a protobuf runtime of the right version.
"""

import ast
import importlib.util
import pathlib
import sys

FILES = ("definition_pb2.py", "service_pb2.py", "admin_pb2.py")


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def descriptor(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "AddSerializedFile":
            return node.args[0].value
    sys.exit(f"{path} holds no descriptor")


def main():
    package = importlib.util.find_spec("rocketmq")
    if package is None or not package.submodule_search_locations:
        sys.exit("the package rocketmq is not installed")
    folder = pathlib.Path(list(package.submodule_search_locations)[0]) / "grpc_protocol"
    for name in FILES:
        file = descriptor(folder / name)
        # Field 1 of google.protobuf.FileDescriptorSet.
        sys.stdout.buffer.write(b"\x0a" + varint(len(file)) + file)


main()
