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
    chain         the same with 30 kB of certificates
    soft-reset    connects, then asks for new keys without end
    used-up       connects, then makes each of its keys look used up by the ids of its packets
    key-update    connects, then asks TLS for new keys without end
    push-request  connects, then asks for its options without end
    texts         connects, then says short things that mean nothing, each in a TLS record of its own
    acks          connects, then acknowledges what it was never sent
    data          connects as a client without a peer id, then sends pings, every other one forged
    noise         connects, then says what no client says: 255 acknowledgements, ids beyond the window, soft resets of
                  every key, opcodes without a body
    absurd        whole handshakes, and a key exchange with lengths that cannot be
    password      whole handshakes, and a wrong password

With ``PREFIX`` (10.0.0), from all addresses of that network in turn. Prints how often it did so in how many seconds.
"""

from __future__ import annotations

import contextlib
import math
import resource
import secrets
import selectors
import socket
import sys
import time
from collections import deque
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from key_updates import CountedTls, KeyLog, KeyUpdates
from light_client.__main__ import client_context
from light_client.data_channel import PING, DataKey
from light_client.protocol import PEER_INFO_26, LightClient
from OpenSSL import SSL

from cvpnd.wire.messages import PUSH_REQUEST, serialise_message
from cvpnd.wire.packet import ControlPacket, Opcode, serialise_packet
from cvpnd.wire.stream import frame

OPEN_MAX = 4000
SLOW_OPEN = 500
AT_ONCE = 32
STAYING = {"soft-reset", "used-up", "key-update", "push-request", "texts", "acks", "data", "noise"}
CHAIN_BYTES = 30_000
IN_FORCE_S = 0.02
"""After which a new key is so at the server too."""
PATIENT = {"absurd", "password", "chain"}
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


def noise(ours: bytes, theirs: bytes) -> list[bytes]:
    head = bytes([Opcode.CONTROL_V1 << 3]) + ours
    far = [ControlPacket(Opcode.CONTROL_V1, 0, ours, packet_id=secrets.randbits(32), payload=b"x") for _ in range(4)]
    return [
        head + b"\xff" + 255 * b"\0\0\0\1" + theirs + bytes(4),
        head + b"\x08" + secrets.token_bytes(32) + theirs + secrets.token_bytes(4),
        head + b"\x01" + bytes(4) + secrets.token_bytes(8) + bytes(4),
        *map(serialise_packet, far),
        *(bytes([Opcode.SOFT_RESET_V1 << 3 | key_id]) + ours + bytes(5) for key_id in range(8)),
        *(bytes([opcode << 3]) + ours for opcode in range(3, 8)),
    ]


class Visitor:
    """A light client on a UDP socket of its own."""

    def __init__(self, context: SSL.Context, log: KeyLog, kind: str, to: tuple[str, int], source: str) -> None:
        said = {
            "absurd": {"options": "V4," + 60_000 * "x"},
            "password": {"username": "mallory", "password": secrets.token_hex(8)},
            "data": {"peer_info": PEER_INFO_26 | {"IV_PROTO": "0"}},
        }.get(kind, {})
        self.light = LightClient(context, time.monotonic(), **said)
        self._kind = kind
        self._log = log
        self._tls = self.light._newest.tls
        self.light._newest.tls = CountedTls(self._tls)  # type: ignore[assignment]
        self._updates: KeyUpdates | None = None
        self._used_up: DataKey | None = None
        self._use_up_at = math.inf
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.socket.connect(to)
        self.socket.setblocking(False)
        self.began = time.monotonic()
        self.packets = 0

    def harass(self) -> int:
        """What a connected one does, and how often."""
        light = self.light
        match self._kind:
            case "soft-reset":
                light.renegotiate(time.monotonic())
            case "used-up":
                now, key = time.monotonic(), light._sending
                if key is not self._used_up:
                    self._used_up, self._use_up_at = key, now + IN_FORCE_S
                if now < self._use_up_at:
                    self.step()
                    return 0
                self._use_up_at = math.inf
                key.skip_to(0xFFFFFF00)
                light.send_tunnel_packet(PING)
            case "key-update" if len(light._newest.reliable._backlog) < 8:
                if self._updates is None:
                    secret, counted = self._log.take(self._tls._connection), light._newest.tls
                    self._updates = KeyUpdates(secret, self._tls.cipher, counted.records)  # type: ignore[attr-defined]
                records = b"".join(self._updates.record() for _ in range(40))
                light._newest.reliable.queue_payload(Opcode.CONTROL_V1, records)
                self.step()
                return 40
            case "push-request" if len(light._newest.reliable._backlog) < 8:
                light._newest.tls.send(80 * serialise_message(PUSH_REQUEST))
                light._newest.flush()
                self.step()
                return 80
            case "texts" if len(light._newest.reliable._backlog) < 8:
                for _ in range(80):
                    light._newest.tls.send(serialise_message("x"))
                light._newest.flush()
                self.step()
                return 80
            case "acks":
                acks = tuple(secrets.randbits(32) for _ in range(8))
                ack = ControlPacket(Opcode.ACK_V1, 0, light.session_id, acks, light.remote_session_id)
                self._send(50 * [serialise_packet(ack)])
                return 50
            case "data":
                for _ in range(25):
                    light.send_tunnel_packet(PING)
                pings = light.packets_to_send(time.monotonic())
                forged = [packet[:-1] + bytes([packet[-1] ^ 1]) for packet in pings]
                self._send([*pings, *forged])
                self.step()
                return 50
            case "noise":
                self._send(noise(light.session_id, light.remote_session_id))
                self.step()
                return 20
        self.step()
        return 1

    def _send(self, packets: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            for packet in packets:
                self.socket.send(packet)

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
    done, selector, log = 0, selectors.DefaultSelector(), KeyLog(context)
    visitors: set[Visitor] = set()
    while (now := time.monotonic()) < end:
        while len(visitors) < AT_ONCE:
            source = f"{prefix}.{1 + secrets.randbelow(254)}" if prefix else ""
            visitor = Visitor(context, log, kind, to, source)
            visitor.step()
            visitors.add(visitor)
            selector.register(visitor.socket, selectors.EVENT_READ, visitor)
        for key, _ in selector.select(0.01):
            key.data.step()
        for visitor in list(visitors):
            light = visitor.light
            if kind in STAYING and light.connected and light.failed is None:
                done += visitor.harass()
                continue
            over = visitor.packets > 1 if kind == "hello" else light.connected or light.failed is not None
            if over or (now - visitor.began > (5.0 if kind in STAYING else 3.0 if kind in PATIENT else 0.5)):
                done += over or (kind == "absurd" and light._newest.tls.established)
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
        if kind == "chain":
            one = x509.load_pem_x509_certificate((place / "storm.crt").read_bytes())
            for _ in range(CHAIN_BYTES // len(one.public_bytes(Encoding.DER))):
                context.add_extra_chain_cert(one)
        done = storm_udp(kind, to, end, context, prefix)
    print(f"{done} packets in {time.monotonic() - begun:.3f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
