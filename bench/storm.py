"""Attacks by somebody whose address is real: ``python storm.py KIND HOST PORT SECONDS [DIRECTORY [PREFIX]]``.

``KIND`` over TCP:
    connect       connects and leaves
    silent        connects, says nothing and stays
    slow          a frame, one byte a second
    stalled       a valid reset and nothing more
    tiny          a valid reset, then frames of one byte
    oversize      a frame of impossible length
over UDP, with ``storm.crt`` and ``storm.key`` of ``DIRECTORY``:
    hello         echoes a cookie together with a TLS ClientHello, and says nothing more
    certificate   whole handshakes, which the server refuses for the certificate
    soft-reset    connects, then asks for new keys without end

With ``PREFIX`` (10.0.0), from all addresses of that network in turn. Prints how often it did so in how many seconds.
"""

from __future__ import annotations

import contextlib
import resource
import secrets
import selectors
import socket
import sys
import time
from collections import deque
from pathlib import Path

from light_client.__main__ import client_context
from light_client.protocol import LightClient
from OpenSSL import SSL

from cvpnd.wire.packet import ControlPacket, Opcode, serialise_packet
from cvpnd.wire.stream import frame

OPEN_MAX = 4000
SLOW_OPEN = 500
AT_ONCE = 32
FIRST_SAID = {"connect", "silent", "slow", "stalled", "tiny", "oversize"}


def reset() -> bytes:
    return serialise_packet(ControlPacket(Opcode.HARD_RESET_CLIENT_V2, 0, secrets.token_bytes(8), packet_id=0))


def said_first(kind: str) -> bytes:
    return {
        "stalled": lambda: frame(reset()),
        "tiny": lambda: frame(reset()) + b"\x00\x01\x28" * 5000,
        "oversize": lambda: b"\xff\xff" + bytes(1000),
        "slow": lambda: b"\x00",
    }.get(kind, lambda: b"")()


def storm_tcp(kind: str, to: tuple[str, int], end: float) -> int:
    """Who stays is closed when there are too many, the oldest first."""
    kept: deque[socket.socket] = deque()
    connected, most, again = 0, SLOW_OPEN if kind == "slow" else OPEN_MAX, time.monotonic() + 1
    while (now := time.monotonic()) < end:
        if kind == "slow" and now >= again:
            again = now + 1
            for each in kept:
                with contextlib.suppress(OSError):
                    each.send(b"\x0e")
        if kind == "slow" and len(kept) >= most:
            time.sleep(0.01)
            continue
        try:
            client = socket.create_connection(to, timeout=0.5)
            client.settimeout(0.05)
            connected += 1
            with contextlib.suppress(OSError):
                client.sendall(said_first(kind))
        except OSError:
            continue
        if kind in ("connect", "oversize", "tiny"):
            client.close()
            continue
        kept.append(client)
        if len(kept) > most:
            kept.popleft().close()
    return connected


class Visitor:
    """A light client on a UDP socket of its own."""

    def __init__(self, context: SSL.Context, to: tuple[str, int], source: str) -> None:
        self.light = LightClient(context, time.monotonic(), options=None)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.socket.connect(to)
        self.socket.setblocking(False)
        self.began = time.monotonic()
        self.packets = 0

    def step(self) -> None:
        now = time.monotonic()
        with contextlib.suppress(OSError):
            while True:
                self.light.receive_packet(self.socket.recv(2048), now)
        self.light.handle_timeout(now)
        with contextlib.suppress(OSError):
            for packet in self.light.packets_to_send(now):
                self.socket.send(packet)
                self.packets += 1


def storm_udp(kind: str, to: tuple[str, int], end: float, context: SSL.Context, prefix: str) -> int:
    """``hello``: gone after its ClientHello. ``certificate``: gone when refused, or when it has waited in vain."""
    done, selector = 0, selectors.DefaultSelector()
    visitors: set[Visitor] = set()
    while (now := time.monotonic()) < end:
        while len(visitors) < AT_ONCE:
            source = f"{prefix}.{1 + secrets.randbelow(254)}" if prefix else ""
            visitor = Visitor(context, to, source)
            visitor.step()
            visitors.add(visitor)
            selector.register(visitor.socket, selectors.EVENT_READ, visitor)
        for key, _ in selector.select(0.01):
            key.data.step()
        for visitor in list(visitors):
            light = visitor.light
            if kind == "soft-reset" and light.connected:
                light.renegotiate(now)
                visitor.step()
                done += 1
                continue
            over = visitor.packets > 1 if kind == "hello" else light.connected or light.failed is not None
            if over or (now - visitor.began > 0.5 and kind != "soft-reset"):
                done += over
                selector.unregister(visitor.socket)
                visitor.socket.close()
                visitors.remove(visitor)
    return done


def main(kind: str, host: str, port: str, seconds: str, directory: str = "", prefix: str = "") -> None:
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    begun = time.monotonic()
    to, end = (host, int(port)), begun + float(seconds)
    if kind in FIRST_SAID:
        done = storm_tcp(kind, to, end)
    else:
        place = Path(directory)
        context = client_context(place / "ca.crt", place / "storm.crt", place / "storm.key")
        done = storm_udp(kind, to, end, context, prefix)
    print(f"{done} packets in {time.monotonic() - begun:.3f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
