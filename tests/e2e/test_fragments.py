"""The kernel of the gateway lets fragments wait in one queue for all. No client can fill it, and those who send long
datagrams lose none."""

from __future__ import annotations

import re
import socket

from helpers import certs, packets
from helpers.lab import ECHO_PORT, TARGET_LEG, Lab
from helpers.netns import Namespace

FIRST_FRAGMENTS = 6000
"""Of 1,200 bytes: more than the kernel's 4 MB."""
ATTEMPTS = 'cvpnd_dropped_packets_total{plane="data",reason="incomplete"}'


def test_first_fragments_of_one_client_leave_others_their_long_packets(site):
    gateway = site.start(ipv6=True)
    attacker, victim = site.lab.clients
    evil = site.connect(certs.client("evil"), name="evil", client=attacker)
    site.connect(certs.client("victim"), name="victim", client=victim, host="198.51.100.1")
    for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
        source = evil.addresses()[host == TARGET_LEG.host_v6]
        learn_path(victim, host)
        send_first_fragments(attacker, source, host)
        assert long_pings(victim, host) == 1.0
        assert memory_of_fragments(site.lab.gateway) == 0
    assert gateway.metrics()[ATTEMPTS] > FIRST_FRAGMENTS


def learn_path(client: Namespace, host: str) -> None:
    """The first long IPv6 packet back is answered by our kernel with the MTU of the tunnel, as it should be."""
    client.ping(host, 2, 0.05, 1, "-s", "4000")


def send_first_fragments(client: Namespace, source: str, target: str) -> None:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with client.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for identification in range(FIRST_FRAGMENTS):
            first = packets.fragment(source, target, packets.UDP, bytes(1200), 0, True, identification)
            sock.sendto(first, (target, 0))


def long_pings(client: Namespace, host: str) -> float:
    return client.ping(host, 20, 0.05, 1, "-s", "4000").received / 20


def memory_of_fragments(gateway: Namespace) -> int:
    """What waits in the kernel, both families."""
    text = gateway.run("cat", "/proc/net/sockstat", "/proc/net/sockstat6").stdout
    waiting = re.findall(r"FRAG6?: inuse (\d+) memory", text)
    assert len(waiting) == 2
    return sum(map(int, waiting))


def test_long_datagrams_are_not_lost(site):
    """As of NFS over UDP, and the longest pings there are, both ways and beside each other."""
    gateway = site.start(ipv6=True)
    site.connect()
    site.lab.start_servers()
    for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
        learn_path(site.lab.client, host)
        assert echoed(site.lab, host, 8192, count=500) == 500
        assert site.lab.client.ping(host, 20, 0.05, 1, "-s", "65000").received == 20
    assert gateway.metrics()[ATTEMPTS] == 0


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
