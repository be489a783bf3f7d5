"""Authorization: the plain decision, the compiled table, and the scenarios that both must agree with."""

import json
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.policy.compile import EVERYBODY, GroupNumbers, admits, admitted_by_both, compile_rules, group_bits
from cvpnd.policy.decide import best_route, decide
from cvpnd.policy.model import IPAddress, IPNetwork, Route, Rule

SCENARIOS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "aws-authorization-scenarios.json").read_text()
)["scenarios"]


def rule(network: str, group: str | None = None) -> Rule:
    return Rule(ip_network(network), group, "", "file")


def table_allows(table: Iterable[tuple[IPNetwork, int]], bits: int, destination: IPAddress) -> bool:
    """What the data plane does with a compiled table."""
    matching = [(prefix.prefixlen, groups) for prefix, groups in table if destination in prefix]
    return bool(matching) and bool(max(matching)[1] & bits)


def both(rules: Sequence[Rule], groups: Iterable[str], destination: str) -> bool:
    """The decision, after seeing that plain and compiled agree on it."""
    groups, address = frozenset(groups), ip_address(destination)
    numbers = GroupNumbers()
    table = compile_rules(rules, numbers)
    plain = decide(rules, groups, address).allowed
    assert table_allows(table, group_bits(groups, numbers), address) == plain
    assert admits(table, group_bits(groups, numbers), address) == plain
    return plain


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario["name"] for scenario in SCENARIOS])
def test_aws_scenario(scenario: dict[str, Any]) -> None:
    rules = [rule(r["cidr"], None if r.get("all_groups") else r["group"]) for r in scenario["rules"]]
    assert scenario["decisions"]
    for expected in scenario["decisions"]:
        for order in (rules, rules[::-1]):
            assert both(order, expected["groups"], expected["destination"]) == expected["allow"], expected


@pytest.mark.parametrize(
    ("rules", "groups", "destination", "allowed"),
    [
        ([], ["a"], "10.0.0.1", False),
        ([rule("10.0.0.0/8")], [], "10.0.0.1", True),
        ([rule("10.0.0.0/8")], [], "11.0.0.1", False),
        ([rule("0.0.0.0/0"), rule("10.0.0.0/8", "a")], ["b"], "10.0.0.1", False),
        ([rule("0.0.0.0/0"), rule("10.0.0.0/8", "a")], ["b"], "11.0.0.1", True),
        ([rule("10.0.0.0/8", "a"), rule("10.0.0.0/8", "b")], ["b"], "10.0.0.1", True),
        ([rule("10.0.0.0/8", "a"), rule("10.0.0.0/8")], ["b"], "10.0.0.1", True),
        ([rule("10.0.0.0/8", "a")], ["A"], "10.0.0.1", False),
        ([rule("10.0.0.1/32", "a"), rule("10.0.0.0/31", "b")], ["b"], "10.0.0.1", False),
        ([rule("10.0.0.1/32", "a"), rule("10.0.0.0/31", "b")], ["b"], "10.0.0.0", True),
        ([rule("0.0.0.0/0")], [], "2001:db8::1", False),
        ([rule("::/0")], [], "10.0.0.1", False),
        ([rule("::/0")], [], "::ffff:10.0.0.1", True),
        ([rule("::/0"), rule("2001:db8::/32", "a")], [], "2001:db8::1", False),
        ([rule("::/0"), rule("2001:db8::/32", "a")], ["a"], "2001:db8::1", True),
        ([rule("2001:db8::/127", "a"), rule("2001:db8::1/128", "b")], ["a"], "2001:db8::1", False),
    ],
)
def test_the_longest_prefix_decides_whoever_it_names(
    rules: list[Rule], groups: list[str], destination: str, allowed: bool
) -> None:
    assert both(rules, groups, destination) is allowed
    assert both(rules[::-1], groups, destination) is allowed


def test_a_decision_says_what_decided() -> None:
    rules = [rule("0.0.0.0/0"), rule("10.0.0.0/8", "b"), rule("10.0.0.0/8", "a"), rule("10.0.0.0/8")]
    decision = decide(rules[:3], {"a"}, IPv4Address("10.1.1.1"))
    assert (decision.allowed, decision.prefix, decision.rule) == (True, ip_network("10.0.0.0/8"), rules[2])
    assert decision.rules_on_prefix == (rules[1], rules[2])
    assert decision.deciding_groups == ("a", "b")

    refused = decide(rules[:3], {"c"}, IPv4Address("10.1.1.1"))
    assert (refused.allowed, refused.rule) == (False, rules[1]), "a rule on the prefix, to show"

    assert decide(rules, set(), IPv4Address("10.1.1.1")).deciding_groups == ("*", "a", "b")

    nothing = decide(rules, {"a"}, IPv6Address("2001:db8::1"))
    assert (nothing.allowed, nothing.prefix, nothing.rule, nothing.deciding_groups) == (False, None, None, ())


