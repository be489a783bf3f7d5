"""A packet that names a way of its own (RFC 791): rules are asked about the first address in it, and about no other."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

import pytest

LOOSE, STRICT = 131, 137
ETH_P_IP = 0x0800
MARK = b"\x52\x52\x17\x31"
"""Identifier and number of our echo requests."""
ALLOWED, DENIED = "10.20.0.1", "10.30.0.10"


def echo_request(source: str, first: str, then: str, option: int) -> bytes:
    """To ``first``, and from there to ``then``. The kernel fills in the header's checksum."""
    echo = struct.pack(">BBHHH", 8, 0, 0, *struct.unpack(">2H", MARK))
    echo = echo[:2] + struct.pack(">H", 0xFFFF - sum(struct.unpack(">4H", echo)) % 0xFFFF) + echo[4:]
    route = struct.pack(">BBB", option, 7, 4) + socket.inet_aton(then) + b"\0"
    addresses = socket.inet_aton(source) + socket.inet_aton(first)
    return struct.pack(">BBHHHBBH", 0x47, 0, 28 + len(echo), 1, 0, 64, 1, 0) + addresses + route + echo


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
        arrived = []
        with contextlib.suppress(BlockingIOError):
            while True:
                arrived.append(seen.recv(2048))
    assert not [packet for packet in arrived if socket.inet_aton(DENIED) in packet and MARK in packet]
    assert ping() == 1.0
