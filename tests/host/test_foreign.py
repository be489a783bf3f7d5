"""What other firewalls' chains would do with clients' packets, told from their rules as nft and iptables print them."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from helpers.host_state import output_of
from helpers.lab import Lab
from helpers.tunnel_end import PORTS, STAFF

from cvpnd.host import firewall
from cvpnd.host.foreign import Packet, Ruleset, forward_drops, forwarded, legacy_entries
from cvpnd.host.gateway import HostGateway, HostPlan

COMES = Packet(("eth0",), source=ip_network("0.0.0.0/0"), transport="udp", port=1194)
FORWARDED = forwarded(HostPlan((STAFF,)))

DROPS = [
    "type filter hook forward priority 0; policy drop;",
    "type filter hook forward priority 0; drop;",
    "type filter hook forward priority 0; counter log reject;",
    "type filter hook forward priority 0; jump rest; }\n chain rest { reject with icmpx admin-prohibited;",
    'type filter hook forward priority 0; policy drop; iifname "eth0" accept;',
    'type filter hook forward priority 0; policy drop; iifname != "cvpn0" accept;',
    "type filter hook forward priority 0; policy drop; ct state established,related accept;",
    "type filter hook forward priority 0; policy drop; tcp dport 443 accept;",
    "type filter hook forward priority 0; policy drop; ip saddr 10.100.0.0/24 accept;",
    "type filter hook forward priority 0; policy drop; ip daddr @known accept;",
    'type filter hook forward priority 0; iifname "cvpn0" drop;',
    'type filter hook forward priority 0; goto rest; }\n chain rest { iifname "cvpn0" ip saddr 10.0.0.0/8 drop;',
]
LETS_THROUGH = [
    "type filter hook forward priority 0; policy accept;",
    'type filter hook forward priority 0; policy drop; iifname "cvpn*" accept;',
    'type filter hook forward priority 0; policy drop; iifname { "eth0", "cvpn0" } accept;',
    'type filter hook forward priority 0; policy drop; ct state new oifname "lan" accept;',
    "type filter hook forward priority 0; policy drop; ip saddr 10.100.0.0/16 ip daddr 10.20.0.0/16 accept; "
    "ip6 saddr fd99::/64 accept;",
    'type filter hook forward priority 0; iifname "eth0" drop;',
    "type filter hook forward priority 0; jump rest; accept; }\n chain rest { return; drop;",
    "type filter hook forward priority 0; policy drop; jump rest; }\n chain rest { tcp dport 443 drop; accept;",
]


async def dropped(table: str) -> bool:
    output_of("nft", f"table inet theirs {{ set known {{ type ipv4_addr; }}\n chain forward {{ {table} }}\n }}")
    return bool(forward_drops(Ruleset(await firewall.ruleset()), FORWARDED))


@pytest.mark.parametrize("table", DROPS)
async def test_chain_that_drops_what_clients_send_is_told(lab: Lab, gateway: HostGateway, table: str) -> None:
    await gateway.up(HostPlan((STAFF,), PORTS))
    assert await gateway.warnings() == []
    assert await dropped(table)
    (warning,) = await gateway.warnings()
    assert warning.startswith("table inet theirs, chain forward, drops forwarded packets, also those from cvpn0 to lan")


@pytest.mark.parametrize("table", LETS_THROUGH)
async def test_chain_that_lets_them_through_is_not(lab: Lab, gateway: HostGateway, table: str) -> None:
    assert not await dropped(table)


def closed(rules: str, packet: Packet = COMES, hook: Any = "input") -> bool:
    return any(Ruleset(legacy_entries("ip", rules)).dropping(hook, [packet]))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("-P INPUT ACCEPT", False),
        ("-P INPUT DROP", True),
        ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 1194 -j ACCEPT", False),
        ('-P INPUT DROP\n-A INPUT -p udp -m udp --dport 1190:1199 -m comment --comment "to the VPN" -j ACCEPT', False),
        ("-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 1194 -j ACCEPT", True),
        (
            "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            True,
        ),
        ("-P INPUT DROP\n-A INPUT -i eth+ -j ACCEPT", False),
        ("-P INPUT DROP\n-A INPUT ! -i lo -j ACCEPT", False),
        ("-P INPUT DROP\n-A INPUT ! -i eth0 -j ACCEPT", True),
        ("-P INPUT ACCEPT\n-N no\n-A INPUT -j no\n-A no -j REJECT --reject-with icmp-port-unreachable", True),
        ("-P INPUT ACCEPT\n-N no\n-A INPUT -s 192.0.2.0/24 -j no\n-A no -j DROP", False),
        ("-P INPUT DROP\n-A INPUT -m recent --rcheck --name friends -j ACCEPT", True),
    ],
)
def test_rules_of_iptables_legacy_are_followed(rules: str, expected: bool) -> None:
    assert closed(rules) == expected


def test_ours_is_no_other_firewall() -> None:
    entries = [command["add"] for command in firewall.render(HostPlan((STAFF,)))["nftables"] if "add" in command]
    assert forward_drops(Ruleset(entries), FORWARDED) == []
