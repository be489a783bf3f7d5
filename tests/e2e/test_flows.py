"""A client that opens connections by the thousand, and the others."""

from __future__ import annotations

import socket

import pytest
from helpers import certs
from helpers.lab import CLIENT_LEGS, TARGET_LEG

TRACKED = "net/netfilter/nf_conntrack_count"
FLOOD, MOST = 10_000, 4096
REFUSED = 'cvpnd_denied_packets_total{by="flows",endpoint="staff"}'


def flood(site, client) -> None:
    """One packet for each of so many connections, at the pace of the tunnel."""
    for first in range(0, FLOOD, 50):
        with client.namespace.socket(kind=socket.SOCK_DGRAM) as sender:
            for port in range(first, first + 50):
                sender.sendto(b"x", (TARGET_LEG.host, 10_000 + port))
        client.namespace.ping(TARGET_LEG.host, 1, 0.002, 0.05)


@pytest.mark.parametrize("bounded", [True, False])
def test_flood_of_one_client_leaves_the_table_to_the_others(site, bounded):
    site.lab.gateway.sysctl("net/netfilter/nf_conntrack_udp_timeout", 300)  # longer than a slow machine floods
    gateway = site.start("" if bounded else "limits = { flows_per_client = 0 }")
    site.lab.start_servers()
    flooding = site.connect(certs.client("alice"), name="alice")
    other = site.connect(certs.client("bob"), name="bob", client=site.lab.clients[1], host=CLIENT_LEGS[1].gateway)
    with flooding.namespace.connect((TARGET_LEG.host, 7)) as before:
        flood(site, flooding)
        tracked = int(site.lab.gateway.sysctl(TRACKED))
        before.sendall(b"going on")
        assert before.recv(100) == b"going on"
        if bounded:
            with pytest.raises(OSError):
                site.lab.get(flooding.namespace, TARGET_LEG.host, timeout_s=1)
    if not bounded:
        assert tracked > FLOOD, "which makes the other half mean something"
        return
    assert MOST <= tracked < MOST + 200
    assert gateway.metrics()[REFUSED] >= FLOOD - MOST
    assert site.lab.get(other.namespace, TARGET_LEG.host) == "target network\n"
    assert site.lab.download(other.namespace, TARGET_LEG.host, 1_000_000) < 30
