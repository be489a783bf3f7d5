"""What passes and what does not, with real packets: the test plays the clients at the TUN, the kernel does the rest.

tunnel (cvpn0, 10.100.0.0/22) ── gateway ── lan ── target 10.20.0.10
                                   │  └──── lan2 ── other  10.30.0.10
client1 192.0.2.2 ──────────── wan1 ┘              the Internet, and attackers
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from helpers import packets
from helpers.host_state import ip, output_of
from helpers.lab import CLIENT_LEGS, OTHER_LEG, TARGET_LEG, Lab
from helpers.netns import Namespace
from helpers.tunnel_end import PARTNERS, PORTS, STAFF, SUBNET_A, VPC_MAIN, TunnelEnd, carries, icmp_kind, is_icmp
from helpers.watched import Watched

from cvpnd.host import firewall
from cvpnd.host.gateway import Association, EndpointPlan, ExtraRoute, HostGateway, HostPlan
from cvpnd.host.sysctl import LOOSE, Opened

ALICE, BOB = "10.100.0.2", "10.100.0.3"
ALICE_V6 = "fd99::2"
PARTNER = "10.101.0.2"
ATTACKER = CLIENT_LEGS[0].host
TARGET, OTHER = TARGET_LEG.host, OTHER_LEG.host

ECHO_REPLY, UNREACHABLE, REDIRECT = 0, 3, 5

OpenTunnel = Callable[..., TunnelEnd]

ROUTED = replace(STAFF, client_cidr_v6=None, associations=(Association(SUBNET_A, (VPC_MAIN,), nat=False),))


def plan(*endpoints: EndpointPlan) -> HostPlan:
    return HostPlan(endpoints, PORTS)


def datagram_socket(namespace: Namespace, address: str, port: int) -> socket.socket:
    made = namespace.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.settimeout(2)
    return made


def arrives(receiver: socket.socket, timeout_s: float = 0.3) -> bool:
    receiver.settimeout(timeout_s)
    try:
        receiver.recv(2000)
    except TimeoutError:
        return False
    return True


def send_raw(sender: Namespace, packet: bytes) -> None:
    """Any IP packet, whatever its source address."""
    with sender.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))


# -- to the target and back --------------------------------------------------------------------------------


async def test_ping_goes_out_with_the_gateways_address_and_the_answer_returns(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    await gateway.up(plan(STAFF))
    end = tunnel()
    end.send(packets.icmp_echo(ALICE, TARGET, b"hello"))
    reply = end.expect(is_icmp(ECHO_REPLY), "echo reply")
    assert reply[12:20] == IPv4Address(TARGET).packed + IPv4Address(ALICE).packed
    assert reply.endswith(b"hello")
    assert packets.checksums_are_right(reply)

    with datagram_socket(lab.target, TARGET, 9) as sink:
        end.send(packets.udp(ALICE, TARGET, b"who am I", source_port=40000))
        assert sink.recvfrom(100) == (b"who am I", (TARGET_LEG.gateway, 40000))


async def test_ipv6_passes_with_snat_too(lab: Lab, gateway: HostGateway, tunnel: OpenTunnel) -> None:
    await gateway.up(plan(STAFF))
    end = tunnel()
    with datagram_socket(lab.target, TARGET_LEG.host_v6, 9) as sink:
        end.send(packets.udp(ALICE_V6, TARGET_LEG.host_v6, b"who am I", source_port=40000))
        data, source = sink.recvfrom(100)
        assert (data, source[0]) == (b"who am I", TARGET_LEG.gateway_v6)
        sink.sendto(b"and back", source)
    reply = end.expect(carries(b"and back"), "reply over IPv6")
    assert reply[8:40] == packets.ip_address(TARGET_LEG.host_v6).packed + packets.ip_address(ALICE_V6).packed


async def test_endpoint_without_ipv6_lets_none_through(lab: Lab, gateway: HostGateway, tunnel: OpenTunnel) -> None:
    lab.gateway.sysctl("net/ipv6/conf/all/forwarding", 1)
    await gateway.up(plan(replace(STAFF, client_cidr_v6=None)))
    with datagram_socket(lab.target, TARGET_LEG.host_v6, 9) as sink:
        tunnel().send(packets.udp(ALICE_V6, TARGET_LEG.host_v6, b"x"))
        assert not arrives(sink)


async def test_routed_mode_shows_the_clients_own_address(lab: Lab, gateway: HostGateway, tunnel: OpenTunnel) -> None:
    await gateway.up(plan(ROUTED))
    end = tunnel()
    with datagram_socket(lab.target, TARGET, 9) as sink:
        end.send(packets.udp(ALICE, TARGET, b"who am I", source_port=40000))
        assert sink.recvfrom(100) == (b"who am I", (ALICE, 40000))
        sink.sendto(b"and back", (ALICE, 40000))
    end.expect(carries(b"and back"), "reply to the client's own address")


async def test_rest_of_the_vpc_is_behind_the_subnets_gateway_despite_strict_rp_filter(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    lab.target.ip_batch("address add 10.20.7.1/32 dev lo")
    lab.gateway.sysctl("net/ipv4/conf/all/rp_filter", 1)
    ip(f"route add default via {ATTACKER}")  # the main table would send it to the Internet
    await gateway.up(plan(STAFF))
    end = tunnel()
    end.send(packets.icmp_echo(ALICE, "10.20.7.1", b"far"))
    assert end.expect(is_icmp(ECHO_REPLY), "echo reply from behind the router").endswith(b"far")


async def test_declared_neighbour_is_reached_through_its_own_interface(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    neighbour = PARTNERS.associations[0].subnet
    association = Association(SUBNET_A, (IPv4Network("10.0.0.0/8"),), neighbours=(neighbour,))
    await gateway.up(plan(replace(STAFF, associations=(association,))))
    end = tunnel()
    end.send(packets.icmp_echo(ALICE, OTHER, b"next door"))
    assert end.expect(is_icmp(ECHO_REPLY), "echo reply from the neighbour").endswith(b"next door")


async def test_extra_route_is_followed(lab: Lab, gateway: HostGateway, tunnel: OpenTunnel) -> None:
    lab.target.ip_batch("address add 10.50.1.1/32 dev lo")
    await gateway.up(plan(STAFF))
    end = tunnel()
    end.send(packets.icmp_echo(ALICE, "10.50.1.1"))
    assert icmp_kind(end.expect(icmp_kind_is_known, "unreachable")) == UNREACHABLE
    await gateway.update(plan(replace(STAFF, routes=(ExtraRoute(IPv4Network("10.50.0.0/16"), SUBNET_A),))))
    end.send(packets.icmp_echo(ALICE, "10.50.1.1"))
    assert icmp_kind(end.expect(icmp_kind_is_known, "echo reply")) == ECHO_REPLY


def icmp_kind_is_known(packet: bytes) -> bool:
    return icmp_kind(packet) is not None


async def test_destination_without_a_route_is_unreachable_whatever_the_main_table_says(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    lab.gateway.sysctl("net/ipv4/ip_forward", 1)
    ip(f"route add default via {ATTACKER}")
    await gateway.up(plan(STAFF))
    end = tunnel()
    # from different clients, since the kernel limits the rate of such answers to each
    for source, destination in ((ALICE, ATTACKER), (BOB, OTHER), ("10.100.0.4", "198.18.0.1")):
        end.send(packets.icmp_echo(source, destination))
        assert icmp_kind(end.expect(icmp_kind_is_known, f"unreachable for {destination}")) == UNREACHABLE


async def test_link_local_addresses_need_a_route_of_their_own(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    """A cloud's metadata service would give the gateway's own credentials to who comes with the gateway's address."""
    metadata = "169.254.169.254"
    lab.target.ip_batch(f"address add {metadata}/32 dev lo", "address add 10.50.1.1/32 dev lo")
    everywhere = ExtraRoute(IPv4Network("0.0.0.0/0"), SUBNET_A)
    await gateway.up(plan(replace(STAFF, routes=(everywhere,))))
    end = tunnel()
    end.send(packets.icmp_echo(ALICE, "10.50.1.1"))
    assert icmp_kind(end.expect(icmp_kind_is_known, "echo reply")) == ECHO_REPLY
    end.send(packets.icmp_echo(ALICE, metadata))
    assert icmp_kind(end.expect(icmp_kind_is_known, "unreachable")) == UNREACHABLE
    named = ExtraRoute(IPv4Network(f"{metadata}/32"), SUBNET_A)
    await gateway.update(plan(replace(STAFF, routes=(everywhere, named))))
    end.send(packets.icmp_echo(ALICE, metadata))
    assert icmp_kind(end.expect(icmp_kind_is_known, "echo reply")) == ECHO_REPLY


