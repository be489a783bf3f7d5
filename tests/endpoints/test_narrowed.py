"""An endpoint whose rules are narrowed, as a change could be neither made nor taken back: whatever is tried until it
can be, nobody reaches more by it; seen in what the data plane has."""

from __future__ import annotations

import random
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from helpers.mutants import Mutant
from helpers.served import Served

from cvpnd.dataplane.reference_forward import allowed
from cvpnd.endpoints import rules_in_force
from cvpnd.endpoints.rules_in_force import RulesInForce
from cvpnd.policy.compile import group_bits
from cvpnd.policy.decide import decide
from cvpnd.policy.model import Rule
from cvpnd.policy.rule_table import RuleTable
from cvpnd.server import endpoint as endpoint_module

GROUPS = ("eng", "ops")
NETWORKS = ("0.0.0.0/0", "10.20.0.0/16", "10.20.3.0/24", "10.20.3.7/32", "10.30.0.0/16")
ADDRESSES = [ip_address(each) for each in ("10.20.3.7", "10.20.3.8", "10.20.9.9", "10.30.0.1", "192.0.2.1")]
SOMEBODY = [frozenset(each) for each in ((), GROUPS[:1], GROUPS[1:], GROUPS)]
STORIES, STEPS = 60, 6


@pytest.fixture
async def served(tmp_path: Path) -> Any:
    made = Served(tmp_path)
    yield made
    made.close()


def some_rules(chance: random.Random) -> RuleTable:
    wanted = {(chance.choice(NETWORKS), chance.choice((None, *GROUPS))) for _ in range(chance.randrange(7))}
    return RuleTable(Rule(ip_network(network), group, "", "store") for network, group in sorted(wanted, key=str))


def reach(served: Served) -> set[tuple[frozenset[str], object]]:
    """Whom the data plane lets through, and where to."""
    table, numbers = served.plane._endpoints[served.endpoint.index].rules, served.endpoint.groups
    return {(who, to) for who in SOMEBODY for to in ADDRESSES if allowed(table, group_bits(who, numbers), to)}


def reach_by(rules: RuleTable) -> set[tuple[frozenset[str], object]]:
    return {(who, to) for who in SOMEBODY for to in ADDRESSES if decide(rules, who, to).allowed}


async def story(served: Served, seed: int) -> None:
    """Whatever can be tried of an endpoint while it is narrowed, by chance; at its end all is in force again."""
    endpoint, chance = served.endpoint, random.Random(seed)
    in_force = RulesInForce(served.plane, served.control.table)
    await in_force.put_all(endpoint, some_rules(chance))
    assert reach(served) == reach_by(endpoint.rules)
    for step in range(STEPS):
        before, rules, most = endpoint.rules, list(endpoint.rules), reach(served)
        kind = chance.choice(("coming", "revoked", "taken back")) if step and rules else "coming"
        if kind == "coming":  # of a reload, of going back from it, of another gateway
            new = some_rules(chance)
            await in_force.narrow(endpoint, new)
        else:
            gone = chance.choice(rules)
            new = before.without(gone)
            await in_force.put_changed(endpoint, new, [gone.network])
            assert endpoint.rules == new, "nobody is shown a rule that was revoked"
        assert reach(served) <= most & reach_by(new), (seed, step, kind)
        if kind == "taken back":  # as the store could not keep it
            await in_force.put(endpoint, before)
            assert endpoint.rules == before and reach(served) <= most, (seed, step, kind)
        assert endpoint.narrowed_to is not None
    await in_force.put_all(endpoint, endpoint.rules)
    assert endpoint.narrowed_to is None and reach(served) == reach_by(endpoint.rules)


async def test_nothing_widens_an_endpoint_that_is_narrowed(served: Served) -> None:
    for seed in range(STORIES):
        await story(served, seed)


def planted() -> Iterator[Mutant]:
    yield Mutant(rules_in_force, "RulesInForce.put", "if served.narrowed_to is None:", "if True:")
    yield Mutant(
        rules_in_force,
        "RulesInForce.put_changed",
        "if served.narrowed_to is not None:",
        "if False:",
    )
    yield Mutant(
        endpoint_module,
        "ServedEndpoint.narrower",
        "compile_rules(self.rules, self.groups) if self.narrowed_to is None else self.narrowed_to",
        "compile_rules(self.rules, self.groups)",
    )
    yield Mutant(endpoint_module, "ServedEndpoint.narrower", "admitted_by_both(now, ", "list(")


@pytest.mark.parametrize("mutant", list(planted()), ids=lambda mutant: f"{mutant.function}: {mutant.new}")
async def test_a_planted_mistake_is_found(served: Served, mutant: Mutant) -> None:
    with mutant.in_place(), pytest.raises(AssertionError):
        for seed in range(STORIES):
            await story(served, seed)
