"""The rendered table, without the kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.tunnel_end import PARTNERS, PORTS, STAFF, SUBNET_A

from cvpnd.host import firewall
from cvpnd.host.gateway import Association, HostPlan


@pytest.mark.parametrize(
    ("listening", "expected"),
    [
        (set(), (1024, 65535)),
        ({443}, (1024, 65535)),
        ({443, 1194}, (1195, 65535)),
        ({1024}, (1025, 65535)),
        ({65535}, (1024, 65534)),
        ({1194, 40000}, (1195, 39999)),
        ({1194, 20000}, (20001, 65535)),
    ],
)
def test_nat_ports_are_the_widest_range_without_ours(listening: set[int], expected: tuple[int, int]) -> None:
    assert firewall.nat_ports(listening) == expected


def test_batch_replaces_the_table_whatever_was_there() -> None:
    commands = firewall.render(HostPlan((STAFF,), PORTS))["nftables"]
    assert [next(iter(command)) for command in commands[:3]] == ["add", "delete", "add"]
    tables = {
        entry.get("table") or entry["name"] for command in commands for entry in next(iter(command.values())).values()
    }
    assert tables == {firewall.TABLE}


def masquerading_interfaces(plan: HostPlan) -> list[list[str]]:
    found = []
    for command in firewall.render(plan)["nftables"]:
        rule = command.get("add", {}).get("rule")
        if rule and any("masquerade" in statement for statement in rule["expr"]):
            for match in (statement["match"] for statement in rule["expr"] if "match" in statement):
                if match["left"] == {"meta": {"key": "oifname"}}:
                    found.append(match["right"]["set"])
    return found


def test_only_translated_associations_are_masqueraded() -> None:
    neighbour = PARTNERS.associations[0].subnet
    v4_only = replace(STAFF, client_cidr_v6=None)
    mixed = replace(v4_only, associations=(Association(SUBNET_A, nat=False), Association(neighbour)))
    assert masquerading_interfaces(HostPlan((mixed,))) == [["lan2"]] * 2
    # a neighbour without an association of its own is treated like the one that brought it
    routed = replace(v4_only, associations=(Association(SUBNET_A, neighbours=(neighbour,), nat=False),))
    assert masquerading_interfaces(HostPlan((routed,))) == []
    translated = replace(v4_only, associations=(Association(SUBNET_A, neighbours=(neighbour,)),))
    assert masquerading_interfaces(HostPlan((translated,))) == [["lan", "lan2"]] * 2