# -- NAT and our ports -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [1194, 4433])
async def test_client_cannot_take_a_listening_port_by_its_source_port(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel, ours: int
) -> None:
    """CVE-2021-3773: were the source port kept, packets from that peer to our port would go to the client."""
    await gateway.up(HostPlan((STAFF,), frozenset({443, 1194, 4433})))
    end = tunnel()
    with datagram_socket(lab.target, TARGET, 9) as victim, datagram_socket(lab.gateway, "0.0.0.0", ours) as server:
        for port in (ours, ours + 1):
            end.send(packets.udp(ALICE, TARGET, b"shadow", source_port=port))
            _, source = victim.recvfrom(100)
            assert source[0] == TARGET_LEG.gateway
            assert source[1] not in {443, 1194, 4433}
        victim.sendto(b"to the server", (TARGET_LEG.gateway, ours))
        assert server.recv(100) == b"to the server"
        assert end.receive(carries(b"to the server"), 0.2) is None


async def test_source_port_that_is_none_of_ours_is_kept(lab: Lab, gateway: HostGateway, tunnel: OpenTunnel) -> None:
    """What makes the test above mean something: NAT keeps ports where it may."""
    await gateway.up(plan(STAFF))
    end = tunnel()
    with datagram_socket(lab.target, TARGET, 9) as sink:
        end.send(packets.udp(ALICE, TARGET, b"x", source_port=4433))
        assert sink.recvfrom(100)[1] == (TARGET_LEG.gateway, 4433)


