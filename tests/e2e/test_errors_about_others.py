"""A client that tells the target of packets that went to another client: the target would believe it, and the kernel's
connection tracking, which goes by what is quoted, lets it through as if that client had spoken."""

from __future__ import annotations

import contextlib
import socket
import struct
from ipaddress import ip_address

import pytest
from helpers import certs
from helpers.lab import TARGET_LEG, OpenVpnClient, wait_until
from helpers.packets import icmp, udp

from .conftest import Site

PORT = 4444
UNREACHABLE = {4: (3, 3), 6: (1, 4)}
TOO_BIG = {4: (3, 4), 6: (2, 0)}
ETHER = {4: 0x0800, 6: 0x86DD}
OTHER_CLIENTS_HOST = "198.51.100.1"


def address_of(client: OpenVpnClient, version: int) -> str:
    return next(address for address in client.addresses() if ip_address(address).version == version)


def send_inside(client: OpenVpnClient, version: int, packet: bytes) -> None:
    with client.namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
        sock.sendto(packet, (client.interface, ETHER[version]))


@pytest.mark.parametrize("version", [4, 6])
def test_no_client_speaks_of_what_went_to_another_one(site: Site, version: int) -> None:
    gateway = site.start(ipv6=True)
    victim = site.connect(certs.client("victim"), name="victim")
    liar = site.connect(certs.client("liar"), name="liar", host=OTHER_CLIENTS_HOST, client=site.lab.clients[1])
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    target = TARGET_LEG.host if version == 4 else TARGET_LEG.host_v6
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    with contextlib.ExitStack() as stack:
        serving = stack.enter_context(site.lab.target.socket(family, socket.SOCK_DGRAM))
        hearing = stack.enter_context(site.lab.target.socket(family, socket.SOCK_RAW, protocol))
        asking = stack.enter_context(victim.namespace.socket(family, socket.SOCK_DGRAM))
        serving.bind((target, PORT))
        hearing.setblocking(False)
        for sock in (serving, asking):
            sock.settimeout(5)
        asking.sendto(b"question", (target, PORT))
        serving.sendto(b"answer", serving.recvfrom(100)[1])
        assert asking.recv(100) == b"answer"
        went = udp(target, address_of(victim, version), b"answer", source_port=PORT, port=asking.getsockname()[1])

        def tell(client: OpenVpnClient, kind: tuple[int, int], mark: int) -> None:
            packet = icmp(address_of(client, version), target, *kind, struct.pack(">HH", 0, mark) + went)
            send_inside(client, version, packet)

        def heard() -> set[int]:
            marks = set()
            with contextlib.suppress(BlockingIOError):
                while True:
                    message = hearing.recv(2048)[20 if version == 4 else 0 :]
                    if message[0] in (UNREACHABLE[version][0], TOO_BIG[version][0]):
                        marks.add(int.from_bytes(message[6:8], "big"))
            return marks

        drops = 'cvpnd_dropped_packets_total{plane="data",reason="bad_source"}'
        before = gateway.metrics().get(drops, 0)
        tell(liar, UNREACHABLE[version], 1300)
        tell(liar, TOO_BIG[version], 1301)
        assert liar.namespace.ping(TARGET_LEG.host, 1).received == 1  # behind them
        tell(victim, TOO_BIG[version], 1302)
        told: set[int] = set()
        wait_until(lambda: told.update(heard()) or 1302 in told, 5, what="the client itself is heard")
        assert told == {1302}
        assert gateway.metrics()[drops] == before + 2
