"""The kernel of the gateway lets fragments wait in one queue for all. No client can fill it, and those who send long
datagrams lose none."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable

from helpers import certs, packets
from helpers.lab import ECHO_PORT, TARGET_LEG, GatewayProcess, Lab
from helpers.netns import Namespace

ETH_P = {4: 0x0800, 6: 0x86DD}
NO_NEXT = 59
ATTEMPTS = 3000
"""With 1,200 bytes that the kernel would let wait of each: more than its 4 MB."""
LONG = bytes(1200)
EMPTY = 27000
"""Of nothing, for which the kernel would keep an empty queue of 200 bytes."""
INCOMPLETE = 'cvpnd_dropped_packets_total{plane="data",reason="incomplete"}'
BAD = 'cvpnd_dropped_packets_total{plane="data",reason="bad_fragment"}'


# -- what an attacker sends: of each packet, only what leaves 1,200 bytes of it waiting for the rest ------------------


def first_alone(source: str, target: str, number: int) -> list[bytes]:
    return [packets.fragment(source, target, packets.UDP, LONG, 0, True, number)]


def behind_wrong_checksum(source: str, target: str, number: int) -> list[bytes]:
    last = packets.fragment(source, target, packets.UDP, bytes(8), len(LONG), False, number)
    return [*first_alone(source, target, number), last[:10] + b"\xbe\xef" + last[12:]]


def behind_cut_header(source: str, target: str, number: int) -> list[bytes]:
    """The kernel does not let a first fragment wait that has not all of its TCP header."""
    return [
        packets.fragment(source, target, packets.TCP, bytes(8), 0, True, number),
        packets.fragment(source, target, packets.TCP, LONG, 8, False, number),
    ]


def behind_unknown_option(source: str, target: str, number: int) -> list[bytes]:
    last = packets.fragment(source, target, packets.UDP, bytes(8), len(LONG), False, number)
    option = bytes([packets.FRAGMENT, 0, 0xBE, 4, 0, 0, 0, 0])
    return [*first_alone(source, target, number), packets.ip(source, target, packets.HOP_BY_HOP, option + last[40:])]


def behind_two_fragment_headers(source: str, target: str, number: int) -> list[bytes]:
    last = packets.fragment(source, target, packets.UDP, bytes(8), len(LONG), False, number)
    atomic = struct.pack(">BBHI", packets.FRAGMENT, 0, 0, number)
    return [*first_alone(source, target, number), packets.ip(source, target, packets.FRAGMENT, atomic + last[40:])]


def of_nothing(source: str, target: str, number: int) -> list[bytes]:
    headers = (struct.pack(">BBHI", NO_NEXT, 0, 0, number << 8 | each) for each in range(EMPTY // ATTEMPTS))
    return [packets.ip(source, target, packets.FRAGMENT, header) for header in headers]


ATTACKS: tuple[tuple[int, Callable[[str, str, int], list[bytes]]], ...] = (
    (4, first_alone),
    (4, behind_wrong_checksum),
    (6, first_alone),
    (6, behind_cut_header),
    (6, behind_unknown_option),
    (6, behind_two_fragment_headers),
    (6, of_nothing),
)


# -- what comes of it --------------------------------------------------------------------------------------------


def test_fragments_of_one_client_leave_others_their_long_packets(site):
    gateway = site.start(ipv6=True)
    attacker, victim = site.lab.clients
    evil = site.connect(certs.client("evil"), name="evil", client=attacker)
    site.connect(certs.client("victim"), name="victim", client=victim, host="198.51.100.1")
    for version, host in ((4, TARGET_LEG.host), (6, TARGET_LEG.host_v6)):
        learn_path(victim, host)
        assert long_pings(victim, host) == 1.0, version
    for version, fragments in ATTACKS:
        host = TARGET_LEG.host if version == 4 else TARGET_LEG.host_v6
        source = evil.addresses()[version == 6]
        before = dropped(gateway)
        with attacker.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
            for number in range(ATTEMPTS):
                for packet in fragments(source, host, number):
                    sock.sendto(packet, (evil.interface, ETH_P[version]))
        assert long_pings(victim, host) == 1.0, fragments.__name__
        assert dropped(gateway) - before > 0.9 * ATTEMPTS, fragments.__name__
    assert waiting_v4(site.lab.gateway) == 0


def learn_path(client: Namespace, host: str) -> None:
    """The first long IPv6 packet back is answered by our kernel with the MTU of the tunnel, as it should be."""
    client.ping(host, 2, 0.05, 1, "-s", "4000")


def long_pings(client: Namespace, host: str) -> float:
    return client.ping(host, 20, 0.05, 1, "-s", "4000").received / 20


def dropped(gateway: GatewayProcess) -> float:
    metrics = gateway.metrics()
    return metrics[INCOMPLETE] + metrics[BAD]


def waiting_v4(gateway: Namespace) -> int:
    """Packets that the kernel waits for the rest of. It does not tell how many of IPv6 connection tracking does."""
    waiting = re.search(r"FRAG: inuse (\d+)", gateway.run("cat", "/proc/net/sockstat").stdout)
    assert waiting is not None
    return int(waiting[1])


def test_long_datagrams_are_not_lost(site):
    """As of NFS over UDP, and the longest pings there are, both ways and beside each other."""
    gateway = site.start(ipv6=True)
    site.connect()
    site.lab.start_servers()
    for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
        learn_path(site.lab.client, host)
        assert echoed(site.lab, host, 8192, count=500) == 500
        assert site.lab.client.ping(host, 20, 0.05, 1, "-s", "65000").received == 20
    assert gateway.metrics()[INCOMPLETE] == 0


def echoed(lab: Lab, host: str, size: int, count: int) -> int:
    """Datagrams that came back as they were, of so many."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with lab.client.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect((host, ECHO_PORT))
        same = 0
        for number in range(count):
            sent = number.to_bytes(4, "big") * (size // 4)
            sock.send(sent)
            same += sock.recv(65536) == sent
    return same
