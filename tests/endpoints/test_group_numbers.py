"""Rules for ever new groups come and go, for years: the numbers of groups stay few, and none comes to mean another
group for anybody who is connected. Seen in what the data plane has after each of its verbs."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.mutants import Mutant
from helpers.served import Served

from cvpnd.dataplane.api import PeerSettings
from cvpnd.dataplane.reference_forward import allowed
from cvpnd.policy.compile import GroupNumbers, compile_prefixes, group_bits
from cvpnd.policy.decide import decide
from cvpnd.policy.model import Rule
from cvpnd.policy.rule_table import RuleTable
from cvpnd.server import endpoint as endpoint_module
from cvpnd.server.endpoint import FEW_GROUPS

NETWORKS = [ip_network(each) for each in ("10.20.0.0/16", "10.20.3.0/24", "10.30.0.0/16")]
ADDRESSES = [ip_address(each) for each in ("10.20.3.7", "10.20.9.9", "10.30.0.1")]
AT_ONCE, STEPS = 5, 600
PEOPLE = [frozenset(f"group-{number}" for number in range(who, STEPS, 7)) for who in range(7)]


@pytest.fixture
async def served(tmp_path: Path) -> Any:
    made = Served(tmp_path)
    yield made
    made.close()


def connect(served: Served) -> list[Any]:
    """Peers of the data plane, each with the groups of one of ``PEOPLE``."""
    sessions = []
    for peer_id, groups in enumerate(PEOPLE):
        bits = group_bits(groups, served.endpoint.groups)
        served.plane.add_peer(peer_id, PeerSettings(1, (ip_address(f"10.100.0.{peer_id + 2}"),), bits, 0, 0))
        grant = SimpleNamespace(groups=groups)
        sessions.append(SimpleNamespace(endpoint=served.endpoint, peer_id=peer_id, grant=grant))
    return sessions


def reach(served: Served) -> set[tuple[int, object]]:
    table, peers = served.plane._endpoints[served.endpoint.index].rules, served.plane._peers
    return {(who, to) for who in range(len(PEOPLE)) for to in ADDRESSES if allowed(table, peers[who].groups, to)}


def reach_by(rules: RuleTable) -> set[tuple[int, object]]:
    return {(who, to) for who, groups in enumerate(PEOPLE) for to in ADDRESSES if decide(rules, groups, to).allowed}


def story(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, plane, chance = served.endpoint, served.plane, random.Random(1)
    sessions = connect(served)
    may: set[tuple[int, object]] = set()

    def watched(verb: str) -> Any:
        does = getattr(plane, verb)

        def do(*arguments: Any) -> None:
            does(*arguments)
            assert reach(served) <= may, f"somebody reaches more after {verb}"

        return do

    for verb in ("set_groups", "set_rules", "change_rules"):
        monkeypatch.setattr(plane, verb, watched(verb))
    for step in range(STEPS):
        before = endpoint.rules
        after = before.with_rules([Rule(chance.choice(NETWORKS), f"group-{step}", "", "store")])
        for gone in list(after)[: max(0, len(after) - AT_ONCE)]:
            after = after.without(gone)
        may = reach_by(before) | reach_by(after)
        if step % 3:
            changed = {rule.network for rule in {*before, *after}}
            endpoint.change_rules(plane, after, sessions, compile_prefixes(after, changed, endpoint.groups))
        else:
            endpoint.set_rules(plane, after, sessions)
        assert reach(served) == reach_by(after), step
    assert len(endpoint.groups) <= FEW_GROUPS
    assert max(peer.groups.bit_length() for peer in plane._peers.values()) <= FEW_GROUPS + 1


async def test_years_of_groups_take_no_more_numbers_than_those_of_now(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    story(served, monkeypatch)


def planted() -> Iterator[Mutant]:
    told = "if self.edition_told == self.groups.edition:"
    yield Mutant(endpoint_module, "ServedEndpoint._tell_groups", told, "if self.edition_told >= len(self.groups):")
    yield Mutant(
        endpoint_module,
        "ServedEndpoint._forget_groups",
        "self.groups.known().keys() - {rule.group for rule in self.rules}",
        "set(self.groups.known())",
    )
    yield Mutant(endpoint_module, "ServedEndpoint._forget_groups", "self.groups.forget(unused)", "pass")


@pytest.mark.parametrize("mutant", list(planted()), ids=["nobody is told", "all are unused", "none is forgotten"])
async def test_a_planted_mistake_is_found(served: Served, monkeypatch: pytest.MonkeyPatch, mutant: Mutant) -> None:
    with mutant.in_place(), pytest.raises(AssertionError):
        story(served, monkeypatch)


def test_threads_that_number_groups_at_once_give_no_two_of_them_one_number() -> None:
    """Whoever was cancelled meanwhile has left a thread behind that still compiles rules."""
    numbers, interval = GroupNumbers(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            for hundred in range(100):
                groups = [f"group-{hundred}-{number}" for number in range(100)]
                given = list(threads.map(lambda each: [numbers.number(group) for group in each], 4 * [groups]))
                assert all(each == given[0] for each in given)
    finally:
        sys.setswitchinterval(interval)
    assert sorted(numbers.known().values()) == list(range(1, 10_001))
