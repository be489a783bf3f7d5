"""A packet that names a way of its own (RFC 791; over IPv6 RFC 6554 and 8754): rules are asked about the first address
in it, and about no other."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from ipaddress import ip_address

import pytest
from helpers import packets

LOOSE, STRICT = 131, 137
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
ROUTING, OF_SMALL_NETWORKS, OF_SEGMENTS = 43, 3, 4
MARK = b"\x52\x52\x17\x31"
"""Identifier and number of our echo requests."""
ALLOWED, DENIED = "10.20.0.1", "10.30.0.10"
GATEWAY_V6, TARGET_V6, DENIED_V6 = "fd00:100::1", "fd00:20::a", "fd00:30::a"


def echo_request(source: str, first: str, then: str, option: int) -> bytes:
    """To ``first``, and from there to ``then``. The kernel fills in the header's checksum."""
    echo = struct.pack(">BBHHH", 8, 0, 0, *struct.unpack(">2H", MARK))
    echo = echo[:2] + struct.pack(">H", 0xFFFF - sum(struct.unpack(">4H", echo)) % 0xFFFF) + echo[4:]
    route = struct.pack(">BBB", option, 7, 4) + socket.inet_aton(then) + b"\0"
    addresses = socket.inet_aton(source) + socket.inet_aton(first)
    return struct.pack(">BBHHHBBH", 0x47, 0, 28 + len(echo), 1, 0, 64, 1, 0) + addresses + route + echo


def echo_request_v6(source: str, first: str, then: str, kind: int) -> bytes:
    """The same by a routing header of that type. The checksum is for where the firewall looks at it."""
    segments = [ip_address(then).packed] + [ip_address(first).packed] * (kind == OF_SEGMENTS)
    way = struct.pack(">BBBBI", packets.ICMPV6, 2 * len(segments), kind, 1, (len(segments) - 1) << 24)
    echo = packets.icmp_echo(source, first, MARK)[40:]
    return packets.ip(source, first, ROUTING, way + b"".join(segments) + echo)


def arrived(seen: socket.socket) -> list[bytes]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(seen.recv(2048))
    return [packet for packet in found if MARK in packet]


@pytest.mark.parametrize("option", [LOOSE, STRICT])
def test_no_way_through_the_gateway_leads_around_the_rules(site, ping, option):
    """On a host whose administrator has let source routes in; else the kernel drops them."""
    site.lab.gateway.sysctl("net/ipv4/conf/all/accept_source_route", 1)
    site.start()
    client = site.connect()
    assert ping() == 1.0 and ping(DENIED, 1) == 0.0
    with site.lab.other.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as seen:
        seen.setblocking(False)  # whatever its host would say of it
        with site.lab.client.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sending:
            for _ in range(5):
                sending.sendto(echo_request(client.address, ALLOWED, DENIED, option), (ALLOWED, 0))
                time.sleep(0.1)
        assert not [packet for packet in arrived(seen) if socket.inet_aton(DENIED) in packet]
    assert ping() == 1.0


@pytest.mark.parametrize("kind", [OF_SMALL_NETWORKS, OF_SEGMENTS])
def test_nor_does_one_of_segments_over_ipv6(site, ping, kind):
    """On a host whose administrator routes by segments, on interfaces to come as well."""
    for name in ("all", "default"):
        for setting in ("seg6_enabled", "rpl_seg_enabled"):
            site.lab.gateway.sysctl(f"net/ipv6/conf/{name}/{setting}", 1)
    gateway = site.start(ipv6=True)
    gateway.ctl("rule", "add", "staff", "fd00:100::/64", "--all-groups")
    client = site.connect()
    _, ours = client.addresses()
    assert ping(GATEWAY_V6) == ping(TARGET_V6) == 1.0 and ping(DENIED_V6, 1) == 0.0
    with site.lab.other.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IPV6)) as seen:
        seen.setblocking(False)
        with site.lab.client.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sending:
            for _ in range(5):
                packet = echo_request_v6(ours, GATEWAY_V6, DENIED_V6, kind)
                sending.sendto(packet, (client.interface, ETH_P_IPV6))
                time.sleep(0.1)
        assert not arrived(seen)
    assert ping(TARGET_V6) == 1.0
