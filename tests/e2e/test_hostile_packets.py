"""What a client that was let in may put into the tunnel: whatever it is, it reaches nothing that rules and security
groups do not open, neither behind the gateway nor the gateway itself nor another client.

Every packet carries a mark of its own. The gateway is watched where nothing escapes: all that its interfaces send, and
all that is delivered to it, which raw sockets see.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from helpers import certs, packets
from helpers.packets import ICMP, ICMPV6, UDP

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SO_RCVBUFFORCE = 33
OPEN, CLOSED = 9, 22
"""Ports: of the one that the security group lets through, and of one that it does not."""
TARGET, OTHER, LEG = "10.20.0.10", "10.30.0.10", "10.20.0.1"
TARGET_V6, OTHER_V6, LEG_V6 = "fd00:20::a", "fd00:30::a", "fd00:20::1"
GATEWAY, GATEWAY_V6, OUTSIDE = "10.100.0.1", "fd00:100::1", "198.51.100.1"
HOP_BY_HOP, IPV6, ROUTING, FRAGMENT, GRE, ESP, NO_NEXT, DESTINATION, SCTP = 0, 41, 43, 44, 47, 50, 59, 60, 132
DELIVERED = (ICMP, 4, packets.TCP, UDP, IPV6, GRE, ESP, SCTP)
SECURITY_GROUP = """
[[security_group]]
id = "one-port"
vpc = "vpc-main"
egress = [{ network = "10.20.0.0/16", protocol = "udp", ports = "9" },
    { network = "fd00:20::/48", protocol = "udp", ports = "9" }]
"""
RULES = """authorize = [{ network = "0.0.0.0/0", all_groups = true }, { network = "::/0", all_groups = true },
    { network = "10.30.0.0/16", group = "nobody" }, { network = "fd00:30::/48", group = "nobody" }]
"""


@dataclass(frozen=True)
class Scene:
    ours: str
    ours_v6: str
    theirs: str
    theirs_v6: str
    """Of another client of the endpoint."""


class Marks:
    """Gives each packet one, by which it is known again: of eight bytes, as a fragment has at least."""

    def __init__(self) -> None:
        self.names: dict[bytes, str] = {}

    def of(self, name: str) -> bytes:
        mark = b"<%05d>" % len(self.names) + b"M"
        self.names[mark] = name
        return mark

    def found_in(self, packet: bytes) -> str | None:
        at = packet.find(b">M")
        return self.names.get(packet[at - 6 : at + 2]) if at >= 6 else None


# -- what is sent ------------------------------------------------------------------------------------------------


def segment(source: str, destination: str, port: int, payload: bytes) -> bytes:
    """A UDP datagram without its IP header, to be cut or wrapped."""
    whole = packets.udp(source, destination, payload, port=port)
    return whole[20 if ip_address(source).version == 4 else 40 :]


def options(next_header: int, *, count: int = 1) -> bytes:
    """An extension header of nothing but padding."""
    return struct.pack(">BBBB", next_header, count - 1, 1, 8 * count - 4).ljust(8 * count, b"\0")


def fragment(next_header: int, offset: int, more: bool) -> bytes:
    """IPv6's header; ``offset`` in bytes."""
    return struct.pack(">BBHI", next_header, 0, offset | more, 0x51525354)


