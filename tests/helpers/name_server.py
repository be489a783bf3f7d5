"""A name server with one address for every name, which says what it was asked: an answer shows who gave it."""

from __future__ import annotations

import argparse
import selectors
import socket
import struct

HEADER = struct.Struct("!6H")
PORT = 53
ANSWER = 0x8580
"""A response, authoritative, with recursion asked for and at hand."""
A, IN = 1, 1


def question(query: bytes) -> tuple[str, int, bytes]:
    """The name, the type, and the question as it was put."""
    labels, at = [], HEADER.size
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    (kind,) = struct.unpack_from("!H", query, at + 1)
    return ".".join(labels).lower(), kind, query[HEADER.size : at + 5]


def answer(query: bytes, address: str) -> bytes:
    """No answer, but no error, to what asks for something else than an IPv4 address. Nothing is to be kept."""
    _, kind, asked = question(query)
    record = struct.pack("!HHHIH4s", 0xC000 | HEADER.size, A, IN, 0, 4, socket.inet_aton(address)) if kind == A else b""
    return HEADER.pack(int.from_bytes(query[:2], "big"), ANSWER, 1, int(bool(record)), 0, 0) + asked + record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", action="append", required=True)
    parser.add_argument("--answer", required=True)
    options = parser.parse_args()
    selector = selectors.DefaultSelector()
    for host in options.listen:
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        listening.bind((host, PORT))
        selector.register(listening, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            query, asker = key.fileobj.recvfrom(4096)
            print(f"asked for {question(query)[0]}", flush=True)
            key.fileobj.sendto(answer(query, options.answer), asker)


if __name__ == "__main__":
    main()