def test_numbers_are_used_again_once_they_are_forgotten_and_sessions_have_to_be_told() -> None:
    numbers = GroupNumbers()
    compile_rules([rule("10.0.0.0/8", "a"), rule("11.0.0.0/8", "b")], numbers)
    bits = group_bits({"a"}, numbers)
    table = compile_rules([rule("10.0.0.0/8", "c"), rule("11.0.0.0/8", "d")], numbers)
    assert len(numbers) == 4
    assert not any(groups & bits & ~EVERYBODY for _, groups in table)
    numbers.forget(["a"])
    assert len(numbers) == 3 and group_bits({"a"}, numbers) == EVERYBODY
    edition = numbers.edition
    compile_rules([rule("12.0.0.0/8", "e"), rule("13.0.0.0/8", "e")], numbers)
    assert group_bits({"e"}, numbers) == bits and numbers.edition == edition + 1


def test_only_groups_that_some_rule_names_take_a_number() -> None:
    numbers = GroupNumbers()
    assert group_bits({f"directory-group-{n}" for n in range(5000)}, numbers) == EVERYBODY
    assert len(numbers) == 0


def test_more_groups_than_a_machine_word_has_bits() -> None:
    rules = [rule(f"10.{n}.0.0/16", f"group{n}") for n in range(200)]
    assert both(rules, ["group199"], "10.199.0.1")
    assert not both(rules, ["group198"], "10.199.0.1")


def test_a_prefix_has_one_entry_in_the_table() -> None:
    table = compile_rules([rule("10.0.0.0/8", "a"), rule("10.0.0.0/8", "b"), rule("10.0.0.0/8")], GroupNumbers())
    assert table == [(ip_network("10.0.0.0/8"), 0b111)]


def test_the_best_route_is_the_most_specific_of_the_right_family() -> None:
    routes = [
        Route(ip_network("0.0.0.0/0"), "wide", "add-route"),
        Route(ip_network("10.0.0.0/8"), "narrow", "associate"),
        Route(ip_network("::/0"), "six", "add-route"),
    ]
    assert best_route(routes, IPv4Address("10.1.1.1")) == routes[1]
    assert best_route(routes, IPv4Address("11.1.1.1")) == routes[0]
    assert best_route(routes, IPv6Address("2001:db8::1")) == routes[2]
    assert best_route(routes[1:2], IPv4Address("11.1.1.1")) is None


def test_no_wider_route_leads_to_link_local_addresses() -> None:
    everywhere = Route(ip_network("0.0.0.0/0"), "wide", "add-route")
    named = Route(ip_network("169.254.169.253/32"), "resolver", "add-route")
    assert best_route([everywhere, named], IPv4Address("169.254.169.254")) is None
    assert best_route([everywhere, named], IPv4Address("169.254.169.253")) == named


# -- against brute force ------------------------------------------------------------------------------------

GROUPS = ["a", "b", "c"]
# Few distinct bits, so that prefixes nest and destinations hit them.
V4 = st.builds(lambda bits: IPv4Address(bits << 28 | bits), st.integers(0, 15))
V6 = st.builds(lambda bits: IPv6Address(bits << 124 | bits), st.integers(0, 15))


@st.composite
def rules_of(draw: st.DrawFn, address: st.SearchStrategy[IPAddress], lengths: list[int]) -> Rule:
    network = ip_network((draw(address), draw(st.sampled_from(lengths))), strict=False)
    return Rule(network, draw(st.sampled_from([None, *GROUPS])), "", "file")


RULES = st.lists(
    rules_of(V4, [0, 1, 2, 3, 4, 28, 30, 31, 32]) | rules_of(V6, [0, 1, 2, 3, 4, 124, 126, 127, 128]), max_size=12
)


def brute_force(rules: Sequence[Rule], groups: Iterable[str], destination: IPAddress) -> bool:
    """Every prefix length from the longest down, compared as bit strings."""
    width = destination.max_prefixlen
    text = f"{int(destination):0{width}b}"
    for length in range(width, -1, -1):
        named = [
            r.group
            for r in rules
            if (r.network.max_prefixlen, r.network.prefixlen) == (width, length)
            and f"{int(r.network.network_address):0{width}b}"[:length] == text[:length]
        ]
        if named:
            return None in named or any(group in named for group in groups)
    return False


@given(rules=RULES, groups=st.frozensets(st.sampled_from(GROUPS)), destination=V4 | V6)
def test_any_rules_decide_as_brute_force_does(
    rules: list[Rule], groups: frozenset[str], destination: IPAddress
) -> None:
    assert both(rules, groups, str(destination)) == brute_force(rules, groups, destination)


@given(old=RULES, new=RULES, newest=RULES, groups=st.frozensets(st.sampled_from(GROUPS)), destination=V4 | V6)
def test_between_two_tables_nobody_is_let_through_by_one_alone_and_whoever_is_by_the_same_group_in_both_is(
    old: list[Rule], new: list[Rule], newest: list[Rule], groups: frozenset[str], destination: IPAddress
) -> None:
    numbers = GroupNumbers()
    table = admitted_by_both(compile_rules(old, numbers), compile_rules(new, numbers))
    bits = group_bits(groups, numbers)
    between = table_allows(table, bits, destination)
    assert admits(table, bits, destination) == between

    narrower = admitted_by_both(table, compile_rules(newest, numbers))
    still = table_allows(narrower, group_bits(groups, numbers), destination)
    assert not still or (between and decide(newest, groups, destination).allowed)

    def in_both(whose: frozenset[str]) -> bool:
        return all(decide(rules, whose, destination).allowed for rules in (old, new))

    assert not between or in_both(groups)
    assert between or not any(in_both(frozenset(alone)) for alone in ((), *groups))