# -- towards the clients -----------------------------------------------------------------------------------


async def test_target_opens_no_connection_to_a_client_unless_allowed(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    await gateway.up(plan(ROUTED))
    end = tunnel()
    with datagram_socket(lab.target, TARGET, 9) as target:
        target.sendto(b"unasked", (ALICE, 4000))
        assert end.receive(carries(b"unasked"), 0.3) is None
        # the same peer and ports, once the client has asked
        end.send(packets.udp(ALICE, TARGET, b"ask", source_port=4000))
        assert target.recv(100) == b"ask"
        target.sendto(b"answer", (ALICE, 4000))
        end.expect(carries(b"answer"), "reply")
        # another port of the same client is another connection
        target.sendto(b"unasked", (ALICE, 4001))
        assert end.receive(carries(b"unasked"), 0.3) is None

        await gateway.update(plan(replace(ROUTED, allow_inbound=True)))
        target.sendto(b"welcome", (ALICE, 4001))
        end.expect(carries(b"welcome"), "inbound connection")


@pytest.mark.parametrize("translated", [True, False])
async def test_outsider_reaches_no_client_address_through_a_forwarding_gateway(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel, translated: bool
) -> None:
    """CVE-2019-14899: packets for VPN addresses that come from elsewhere, also such that look like replies."""
    lab.gateway.sysctl("net/ipv4/ip_forward", 1)
    await gateway.up(plan(STAFF if translated else ROUTED))
    end = tunnel()
    with datagram_socket(lab.client, ATTACKER, 9) as attacker:
        for _ in range(2):
            attacker.sendto(b"probe", (ALICE, 4000))
        assert end.receive(carries(b"probe"), 0.3) is None
        send_raw(lab.client, packets.tcp(ATTACKER, ALICE, b"syn-ack", flags=packets.SYN | packets.ACK))
        assert end.receive(carries(b"syn-ack"), 0.3) is None
        # and the way is open but for our table
        output_of("nft", "flush", "table", "inet", "cvpnd")
        attacker.sendto(b"probe", (ALICE, 4000))
        end.expect(carries(b"probe"), "a probe without the firewall")


async def test_outsider_cannot_inject_into_a_clients_connection(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    """CVE-2019-14899 proper: with the peer's address and the right ports a packet is a reply to connection tracking."""
    lab.gateway.sysctl("net/ipv4/ip_forward", 1)
    await gateway.up(plan(ROUTED))
    end = tunnel()
    with datagram_socket(lab.target, TARGET, 9) as target:
        end.send(packets.udp(ALICE, TARGET, b"ask", source_port=4000))
        assert target.recv(100) == b"ask"
    injected = packets.udp(TARGET, ALICE, b"injected", source_port=9, port=4000)
    send_raw(lab.client, injected)
    assert end.receive(carries(b"injected"), 0.3) is None
    output_of("nft", "flush", "chain", "inet", "cvpnd", "spoofing")
    send_raw(lab.client, injected)
    end.expect(carries(b"injected"), "the packet that only the anti-spoofing chain stops")


async def test_gateways_tunnel_address_answers_in_the_tunnel_only(lab: Lab, gateway: HostGateway) -> None:
    await gateway.up(plan(STAFF))
    assert lab.client.ping("10.100.0.1", 1, wait_s=0.2).received == 0
    assert lab.target.ping("10.100.0.1", 1, wait_s=0.2).received == 0
    output_of("nft", "flush", "chain", "inet", "cvpnd", "spoofing")
    assert lab.client.ping("10.100.0.1", 1).received == 1


async def test_client_address_as_source_is_refused_anywhere_but_on_its_tun(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    lab.gateway.sysctl("net/ipv4/ip_forward", 1)
    await gateway.up(plan(STAFF))
    with datagram_socket(lab.target, TARGET, 9) as sink:
        send_raw(lab.client, packets.udp(ALICE, TARGET, b"spoofed"))
        assert not arrives(sink)
        output_of("nft", "flush", "table", "inet", "cvpnd")
        send_raw(lab.client, packets.udp(ALICE, TARGET, b"spoofed"))
        assert arrives(sink, 2)


async def test_tun_speaks_only_for_its_client_cidr(lab: Lab, gateway: HostGateway, tunnel: OpenTunnel) -> None:
    await gateway.up(plan(STAFF, PARTNERS))
    end = tunnel()
    with datagram_socket(lab.target, TARGET, 9) as sink:
        for source in (PARTNER, "10.20.0.77", TARGET_LEG.gateway):
            end.send(packets.udp(source, TARGET, b"not mine"))
        assert not arrives(sink)
        end.send(packets.udp(ALICE, TARGET, b"mine"))
        assert arrives(sink, 2)


# -- between clients ---------------------------------------------------------------------------------------


async def test_clients_meet_only_by_a_local_route(lab: Lab, gateway: HostGateway, tunnel: OpenTunnel) -> None:
    await gateway.up(plan(STAFF))
    end = tunnel()
    end.send(packets.udp(ALICE, BOB, b"hello Bob"))
    answer = end.expect(lambda packet: packet[0] >> 4 == 4, "unreachable")
    assert icmp_kind(answer) == UNREACHABLE

    await gateway.update(plan(replace(STAFF, client_to_client=True)))
    end.send(packets.udp(ALICE, BOB, b"hello Bob"))
    forwarded = end.expect(lambda packet: packet[0] >> 4 == 4, "the packet to the other client")
    assert forwarded[12:20] == IPv4Address(ALICE).packed + IPv4Address(BOB).packed
    assert forwarded.endswith(b"hello Bob")
    end.send(packets.udp(BOB, ALICE, b"hello Alice"))
    assert end.expect(lambda packet: packet[0] >> 4 == 4, "the answer").endswith(b"hello Alice")


async def test_clients_are_not_told_to_find_a_better_way_to_each_other(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    """A packet that leaves by the device it came in by makes the kernel send ICMP redirects."""
    await gateway.up(plan(replace(STAFF, client_to_client=True)))
    end = tunnel()

    def redirects(sender: str) -> int:
        seen = 0
        for _ in range(5):
            end.send(packets.udp(sender, BOB, b"hello Bob"))
            seen += end.receive(is_icmp(REDIRECT), 0.05) is not None
        return seen

    assert redirects(ALICE) == 0
    output_of("nft", "flush", "chain", "inet", "cvpnd", "output")
    assert redirects("10.100.0.4") > 0


async def test_clients_of_another_endpoint_are_out_of_reach(lab: Lab, gateway: HostGateway, tunnel: OpenTunnel) -> None:
    lab.gateway.sysctl("net/ipv4/ip_forward", 1)
    both = (replace(STAFF, client_to_client=True), replace(PARTNERS, client_to_client=True))
    await gateway.up(plan(*both))
    staff, partners = tunnel("staff"), tunnel("partners")
    staff.send(packets.udp(ALICE, PARTNER, b"hello"))
    assert partners.receive(carries(b"hello"), 0.3) is None
    # not even if somebody's rule led there
    ip("rule add iif cvpn0 to 10.101.0.0/22 lookup main priority 500")
    staff.send(packets.udp(ALICE, PARTNER, b"hello"))
    assert partners.receive(carries(b"hello"), 0.3) is None
    output_of("nft", "flush", "table", "inet", "cvpnd")
    staff.send(packets.udp(ALICE, PARTNER, b"hello"))
    partners.expect(carries(b"hello"), "the packet without the firewall")


# -- the gateway host itself -------------------------------------------------------------------------------


async def test_gateway_host_answers_pings_and_configured_dns_only(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    await gateway.up(plan(STAFF))
    end = tunnel()
    end.send(packets.icmp_echo(ALICE, "10.100.0.1", b"gateway"))
    assert end.expect(is_icmp(ECHO_REPLY), "echo reply of the gateway").endswith(b"gateway")
    # its other addresses are none of the clients' business
    end.send(packets.icmp_echo(ALICE, TARGET_LEG.gateway))
    assert end.receive(is_icmp(ECHO_REPLY), 0.3) is None

    with datagram_socket(lab.gateway, "0.0.0.0", 53) as dns, datagram_socket(lab.gateway, "0.0.0.0", 161) as snmp:
        ask_dns = packets.udp(ALICE, "10.100.0.1", b"query", source_port=5300, port=53)
        end.send(ask_dns)
        end.send(packets.udp(ALICE, "10.100.0.1", b"query", port=161))
        assert not arrives(dns)
        assert not arrives(snmp, 0.05)

        await gateway.update(plan(replace(STAFF, dns=True)))
        end.send(ask_dns)
        dns.settimeout(2)
        assert dns.recvfrom(100) == (b"query", (ALICE, 5300))
        dns.sendto(b"response", (ALICE, 5300))
        end.expect(carries(b"response"), "DNS response")
        end.send(packets.udp(ALICE, "10.100.0.1", b"query", port=161))
        assert not arrives(snmp)


async def test_gateway_host_may_open_connections_to_a_client(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    await gateway.up(plan(STAFF))
    end = tunnel()
    with datagram_socket(lab.gateway, "10.100.0.1", 6000) as host:
        host.sendto(b"are you there", (ALICE, 4000))
        end.expect(carries(b"are you there"), "the host's datagram")
        end.send(packets.udp(ALICE, "10.100.0.1", b"yes", source_port=4000, port=6000))
        assert host.recv(100) == b"yes"


async def test_host_does_not_become_a_router_between_its_networks(lab: Lab, gateway: HostGateway) -> None:
    wan = CLIENT_LEGS[0]
    assert lab.target.ping(wan.host, 1, wait_s=0.2).received == 0
    await gateway.up(plan(STAFF, PARTNERS))
    # now the target's interface forwards, for the clients
    assert lab.gateway.sysctl("net/ipv4/conf/lan/forwarding") == "1"
    assert lab.target.ping(wan.host, 1, wait_s=0.2).received == 0
    assert lab.target.ping(OTHER, 1, wait_s=0.2).received == 0
    assert lab.target.ping(wan.host_v6, 1, wait_s=0.2).received == 0


async def test_clients_go_on_whatever_somebody_does_to_settings_of_the_whole_host(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    lab.gateway.sysctl("net/ipv6/conf/all/forwarding", 1)
    lab.gateway.sysctl("net/ipv4/conf/all/rp_filter", 0)
    lab.gateway.sysctl("net/ipv4/conf/lan/rp_filter", 0)
    await gateway.up(plan(STAFF))
    async with Watched(gateway.watch()) as watched:

        async def is_told(words: str) -> None:
            await watched.until(lambda: watched.lines, 10)
            assert words in watched.lines[0]
            watched.changes.clear()
            assert not gateway.trouble

        await asyncio.sleep(0.5)  # for the look at what happened before
        end = tunnel()
        for value in (0, 1, 0):
            lab.gateway.sysctl("net/ipv6/conf/all/forwarding", value)
            await is_told("somebody changed net/ipv6/conf/all/forwarding (sysctl): put right")
            end.send(packets.icmp_echo(ALICE_V6, TARGET_LEG.host_v6, b"v6"))
            assert end.receive(carries(b"v6")) is not None, f"forwarding = {value}"
            between = lab.other.ping(TARGET_LEG.host_v6, 1, wait_s=0.2).received
            assert between == value, "between this host's networks it is the administrator's alone"
        lab.gateway.sysctl("net/ipv4/conf/all/rp_filter", 1)
        await is_told("somebody changed net/ipv4/conf/all/rp_filter (sysctl): put right")
        assert lab.gateway.sysctl("net/ipv4/conf/lan/rp_filter") == LOOSE


async def test_ipv6_switched_on_for_the_whole_host_serves_clients_only(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    """What kernels before 6.17 need; the settings themselves are tested in test_sysctl.py."""
    await gateway.up(plan(STAFF))
    lab.gateway.sysctl("net/ipv6/conf/all/forwarding", 1)
    await firewall.put(firewall.render(plan(STAFF), Opened(ipv6_everywhere=True)))
    assert lab.other.ping(CLIENT_LEGS[0].host_v6, 1, wait_s=0.2).received == 0
    end = tunnel()
    end.send(packets.icmp_echo(ALICE_V6, TARGET_LEG.host_v6, b"hello"))
    end.expect(carries(b"hello"), "echo reply over IPv6")


async def test_host_that_is_a_router_already_remains_one(lab: Lab, gateway: HostGateway) -> None:
    lab.gateway.sysctl("net/ipv4/ip_forward", 1)
    lab.gateway.sysctl("net/ipv6/conf/all/forwarding", 1)
    await gateway.up(plan(STAFF))
    assert lab.target.ping(CLIENT_LEGS[0].host, 1).received == 1
    assert lab.target.ping(CLIENT_LEGS[0].host_v6, 1).received == 1
    await gateway.down()
    assert lab.gateway.sysctl("net/ipv4/ip_forward") == "1"


# -- other people's tables ---------------------------------------------------------------------------------

DROPPING = "add table ip ufw; add chain ip ufw forward { type filter hook forward priority 0; policy drop; }"


async def test_foreign_drop_policy_is_named_in_a_warning(lab: Lab, gateway: HostGateway, tunnel: OpenTunnel) -> None:
    await gateway.up(plan(STAFF))
    assert await gateway.warnings() == []
    output_of("nft", DROPPING)
    (warning,) = await gateway.warnings()
    assert "table ip ufw, chain forward" in warning
    end = tunnel()
    end.send(packets.icmp_echo(ALICE, TARGET))
    assert end.receive(is_icmp(ECHO_REPLY), 0.3) is None  # the warning is right


async def test_update_does_not_break_connections_in_progress(
    lab: Lab, gateway: HostGateway, tunnel: OpenTunnel
) -> None:
    await gateway.up(plan(STAFF))
    end = tunnel()
    with datagram_socket(lab.target, TARGET, 9) as target:
        end.send(packets.udp(ALICE, TARGET, b"ask", source_port=1194))  # a port that NAT has to change
        _, source = target.recvfrom(100)
        await gateway.update(plan(replace(STAFF, mtu=1300), PARTNERS))
        begun = time.monotonic()
        target.sendto(b"late answer", source)
        end.expect(carries(b"late answer"), "reply after the update")
        assert time.monotonic() - begun < 1
        end.send(packets.udp(ALICE, TARGET, b"more", source_port=1194))
        assert target.recvfrom(100) == (b"more", source)


def test_ipv6_only_association_is_not_used_without_ipv6_clients() -> None:
    v6 = Association(replace(SUBNET_A, cidr=IPv6Network("fd00:20::/64"), interface="lan6", gateway=None))
    assert replace(STAFF, client_cidr_v6=None, associations=(v6,)).paths() == ()
