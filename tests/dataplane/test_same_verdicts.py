"""The C plane and its specification are told the same random stories, and must give the same verdicts: what reaches the
TUN and the clients byte for byte, what is dropped for which reason, what each client is counted for, what is reported.

Both run side by side in one test. A batch that differs prints itself; ``SEEDS=100`` plays more of them.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from helpers import packets
from helpers.packets import ICMP, ICMPV6, OCC, PING, SYN, TCP, UDP, ClientKey, data_keys, header
from helpers.plane import BYSTANDER_TARGET, TARGET, TARGET_V6, Client, Gateway

from cvpnd.dataplane.api import Drop, FloatSeen, Framing, StrayControl
from cvpnd.dataplane.native import NativeDataPlane
from cvpnd.dataplane.reference import ReferenceDataPlane

SEEDS = int(os.environ.get("SEEDS", "3"))
BATCHES, BATCH = 100, 24
TOO_BIG_AGAIN_S = 0.012
"""The planes tell a sender at most every ten milliseconds, by a clock of their own."""

SEEN = {"denied", "denied_source", "bad_source", "not_ip", "replayed", "auth_failed", "compressed", "too_big"}
"""In every story, whatever else."""

V4 = (
    TARGET, "10.20.0.255", "10.20.255.255", "10.30.0.10", "10.100.0.2", "10.100.0.3", "10.100.0.77", "10.21.0.1",
    "192.0.2.1", "0.0.0.0", "127.0.0.1", "169.254.169.254", "224.0.0.1", "239.1.2.3", "255.255.255.255", "240.0.0.1",
)  # fmt: skip
V6 = (
    TARGET_V6, "fd20:0:ffff::1", "fd30::1", "fd64::2", "fd64::3", "fd64::77", "2001:db8::1", "::", "::1", "fe80::1",
    "ff02::1", "ff0e::1", "::ffff:10.20.0.7", "::ffff:10.100.0.2", "::10.100.0.2", "64:ff9b::a14:7",
)  # fmt: skip
CLIENTS: dict[int, dict[str, Any]] = {
    1: {"mss_v4": 1200, "mss_v6": 1180, "tunnel_mtu": 1280},
    2: {"cipher": "CHACHA20-POLY1305", "framing": Framing.COMP_LZO, "mss_v4": 1361},
    3: {"cipher": "AES-128-GCM", "framing": Framing.STUB_V2, "tunnel_mtu": 576},
    4: {"epoch": True, "mss_v6": 9000, "tunnel_mtu": 1420, "remote_peer_id": 0xFFFFFE},
    5: {"cipher": "AES-192-CBC", "digest": "SHA1", "tunnel_mtu": 1300, "mss_v4": 536},
    6: {"cipher": "AES-256-CBC", "digest": "SHA512", "framing": Framing.COMP_LZO},
    7: {"data_v1": True, "cipher": "AES-192-GCM", "tunnel_mtu": 701},
}


def addresses_of(peer_id: int) -> tuple[str, str]:
    return f"10.100.0.{peer_id + 1}", f"fd64::{peer_id + 1:x}"


PEERS = {ip_address(address).packed: peer_id for peer_id in CLIENTS for address in addresses_of(peer_id)}


# -- packets inside the tunnel -----------------------------------------------------------------------------------


class Sender:
    """Draws inner packets, most of them wrong in one way."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.fragments: dict[int, list[bytes]] = {}
        """By client, those that it is still to send."""

    def address(self, v6: bool, own: tuple[str, str] | None = None, share: float = 0.6) -> str:
        if own is not None and self.rng.random() < share:
            return own[v6]
        if self.rng.random() < 0.4:
            return (TARGET, TARGET_V6)[v6]
        return self.rng.choice(V6 if v6 else V4)

    def payload(self) -> bytes:
        size = self.rng.choice(
            [0, 1, 3, 7, 8, 20, 40, 100, 533, 548, 600, 1232, 1252, 1253, 1260, 1280, 1400, 2000, 2020]
        )
        return self.rng.randbytes(max(0, size + self.rng.choice([0, 0, -1, 1, -20])))

    def options(self) -> bytes:
        """Of TCP: an MSS, whole or not, among others."""
        rng = self.rng
        parts = [
            b"\x02\x04" + rng.choice([0, 1, 536, 1180, 1181, 1361, 1460, 0xFFFF]).to_bytes(2, "big"),
            b"\x01", b"\x03\x03\x07", b"\x04\x02", b"\x02\x03\x05", b"\x02\x04\x05", b"\x02\x00", b"\x00",
            b"\x08\x0a" + bytes(8), b"\x02\x06\x05\xb4\x05\xb4", b"\xfe\x01", b"\xfe\xff", rng.randbytes(2),
        ]  # fmt: skip
        return b"".join(rng.choice(parts) for _ in range(rng.randint(0, 5)))[:40]

    def segment(self, source: str, destination: str) -> tuple[int, bytes]:
        rng, v6 = self.rng, ":" in source
        match rng.randrange(6):
            case 0:
                whole = packets.udp(source, destination, self.payload())
            case 1 | 2:
                flags = rng.choice([SYN, SYN | packets.ACK, packets.ACK, rng.randrange(256)])
                whole = packets.tcp(source, destination, self.payload()[:300], flags=flags, options=self.options())
            case 3:
                whole = packets.icmp_echo(source, destination, self.payload())
            case 4:
                return (ICMPV6 if v6 else ICMP), self.icmp_error(source, destination)
            case _:
                return rng.choice([0, 41, 43, 44, 47, 50, 58, 1, 59, 60, TCP, UDP, 132, 255]), self.payload()
        protocol = whole[6] if v6 else whole[9]
        return protocol, whole[40 if v6 else 20 :]

    def icmp_error(self, source: str, destination: str) -> bytes:
        """Its quotation is of a packet that its receiver may have sent, or has not."""
        rng, v6 = self.rng, ":" in source
        types = [0, 1, 2, 3, 4, 100, 127, 128, 255] if v6 else [0, 3, 4, 5, 8, 11, 12, 13, 30]
        quoted_source = destination if rng.random() < 0.7 else self.address(v6)
        quoted = packets.udp(quoted_source, self.address(v6), b"quoted!!")
        if rng.random() < 0.2:  # of the other family
            quoted = packets.udp("10.100.0.2", TARGET) if v6 else packets.udp("fd64::2", TARGET_V6)
        if rng.random() < 0.3:
            quoted = quoted[: rng.choice([0, 1, 12, 16, 19, 20, 24, 39, 40, 41])]
        return (
            bytes([rng.choice(types), rng.randrange(6)]) + rng.randbytes(6) + quoted + self.payload() * rng.randrange(2)
        )

    def packet(self, source: str, destination: str) -> bytes:
        rng, v6 = self.rng, ":" in source
        protocol, segment = self.segment(source, destination)
        if v6 and rng.random() < 0.2:
            for _ in range(rng.randint(1, 3)):  # extension headers, fragments and routing headers among them
                kind = rng.choice([0, 43, 44, 60])
                segment, protocol = (
                    bytes([protocol, 0]) + rng.choice([bytes(6), b"\0\1abcd", rng.randbytes(6)]) + segment,
                    kind,
                )
        fragment = rng.choice([0] * 6 + [0x4000] * 4 + [0x2000, 0x2001, 0x0001, 0x6000, 0x8000, 0x1FFF, 0x1F00])
        packet = bytearray(packets.ip(source, destination, protocol, segment, fragment=fragment))
        if not v6 and rng.random() < 0.2:  # options, lengths of headers
            options = rng.choice(
                [b"\x01\x01\x01\x00", b"\x83\x07\x04\x0a\x1e\x00\x0a\x00", rng.randbytes(40), bytes(4)]
            )
            packet[20:20] = options
            packet[0] = 0x40 | rng.choice([5 + len(options) // 4] * 4 + [0, 4, 15])
            packet[2:4] = min(0xFFFF, len(packet)).to_bytes(2, "big")
        packet[7 if v6 else 8] = rng.choice([0, 1, 2, 64, 255])
        if rng.random() < 0.12:  # its length is a lie
            at = 4 if v6 else 2
            packet[at : at + 2] = rng.choice([0, 1, 19, 20, 21, 40, len(packet) - 1, len(packet) + 1, 0xFFFF]).to_bytes(
                2, "big"
            )
        if rng.random() < 0.08:
            packet[0] = rng.choice([0x00, 0x40, 0x44, 0x45, 0x4F, 0x50, 0x60, 0x65, 0x70, 0xF5, 0x6F, 0xFA])
        if rng.random() < 0.08:
            packet[rng.randrange(len(packet))] ^= rng.randint(1, 255)
        if rng.random() < 0.08:
            del packet[rng.randint(1, len(packet)) :]  # never to nothing: that would be the end of the device
        if rng.random() < 0.1:
            packet += rng.randbytes(rng.randint(1, 30))
        if not v6 and rng.random() < 0.8:  # of a fragment, it is looked at
            header = (packet[0] & 15) * 4
            packet[10:12] = bytes(len(packet[10:12]))
            packet[10:12] = packets.checksum(packet[:header]).to_bytes(2, "big")[: len(packet[10:12])]
        return bytes(packet)

    def from_client(self, client: Client) -> bytes:
        """A payload: seldom no packet at all."""
        rng, v6 = self.rng, self.rng.random() < 0.4
        if rng.random() < 0.12:
            return rng.choice([
                PING, PING[:-1], PING + b"x", OCC, OCC + b"\x00", OCC + b"\x06", OCC + b"\x03" + bytes(9), b"\x45",
                b"P", b"P\x00", b"P\x0a\x45", b"P\x01zz", b"\xfa", b"\xfb", b"f", b"i123",
                rng.randbytes(rng.randint(1, 90)),
            ])  # fmt: skip
        waiting = self.fragments.setdefault(client.peer_id, [])
        if rng.random() < 0.12:
            waiting += self.in_fragments(addresses_of(client.peer_id)[v6], (TARGET, TARGET_V6)[v6])
        if waiting and rng.random() < 0.5:
            return waiting.pop(0)
        own = addresses_of(client.peer_id)
        return self.packet(self.address(v6, own, 0.85), self.address(v6))

    def in_fragments(self, source: str, destination: str) -> list[bytes]:
        """All of a packet, mostly in order; sometimes one is lost, comes twice, or is longer than it should be."""
        rng, identification = self.rng, self.rng.randrange(3)
        ends = sorted({8 * rng.randint(1, 60) for _ in range(rng.randint(1, 5))} | {8 * 60 + rng.randint(1, 8)})
        cut = list(zip([0, *ends], ends, strict=False))
        if rng.random() < 0.3:
            rng.shuffle(cut)
        match rng.randrange(6):
            case 0:
                cut.pop(rng.randrange(len(cut)))
            case 1:
                cut.insert(rng.randrange(len(cut)), rng.choice(cut))
            case 2:
                at = rng.randrange(len(cut))
                cut[at] = cut[at][0], cut[at][1] + rng.choice([1, 8, 16])
        return [
            packets.fragment(
                source, destination, UDP, rng.randbytes(end - start), start, end < ends[-1], identification
            )
            for start, end in cut
        ]

    def framed(self, framing: Framing, payload: bytes) -> bytes:
        """As a client does it, mostly."""
        rng = self.rng
        if framing is Framing.NONE or rng.random() < 0.1:
            return payload
        if framing is Framing.STUB_V2:
            return rng.choice(
                [payload] * 6 + [b"P\x0a" + payload, b"P\x00" + payload, b"P\x01" + payload, b"P\x0b" + payload]
            )
        swapped = b"\xfb" + payload[1:] + payload[:1]
        return rng.choice(
            [b"\xfa" + payload] * 3 + [swapped] * 3 + [bytes([rng.choice([0xFB, 0x66, 0x69, 0])]) + payload]
        )

    def to_client(self) -> bytes:
        v6 = self.rng.random() < 0.4
        own = addresses_of(self.rng.randint(1, 8))
        return self.packet(self.address(v6), self.address(v6, own, 0.9))

    def damaged(self, sealed: bytes) -> bytes:
        """What a stranger may make of a data packet."""
        rng = self.rng
        changed = bytearray(sealed)
        match rng.randrange(5):
            case 0:
                changed[0] = rng.randrange(256)
            case 1:
                changed[1:4] = rng.choice([0, 1, 2, 8, 900, 0xFFFFFF, 0xFFFFFE]).to_bytes(3, "big")
            case 2:
                del changed[rng.randrange(len(changed)) :]
            case 3:
                changed[rng.randrange(len(changed))] ^= rng.randint(1, 255)
            case _:
                changed += rng.randbytes(rng.choice([1, 16, 2000, 60000]))
        return bytes(changed)


# -- both planes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One plane, and the clients of it."""

    gateway: Gateway
    clients: dict[int, Client]

    def install(self, peer_id: int, key_id: int, seed: str) -> None:
        client = self.clients[peer_id]
        keys = data_keys(f"{peer_id} {key_id} {seed}", client.cipher, epoch=client.epoch, digest=client.digest)
        client.keys[key_id] = ClientKey(key_id, keys)
        client.plane.install_key(peer_id, key_id, keys)

    def settle(self) -> list[bytes]:
        """Everything handed in has been dealt with; what reached the TUN."""
        seen = self.gateway.barrier()
        bystander = self.gateway.clients[-1]
        self.gateway.inject(packets.udp(BYSTANDER_TARGET, bystander.address, b"mark"))
        assert bystander.receive().payload.endswith(b"mark")
        return seen + self.gateway.barrier()

    def outcome(self) -> dict[str, Any]:
        """What the batch before has brought about; afterwards everything has been looked at."""
        delivered = self.settle()
        drops = self.gateway.drops()
        told = [event for event in self.gateway.events() if not isinstance(event, FloatSeen | StrayControl)]
        return {
            "TUN": [packet.hex() for packet in delivered],
            "drops": {word.value: count for word, count in sorted(drops.items()) if word is not Drop.FLOAT_REFUSED},
            "clients": {peer_id: self._received(client) for peer_id, client in self.clients.items()},
            "counts": {peer_id: self.gateway.plane.peer_stats(peer_id).counts for peer_id in self.clients},
            "events": sorted(map(str, told)),
        }

    @staticmethod
    def _received(client: Client) -> list[tuple[int, int, int, int, str]]:
        """In the order of sealing: the later pieces of a packet that was cut are sent behind the rest of a batch."""
        seen = []
        while not client.received_nothing():
            opened = client.receive()
            seen.append((opened.key_id, opened.epoch, opened.packet_id, opened.peer_id, opened.payload.hex()))
        return sorted(seen)


Step = tuple[str, Callable[[Side], None]]


class Story:
    def __init__(self, seed: int, sides: list[Side]) -> None:
        self.rng = random.Random(seed)
        self.sender = Sender(self.rng)
        self.of = sides[0].clients
        """The clients whose keys seal for both sides."""
        self.sealed: list[bytes] = [b"\x48"]

    def batch(self) -> list[Step]:
        chance = self.rng.random()
        if chance < 0.2:
            return [self.change()]
        if chance < 0.3:
            return [self.injected() for _ in range(BATCH // 4)]
        if chance < 0.65:
            return [self.datagram() for _ in range(BATCH)]
        told: set[int] = set()
        return [self.from_tun(told) for _ in range(BATCH)]

    def from_tun(self, told: set[int]) -> Step:
        """At most one packet that is too big for each client."""
        while True:
            packet = self.sender.to_client()
            peer_id = PEERS.get(packet[16:20], PEERS.get(packet[24:40], 0))
            if peer_id not in told or len(packet) <= CLIENTS[peer_id].get("tunnel_mtu", 0xFFFF):
                break
        if peer_id and len(packet) > CLIENTS[peer_id].get("tunnel_mtu", 0xFFFF):
            told.add(peer_id)
        return f"TUN {packet.hex()}", lambda side: side.gateway.inject(packet)

    def sealed_by(self, peer_id: int) -> tuple[bytes, str]:
        rng, client = self.rng, self.of[peer_id]
        payload = self.sender.framed(CLIENTS[peer_id].get("framing", Framing.NONE), self.sender.from_client(client))
        key = rng.choice(list(client.keys.values()))
        if rng.random() < 0.03:
            other = data_keys("not this one", client.cipher, epoch=client.epoch, digest=client.digest)
            key = ClientKey(key.key_id, other)
        packet_id, last = None, key.last_packet_id
        if rng.random() < 0.15:
            packet_id = max(0, last + rng.choice([-last, -1983, -1984, -2047, -1, 0, 1, 1984, 3000]))
            key.last_packet_id = max(last, packet_id)
        if key.keys.epoch and rng.random() < 0.1:
            key.epoch = max(1, min(40, key.epoch + rng.choice([1, 1, -1, -1, 2, 4, 5])))
        named = None if client.data_v1 or (rng.random() < 0.03 and not key.keys.epoch) else peer_id
        sealed = key.seal(named, payload, packet_id=packet_id)
        if rng.random() < 0.1:
            sealed = self.sender.damaged(sealed)
        elif rng.random() < 0.05:
            sealed = rng.choice(self.sealed)
        self.sealed = [*self.sealed[-40:], sealed]
        return sealed, f"{sealed[:40].hex()} ({len(sealed)}), key {key.key_id}, of {payload.hex()}"

    def datagram(self) -> Step:
        peer_id = self.rng.choice([n for n in CLIENTS if not CLIENTS[n].get("data_v1")])
        raw, says = self.sealed_by(peer_id)
        if self.rng.random() < 0.1:
            raw = self.nonsense()
            says = raw.hex()
        return f"{peer_id} sends {says}", lambda side: side.clients[peer_id].send_raw(raw)

    def injected(self) -> Step:
        peer_id = self.rng.choice([7, 7, 7, *CLIENTS])
        raw, says = self.sealed_by(peer_id)
        if not 1 <= len(raw) <= packets.LINK_PACKET_MAX:
            return self.injected()
        return f"{peer_id} is injected {says}", lambda side: side.gateway.plane.inject(peer_id, raw)

    def nonsense(self) -> bytes:
        rng = self.rng
        opcode = rng.choice([0, 1, 2, 6, 8, 9, 12, 31, 4])
        raw = header(rng.choice([1, 2, 8, 0xFFFFFF]), rng.randrange(8), opcode)
        raw += rng.randbytes(rng.choice([0, 1, 16, 20, 21, 60]))
        return raw[: rng.choice([0, 1, 3, 4, len(raw), len(raw)])]

    def change(self) -> Step:
        rng = self.rng
        peer_id = rng.choice(list(CLIENTS))
        keys = self.of[peer_id].keys
        match rng.randrange(7):
            case 0:
                groups = rng.choice([0, 1, groups_of(peer_id), groups_of(peer_id), 1 << 200])
                return f"groups of {peer_id}: {groups:x}", lambda side: side.gateway.plane.set_groups(peer_id, groups)
            case 1:
                rules = self.rules()
                return f"rules {rules}", lambda side: side.gateway.set_rules(1, rules)
            case 2 | 3:
                key_id, seed = rng.randrange(8), str(rng.random())
                return f"key {key_id} for {peer_id}", lambda side: side.install(peer_id, key_id, seed)
            case 4:
                key_id = rng.choice(list(keys))
                return f"use key {key_id} of {peer_id}", lambda side: side.gateway.plane.use_key(peer_id, key_id)
            case 5 if len(keys) > 1:
                key_id = rng.choice(list(keys))

                def remove(side: Side) -> None:
                    side.gateway.plane.remove_key(peer_id, key_id)
                    del side.clients[peer_id].keys[key_id]

                return f"no key {key_id} for {peer_id}", remove

        def move(side: Side) -> None:
            client = side.clients[peer_id]
            client.move()
            side.gateway.plane.set_remote(peer_id, 1, client.own_address(), "")

        return f"{peer_id} moves", move

    def rules(self) -> dict[str, int]:
        rng, rules = self.rng, {"10.20.0.0/16": 1, "fd20::/32": 1} if self.rng.random() < 0.7 else {}
        for _ in range(rng.randint(0, 14)):
            v6 = rng.random() < 0.4
            bits = rng.choice([0, 1, 10, 64, 96, 120, 127, 128] if v6 else [0, 1, 8, 9, 16, 23, 24, 25, 31, 32])
            network = ip_network((rng.choice(V6 if v6 else V4), bits), strict=False)
            rules[str(network)] = rng.choice([0, 1, 1, 2, 1 << 200, 1 << 3 | 1 << 4])
        return rules


def groups_of(peer_id: int) -> int:
    return 1 | 1 << peer_id | (1 << 200 if peer_id % 2 else 0)


def differences(ours: Any, specified: Any, where: str = "") -> str:
    if isinstance(ours, dict):
        keys = {**ours, **specified}
        return "".join(differences(ours.get(key), specified.get(key), f"{where} {key}") for key in keys)
    if ours == specified:
        return ""
    if isinstance(ours, list) and isinstance(specified, list):
        only = [f"\n  C only: {each}" for each in ours if each not in specified]
        return f"\n{where}:" + "".join(only + [f"\n  Python only: {each}" for each in specified if each not in ours])
    return f"\n{where}: C {ours}, Python {specified}"


@pytest.fixture
def sides() -> Iterator[list[Side]]:
    made = []
    for plane in (NativeDataPlane(1, crypto="auto", last_epoch=30), ReferenceDataPlane(1, last_epoch=30)):
        side = Side(Gateway(plane), {})
        made.append(side)
        for peer_id, settings in CLIENTS.items():
            client = side.gateway.client(
                peer_id, addresses_of(peer_id), key=False, groups=groups_of(peer_id), **settings
            )
            side.clients[peer_id] = client
            side.install(peer_id, 0, "first")
        side.gateway.barrier()
    yield made
    for side in made:
        side.gateway.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_same_packets_meet_the_same_verdicts(sides: list[Side], seed: int) -> None:
    story = Story(seed, sides)
    passed: Counter[str] = Counter()
    for _ in range(BATCHES):
        batch = story.batch()
        for side in sides:
            for _, do in batch:
                do(side)
        ours, specified = (side.outcome() for side in sides)
        assert ours == specified, differences(ours, specified) + "\n" + "\n".join(says for says, _ in batch)
        passed["in"] += len(ours["TUN"])
        passed["out"] += sum(map(len, ours["clients"].values()))
        time.sleep(TOO_BIG_AGAIN_S)
    assert min(passed["in"], passed["out"]) > 20, "nothing but drops compared"
    assert set(ours["drops"]) >= SEEN
