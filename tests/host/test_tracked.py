"""What the kernel tracks of a client's address is forgotten, and nothing else."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from ipaddress import ip_address

import pytest
from helpers import packets
from helpers.host_state import output_of
from helpers.lab import TARGET_LEG, Lab
from helpers.tunnel_end import PORTS, STAFF, SUBNET_A, VPC_MAIN, TunnelEnd, carries

from cvpnd.host import tracked
from cvpnd.host.errors import HostError
from cvpnd.host.gateway import Association, HostGateway, HostPlan

ALICE, BOB = "10.100.0.2", "10.100.0.3"
ALICE_V6, BOB_V6 = "fd99::2", "fd99::3"
ROUTED = replace(STAFF, associations=(Association(SUBNET_A, (VPC_MAIN,), nat=False),), allow_inbound=True)

OpenTunnel = Callable[..., TunnelEnd]


def forget(*addresses: str) -> set[bytes]:
    return tracked.forget({ip_address(address).packed for address in addresses}.__contains__)


def entries(address: str) -> int:
    family = "ipv6" if ":" in address else "ipv4"
    return output_of("conntrack", "-L", "-f", family).count(f"={address} ")


@pytest.mark.parametrize(
    ("alice", "bob", "target"), [(ALICE, BOB, TARGET_LEG.host), (ALICE_V6, BOB_V6, TARGET_LEG.host_v6)]
)
@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
async def test_connections_of_one_client_are_forgotten_and_the_others_go_on(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel, alice: str, bob: str, target: str, protocol: str
) -> None:
    await gateway.up(HostPlan((STAFF,), PORTS))
    end, family = tunnel(), socket.AF_INET6 if ":" in target else socket.AF_INET
    with lab.target.socket(family, socket.SOCK_DGRAM) as sink:
        sink.bind((target, 9))
        sink.settimeout(2)
        backs = []
        for client in (alice, bob):
            end.send(packets.udp(client, target, b"ask", source_port=4000))
            backs.append(sink.recvfrom(100)[1])
        for client in (alice, bob):
            if protocol == "tcp":
                end.send(packets.tcp(client, target, b"", flags=packets.SYN))
            elif protocol == "icmp":
                end.send(packets.icmp_echo(client, target))
        assert entries(alice) and entries(bob)
        assert forget(alice) == set()
        assert entries(alice) == 0
        assert entries(bob) > 0
        sink.sendto(b"for alice", backs[0])
        assert end.receive(carries(b"for alice"), 0.3) is None
        sink.sendto(b"for bob", backs[1])
        end.expect(carries(b"for bob"), "the answer to the other client")


async def test_connections_between_two_addresses_are_forgotten_and_their_others_go_on(
    gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    await gateway.up(HostPlan((STAFF,), PORTS))
    end, first, second = tunnel(), TARGET_LEG.host, "10.20.0.11"
    for client in (ALICE, BOB):
        for target in (first, second):
            end.send(packets.icmp_echo(client, target))
            end.send(packets.udp(client, target, b"ask"))
    before = entries(BOB)
    assert entries(ALICE) and before
    alice, target = ip_address(ALICE).packed, ip_address(first).packed
    assert tracked.forget_between(lambda one, other: (one, other) == (alice, target)) == set()
    left = output_of("conntrack", "-L", "-s", ALICE)
    assert f"dst={first} " not in left and f"dst={second} " in left
    assert entries(BOB) == before
    for client in (ALICE, BOB):
        end.send(packets.udp(client, first, b"ask"))
    assert tracked.forget_between(lambda one, other: (one, other) == (target, alice)) == set(), "the other way round"
    assert f"dst={first} " not in output_of("conntrack", "-L", "-s", ALICE)
    assert entries(BOB) == before


async def test_connections_that_a_target_opened_and_those_between_clients_are_forgotten(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    await gateway.up(HostPlan((replace(ROUTED, client_to_client=True),), PORTS))
    end = tunnel()
    with lab.target.socket(kind=socket.SOCK_DGRAM) as target:
        target.bind((TARGET_LEG.host, 9))
        target.sendto(b"inbound", (ALICE, 4000))
        end.expect(carries(b"inbound"), "inbound packet")
    end.send(packets.udp(BOB, ALICE, b"hello", source_port=5))
    end.expect(carries(b"hello"), "packet between clients")
    assert entries(ALICE) >= 2
    assert forget(ALICE) == set()
    assert entries(ALICE) == 0


async def test_thousands_of_connections_are_forgotten_at_once(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    await gateway.up(HostPlan((STAFF,), PORTS))
    end = tunnel()
    for port in range(1024, 4024):
        end.send(packets.udp(ALICE if port % 2 else BOB, TARGET_LEG.host, b"x", source_port=port, port=9))
    assert entries(ALICE) > 1000
    assert forget(ALICE, BOB) == set()
    assert entries(ALICE) + entries(BOB) == 0


def test_a_kernel_without_anything_tracked_has_nothing_to_forget(lab: Lab) -> None:
    assert forget(ALICE, ALICE_V6) == set()


def test_a_missing_module_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked, "_GET", 0x6301)  # a part of netfilter that this kernel does not have either
    with pytest.raises(HostError, match="modprobe nf_conntrack_netlink"):
        forget(ALICE)
    assert tracked.is_there()
    monkeypatch.setattr(tracked, "_STATISTICS", 0x6305)
    assert not tracked.is_there()


@pytest.mark.parametrize("interrupted", [0, 1, tracked.LOOKS])
def test_a_look_that_was_interrupted_is_repeated(interrupted: int) -> None:
    """The kernel says so of a dump in which entries may be missing, here in its last message."""
    kernel, asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, asking:
        for look in range(interrupted + 1):
            flags = 0x10 if look < interrupted else 0
            entry = struct.pack("=IHHII4x4s", 24, 0x0100, 0x2, 0, 0, bytes([look]) * 4)
            kernel.send(entry + struct.pack("=IHHIIi", 20, 3, 0x2 | flags, 0, 0, 0))
        found = []
        expected = pytest.raises(OSError, match="Interrupted") if interrupted == tracked.LOOKS else nullcontext()
        with expected:
            found += tracked._table(asking, socket.AF_INET)
            assert found == [bytes([look]) * 4 for look in range(interrupted + 1)]


def test_a_missing_capability_is_named(lab: Lab) -> None:
    without = ["setpriv", "--bounding-set=-net_admin", "--"]
    done = lab.gateway.run(
        *without, sys.executable, "-c", "from cvpnd.host import tracked; tracked.forget(bool)", check=False
    )
    assert "HostError: connection tracking: CAP_NET_ADMIN is missing" in done.stderr