def routing(kind: int, next_header: int, *through: str) -> bytes:
    """A routing header of that type whose segments are all to be visited yet: 0 (RFC 5095), 2, 3 (RPL), 4 (segments in
    reverse order)."""
    addresses = b"".join(ip_address(each).packed for each in reversed(through))
    last = len(through) - 1 if kind == 4 else 0
    left = len(through) - 1 if kind == 4 else len(through)
    return struct.pack(">BBBBI", next_header, len(addresses) // 8, kind, left, last << 24) + addresses


def with_ttl(packet: bytes, ttl: int) -> bytes:
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([ttl]) + packet[8:]
    header = packet[:8] + bytes([ttl, packet[9], 0, 0]) + packet[12:20]
    return header[:10] + packets.checksum(header).to_bytes(2, "big") + header[12:] + packet[20:]


def spoofed(scene: Scene, marks: Marks) -> Iterator[bytes]:
    sources = [scene.theirs, GATEWAY, LEG, TARGET, OUTSIDE, "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1"]
    sources += ["169.254.1.1", "240.0.0.1", "10.100.3.255", "10.100.0.0"]
    for source in sources:
        yield packets.udp(source, TARGET, marks.of(f"from {source}"), port=OPEN)
        yield packets.icmp_echo(source, GATEWAY, marks.of(f"ping from {source}"))
    mapped = [f"::ffff:{scene.ours}", f"::{scene.ours}", f"64:ff9b::{scene.ours}"]
    for source in [scene.theirs_v6, GATEWAY_V6, LEG_V6, TARGET_V6, "::1", "::", "fe80::1", "ff02::1", *mapped]:
        yield packets.udp(source, TARGET_V6, marks.of(f"from {source}"), port=OPEN)
        yield packets.icmp_echo(source, GATEWAY_V6, marks.of(f"ping from {source}"))


def misdirected(scene: Scene, marks: Marks) -> Iterator[bytes]:
    """To where nobody is let by an open port."""
    everybody = ["255.255.255.255", "10.20.0.255", "10.20.0.0", "10.100.3.255", "224.0.0.1", "224.0.0.251", "239.1.1.1"]
    ours = [GATEWAY, LEG, OUTSIDE, "127.0.0.1", "0.0.0.0", "240.0.0.1", "198.51.100.2"]
    for destination in [*everybody, *ours, scene.ours, scene.theirs, OTHER]:
        for port in (OPEN, 53, 1194):
            yield packets.udp(scene.ours, destination, marks.of(f"to {destination}, port {port}"), port=port)
        if destination != GATEWAY:
            yield packets.icmp_echo(scene.ours, destination, marks.of(f"ping to {destination}"))
    everybody = ["ff02::1", "ff02::2", "ff02::fb", "ff05::1", "ff0e::1"]
    ours = [GATEWAY_V6, LEG_V6, "2001:db8:1::1", "::1", "::", "fe80::1", f"::ffff:{TARGET}", "2001:db8:2::2"]
    for destination in [*everybody, *ours, scene.ours_v6, scene.theirs_v6, OTHER_V6]:
        for port in (OPEN, 53, 1194):
            yield packets.udp(scene.ours_v6, destination, marks.of(f"to {destination}, port {port}"), port=port)
        if destination != GATEWAY_V6:
            yield packets.icmp_echo(scene.ours_v6, destination, marks.of(f"ping to {destination}"))


def of_other_protocols(scene: Scene, marks: Marks) -> Iterator[bytes]:
    """Tunnels and the like, to the target and to the gateway, which might unpack them."""
    for here, to, denied in ((scene.ours, TARGET, OTHER), (scene.ours, GATEWAY, OTHER), (scene.ours, LEG, OTHER)):
        inner = packets.udp(here, denied, marks.of(f"inside IP in IP to {to}"), port=OPEN)
        yield packets.ip(here, to, 4, inner)
        inner = packets.udp(scene.ours_v6, OTHER_V6, marks.of(f"inside 6in4 to {to}"), port=OPEN)
        yield packets.ip(here, to, IPV6, inner)
        inner = packets.udp(here, denied, marks.of(f"inside GRE to {to}"), port=OPEN)
        yield packets.ip(here, to, GRE, b"\0\0\x08\0" + inner)
        for protocol in (2, ESP, 51, 89, 103, SCTP, 136, 255):
            body = struct.pack(">HHI", 4000, OPEN, 8) + marks.of(f"protocol {protocol} to {to}")
            yield packets.ip(here, to, protocol, body)
        for flags in (packets.SYN, packets.ACK, packets.SYN | packets.ACK, 0x04, 0x29, 0):
            yield packets.tcp(here, to, marks.of(f"TCP with flags {flags} to {to}"), flags=flags)
    for to in (TARGET_V6, GATEWAY_V6, LEG_V6):
        inner = packets.udp(scene.ours_v6, OTHER_V6, marks.of(f"inside IPv6 in IPv6 to {to}"), port=OPEN)
        yield packets.ip(scene.ours_v6, to, IPV6, inner)
        inner = packets.udp(scene.ours, OTHER, marks.of(f"inside 4in6 to {to}"), port=OPEN)
        yield packets.ip(scene.ours_v6, to, 4, inner)
        for flags in (packets.SYN, packets.ACK, 0x04):
            yield packets.tcp(scene.ours_v6, to, marks.of(f"TCP with flags {flags} to {to}"), flags=flags)


def in_pieces(scene: Scene, marks: Marks) -> Iterator[bytes]:
    """Around a rule that speaks of ports, which only the first piece has."""

    def pieces(*parts: tuple[int, bytes, bool]) -> Iterator[bytes]:
        for offset, data, more in parts:
            yield packets.ip(scene.ours, TARGET, UDP, data, fragment=offset // 8 | more << 13)

    def pieces_v6(*parts: tuple[int, bytes, bool], before: bytes = b"", of: int = UDP) -> Iterator[bytes]:
        first = DESTINATION if before else FRAGMENT
        for offset, data, more in parts:
            yield packets.ip(scene.ours_v6, TARGET_V6, first, before + fragment(of, offset, more) + data)

    for version, cut in ((4, pieces), (6, pieces_v6)):
        here, to = (scene.ours, TARGET) if version == 4 else (scene.ours_v6, TARGET_V6)

        def closed(name: str, here: str = here, to: str = to, version: int = version) -> bytes:
            return segment(here, to, CLOSED, 4 * marks.of(f"IPv{version} {name}"))

        whole, harmless = closed("tiny pieces"), segment(here, to, OPEN, bytes(32))
        yield from cut(*((at, whole[at : at + 8], at + 8 < len(whole)) for at in range(0, len(whole), 8)))
        whole = closed("pieces in reverse")
        yield from cut((16, whole[16:], False), (0, whole[:16], True))
        whole = closed("a piece over the first one's ports")
        yield from cut((0, harmless[:16], True), (0, whole[:16], True), (16, whole[16:], False))
        whole = closed("a first piece that comes last")
        yield from cut((8, whole[8:], False), (0, whole[:8], True), (0, harmless[:8], True))
        whole = closed("teardrop")
        yield from cut((0, whole[:24], True), (8, whole[8:16], False), (16, whole[16:], False))
        whole = closed("a later piece alone")
        yield from cut((1400, whole[8:], False))
        whole = closed("beyond 64 kB")
        yield from cut((0xFFF8, whole[8:], False), (0xFFF0, whole[:8], True))
        whole = closed("of one piece")
        yield from cut((0, whole, False))
    for name, before in (("behind options", options(FRAGMENT)), ("behind long options", options(FRAGMENT, count=20))):
        whole = segment(scene.ours_v6, TARGET_V6, CLOSED, marks.of(f"a fragment {name}"))
        yield from pieces_v6((0, whole, False), before=before)
    whole = segment(scene.ours_v6, TARGET_V6, CLOSED, marks.of("a fragment in a fragment"))
    yield from pieces_v6((0, fragment(UDP, 0, more=False) + whole, False), of=FRAGMENT)


def behind_extensions(scene: Scene, marks: Marks) -> Iterator[bytes]:
    """Around the same rule, and around all of them by a way that the packet names."""

    def closed(name: str) -> bytes:
        return segment(scene.ours_v6, TARGET_V6, CLOSED, marks.of(name))

    for name, header in (("hop-by-hop", HOP_BY_HOP), ("destination", DESTINATION)):
        for count in (1, 31):
            yield packets.ip(
                scene.ours_v6, TARGET_V6, header, options(UDP, count=count) + closed(f"{count} times {name} options")
            )
    chain = options(DESTINATION) * 9 + options(UDP)
    yield packets.ip(scene.ours_v6, TARGET_V6, DESTINATION, chain + closed("a long chain of options"))
    twice = options(HOP_BY_HOP) + options(UDP)
    yield packets.ip(scene.ours_v6, TARGET_V6, HOP_BY_HOP, twice + closed("two hop-by-hop"))
    yield packets.ip(scene.ours_v6, TARGET_V6, NO_NEXT, marks.of("nothing behind the header"))
    alert = bytes([UDP, 0, 5, 2, 0, 0, 1, 0])
    yield packets.ip(scene.ours_v6, TARGET_V6, HOP_BY_HOP, alert + closed("router alert"))
    jumbo = bytes([UDP, 0, 0xC2, 4, 0, 1, 0, 0])
    yield packets.ip(scene.ours_v6, TARGET_V6, HOP_BY_HOP, jumbo + closed("jumbo"))
    for kind in (0, 2, 3, 4, 253):
        for then in (OTHER_V6, TARGET_V6, scene.theirs_v6):
            for first in (GATEWAY_V6, LEG_V6):
                ways = (then, first) if kind == 4 else (then,)
                way = routing(kind, ICMPV6, *reversed(ways))
                for right_for in (first, then):  # the checksum, where it is looked at
                    mark = marks.of(f"by a route of type {kind} over {first} to {then}, right for {right_for}")
                    echo = packets.icmp_echo(scene.ours_v6, right_for, mark)[40:]
                    yield packets.ip(scene.ours_v6, first, ROUTING, way + echo)


def messages(scene: Scene, marks: Marks) -> Iterator[bytes]:
    """ICMP that would change what others know of the network."""
    for to in (TARGET, GATEWAY, LEG, scene.theirs, "255.255.255.255", "224.0.0.1"):
        for kind, code in ((5, 1), (3, 4), (9, 0), (10, 0), (13, 0), (17, 0), (12, 0), (11, 0)):
            mark = marks.of(f"ICMP type {kind} to {to}")
            quoted = packets.udp(to if to != GATEWAY else TARGET, scene.ours, mark, port=33000)
            yield packets.icmp(scene.ours, to, kind, code, socket.inet_aton(scene.ours) + quoted)
    for to in (TARGET_V6, GATEWAY_V6, LEG_V6, scene.theirs_v6, "ff02::1", "ff02::2"):
        for kind in (133, 134, 135, 136, 137, 1, 2, 3, 4, 143, 151):
            mark = marks.of(f"ICMPv6 type {kind} to {to}")
            body = bytes(4) + ip_address(GATEWAY_V6).packed + mark.ljust(16, b".")
            yield with_ttl(packets.icmp(scene.ours_v6, to, kind, 0, body), 255)


def malformed(scene: Scene, marks: Marks) -> Iterator[bytes]:
    def good(name: str) -> bytes:
        return packets.udp(scene.ours, TARGET, marks.of(name), port=OPEN)

    def good_v6(name: str) -> bytes:
        return packets.udp(scene.ours_v6, TARGET_V6, marks.of(name), port=OPEN)

    for ttl in (0, 1):
        yield with_ttl(good(f"IPv4 with a TTL of {ttl}"), ttl)
        yield with_ttl(good_v6(f"IPv6 with a hop limit of {ttl}"), ttl)
    for version in (0, 3, 5, 7, 15):
        packet = good(f"version {version}")
        yield bytes([version << 4 | 5]) + packet[1:]
    for words in (0, 4, 15):
        packet = good(f"a header of {words} words")
        yield bytes([0x40 | words]) + packet[1:]
    for length in (0, 19, 100, 0xFFFF):
        packet = good(f"an IPv4 length of {length}")
        yield packet[:2] + length.to_bytes(2, "big") + packet[4:]
    for length in (30, 0xFFFF):
        packet = good_v6(f"an IPv6 length of {length}")
        yield packet[:4] + length.to_bytes(2, "big") + packet[6:]
    packet = good("a wrong checksum of the header")
    yield packet[:10] + b"\xbe\xef" + packet[12:]


KINDS = (spoofed, misdirected, of_other_protocols, in_pieces, behind_extensions, messages, malformed)


def allowed(scene: Scene, marks: Marks) -> list[bytes]:
    """The same ways of saying it, for what may pass: else nothing would be proven."""

    def of(name: str, *, v6: bool = False) -> bytes:
        here, to = (scene.ours_v6, TARGET_V6) if v6 else (scene.ours, TARGET)
        return segment(here, to, OPEN, 4 * marks.of(name))

    plain, plain_v6 = of("allowed"), of("allowed IPv6", v6=True)
    cut, cut_v6 = of("allowed in pieces"), of("allowed IPv6 in pieces", v6=True)
    atomic, behind = of("allowed of one piece", v6=True), of("allowed behind options", v6=True)
    return [
        packets.ip(scene.ours, TARGET, UDP, plain),
        packets.ip(scene.ours_v6, TARGET_V6, UDP, plain_v6),
        packets.ip(scene.ours, TARGET, UDP, cut[:24], fragment=1 << 13),
        packets.ip(scene.ours, TARGET, UDP, cut[24:], fragment=3),
        packets.ip(scene.ours_v6, TARGET_V6, FRAGMENT, fragment(UDP, 0, more=True) + cut_v6[:24]),
        packets.ip(scene.ours_v6, TARGET_V6, FRAGMENT, fragment(UDP, 24, more=False) + cut_v6[24:]),
        packets.ip(scene.ours_v6, TARGET_V6, FRAGMENT, fragment(UDP, 0, more=False) + atomic),
        packets.ip(scene.ours_v6, TARGET_V6, DESTINATION, options(UDP) + behind),
    ]


# -- what comes of it --------------------------------------------------------------------------------------------


class Watch:
    """All that the gateway sends, but to the client's own address, and all that is delivered to it."""

    def __init__(self, gateway, marks: Marks, scene: Scene) -> None:
        self._marks = marks
        self._own = {ip_address(address).packed for address in (scene.ours, scene.ours_v6)}
        self._sent = gateway.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._delivered = [gateway.socket(socket.AF_INET, socket.SOCK_RAW, protocol) for protocol in DELIVERED]
        self._delivered += [
            gateway.socket(socket.AF_INET6, socket.SOCK_RAW, ICMPV6 if protocol == ICMP else protocol)
            for protocol in DELIVERED
        ]
        for each in (self._sent, *self._delivered):
            each.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
            each.setblocking(False)

    def close(self) -> None:
        for each in (self._sent, *self._delivered):
            each.close()

    def seen(self) -> set[str]:
        found = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, (interface, _, kind, *_) = self._sent.recvfrom(4096)
                name = self._marks.found_in(packet)
                if kind == socket.PACKET_OUTGOING and name is not None and not self._is_answer(packet):
                    found.add(f"{name}: sent to {interface}")
        for each in self._delivered:
            with contextlib.suppress(BlockingIOError):
                while True:
                    if (name := self._marks.found_in(each.recv(4096))) is not None:
                        found.add(f"{name}: delivered")
        return found

    def _is_answer(self, packet: bytes) -> bool:
        """An error message or an echo reply, to who asked."""
        return packet[24:40] in self._own if packet[0] >> 4 == 6 else packet[16:20] in self._own


@pytest.fixture
def played(site):
    gateway = site.lab.gateway
    for name in ("all", "default"):  # an administrator's wishes, which are none of the clients' business
        for setting in ("seg6_enabled", "rpl_seg_enabled", "accept_source_route"):
            gateway.sysctl(f"net/ipv6/conf/{name}/{setting}", 1)
        gateway.sysctl(f"net/ipv4/conf/{name}/accept_source_route", 1)
    toml = site.toml('security_groups = ["one-port"]', ipv6=True) + SECURITY_GROUP
    head, _, rest = toml.partition("authorize = [")
    toml = (head + RULES + rest.partition("\n")[2]).replace('["subnet-a", "subnet-b"]', '["subnet-a"]')
    site._gateway = site.lab.gateway_process(toml)
    victim = site.connect(certs.client("victim"), name="victim", host=OUTSIDE, client=site.lab.clients[1])
    return site.connect(), victim


def test_whatever_a_client_sends_reaches_nothing_that_is_not_open(site, played, ping):
    client, victim = played
    scene, marks = Scene(*client.addresses(), *victim.addresses()), Marks()
    watch = Watch(site.lab.gateway, marks, scene)
    sender = site.lab.client.socket(socket.AF_PACKET, socket.SOCK_DGRAM)

    def send(packet: bytes) -> None:
        protocol = ETH_P_IPV6 if packet[0] >> 4 == 6 else ETH_P_IP
        sender.sendto(packet, (client.interface, protocol))

    try:
        for packet in allowed(scene, marks):
            send(packet)
        time.sleep(0.5)
        assert watch.seen() == {f"{name}: sent to lan" for name in marks.names.values()}
        for kind in KINDS:
            for packet in kind(scene, marks):
                send(packet)
                time.sleep(0.001)
            time.sleep(0.3)
            assert not watch.seen(), kind.__name__
        send(packets.udp(scene.ours, TARGET, marks.of("still there"), port=OPEN))
        time.sleep(0.3)
        assert watch.seen() == {"still there: sent to lan"}
    finally:
        sender.close()
        watch.close()
