"""Anybody can write to the gateway that a packet of its was too big: it takes a client's address, and no port. What
routers really say counts all the same (``test_path_mtu.py``)."""

from __future__ import annotations

import re
import socket
import struct
from ipaddress import ip_address

import pytest
from helpers import certs
from helpers.lab import TARGET_LEG, wait_until
from helpers.netns import Namespace
from helpers.packets import ICMP, ICMPV6, checksum, ip, pseudo_header, udp

from .conftest import Site

FORGED = {4: 552, 6: 1280}
"""The least that kernels believe."""


@pytest.mark.parametrize("version", [4, 6])
def test_a_forged_word_of_a_router_cuts_no_packets(site: Site, version: int) -> None:
    """Neither about what went to the client's port or another one, nor about the gateway's answer to a ping, which the
    kernel believes whatever a socket thinks of it."""
    site.start(listen=("udp://0.0.0.0:1194", "udp://[::]:1194"))
    victim, attacker = site.lab.clients
    host = site.lab.gateway_address_of(0, version)
    transport = "udp6" if version == 6 else "udp"
    where = {"transport": transport, "host": host, "client": victim}
    site.connect(certs.client("victim"), "--lport", "40000", name="victim", binding="", **where)
    address = own_address_towards(victim, host)
    pong = struct.pack(">BBHHH", 0 if version == 4 else 129, 0, 0, 1, 1) + bytes(1400)
    quotes = [
        udp(host, address, bytes(1400), source_port=1194, port=40000),
        udp(host, address, bytes(1400), source_port=1194, port=9),
        ip(host, address, ICMP if version == 4 else ICMPV6, pong),
    ]
    for quote in quotes:
        say_too_big(attacker, own_address_towards(attacker, host), host, quote)

    def known() -> str:
        return site.lab.gateway.run("ip", "route", "get", address).stdout

    def cuts() -> int:
        before = fragments_made(site.lab.gateway, version)
        assert victim.ping(TARGET_LEG.host, 5, 0.1, 1, "-s", "1300").received == 5
        return fragments_made(site.lab.gateway, version) - before

    wait_until(lambda: f"mtu {FORGED[version]}" in known(), what="the kernel has heard it")
    if version == 6:  # until the client has proven that they pass whole
        wait_until(lambda: cuts() == 0, 20)
    assert cuts() == 0
    assert f"mtu {FORGED[version]}" in known(), "it is forgotten, and nothing was shown"


def say_too_big(attacker: Namespace, source: str, host: str, quote: bytes) -> None:
    """RFC 1191, RFC 4443 3.2."""
    version = ip_address(host).version
    if version == 4:
        message, sum_of = b"\x03\x04\0\0\0\0" + struct.pack(">H", FORGED[4]) + quote[:548], b""
    else:
        message = b"\x02\0\0\0" + struct.pack(">I", FORGED[6]) + quote[:1232]
        sum_of = pseudo_header(source, host, ICMPV6, len(message))
    message = message[:2] + checksum(sum_of + message).to_bytes(2, "big") + message[4:]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with attacker.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(ip(source, host, ICMP if version == 4 else ICMPV6, message), (host, 0))


def own_address_towards(namespace: Namespace, host: str) -> str:
    found = re.search(r"src (\S+)", namespace.run("ip", "route", "get", host).stdout)
    assert found
    return found[1]


def fragments_made(namespace: Namespace, version: int) -> int:
    if version == 6:
        counted = re.search(r"Ip6FragCreates\s+(\d+)", namespace.run("cat", "/proc/net/snmp6").stdout)
        assert counted
        return int(counted[1])
    names, values = re.findall(r"^Ip: (.*)$", namespace.run("cat", "/proc/net/snmp").stdout, re.MULTILINE)
    return int(dict(zip(names.split(), values.split(), strict=True))["FragCreates"])
