"""One client cannot fill the table of tracked connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers import packets
from helpers.host_state import output_of
from helpers.lab import TARGET_LEG, Lab
from helpers.tunnel_end import PARTNERS, PORTS, STAFF, TunnelEnd, carries, is_icmp

from cvpnd.host.firewall import KeptBack
from cvpnd.host.gateway import HostGateway, HostPlan

ALICE, BOB = "10.100.0.2", "10.100.0.3"
ALICE_V6, BOB_V6 = "fd99::2", "fd99::3"
MOST = 50

OpenTunnel = Callable[..., TunnelEnd]


def tracked(address: str) -> int:
    listing = output_of("conntrack", "-L", "-f", "ipv6" if ":" in address else "ipv4")
    return sum(f"src={address} " in line for line in listing.splitlines())


@pytest.mark.parametrize(
    ("alice", "bob", "target"), [(ALICE, BOB, TARGET_LEG.host), (ALICE_V6, BOB_V6, TARGET_LEG.host_v6)]
)
async def test_client_with_too_many_connections_gets_no_new_ones_and_keeps_what_it_has(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel, alice: str, bob: str, target: str
) -> None:
    lab.start_servers()
    await gateway.up(HostPlan((replace(STAFF, flows_per_client=MOST), PARTNERS), PORTS))
    end = tunnel()
    end.send(packets.udp(alice, target, b"first", source_port=999, port=7))
    end.expect(carries(b"first"), "echo")
    for port in range(1000, 1000 + 3 * MOST):
        end.send(packets.udp(alice, target, b"flood", source_port=port, port=9))
    assert tracked(alice) == MOST
    counted = await gateway.kept_back()
    assert counted == {KeptBack("staff", "flows"): 2 * MOST + 1}
    end.send(packets.udp(alice, target, b"going on", source_port=999, port=7))
    end.expect(carries(b"going on"), "echo in a connection from before")
    end.send(packets.udp(bob, target, b"somebody else", source_port=1000, port=7))
    end.expect(carries(b"somebody else"), "echo for another client")
    await gateway.update(HostPlan((STAFF, PARTNERS), PORTS))
    for port in range(2000, 2000 + 2 * MOST):
        end.send(packets.udp(alice, target, b"unlimited", source_port=port, port=9))
    assert tracked(alice) == 3 * MOST
    assert await gateway.kept_back() == counted, "what was counted before is not forgotten"


async def test_connections_to_the_gateway_itself_count_too(lab: Lab, gateway: HostGateway, tunnel: OpenTunnel) -> None:
    await gateway.up(HostPlan((replace(STAFF, flows_per_client=MOST, dns=True),), PORTS))
    end = tunnel()
    for port in range(1000, 1000 + 2 * MOST):
        end.send(packets.udp(ALICE, "10.100.0.1", b"query", source_port=port, port=53))
    assert tracked(ALICE) == MOST
    end.send(packets.icmp_echo(BOB, "10.100.0.1"))
    end.expect(is_icmp(0), "echo reply of the gateway to another client")


async def test_place_of_a_connection_that_is_over_is_free_again(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    lab.gateway.sysctl("net/netfilter/nf_conntrack_udp_timeout", 1)
    lab.start_servers()
    await gateway.up(HostPlan((replace(STAFF, flows_per_client=MOST),), PORTS))
    end = tunnel()
    for port in range(1000, 1000 + 2 * MOST):
        end.send(packets.udp(ALICE, TARGET_LEG.host, b"flood", source_port=port, port=9))
    assert tracked(ALICE) == MOST
    await asyncio.sleep(2)
    end.send(packets.udp(ALICE, TARGET_LEG.host, b"anew", source_port=5000, port=7))
    end.expect(carries(b"anew"), "echo")
