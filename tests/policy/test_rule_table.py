"""Rules that change one by one are the same as rules that are compiled whole."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.policy.compile import GroupNumbers, compile_prefixes, compile_rules
from cvpnd.policy.model import IPNetwork, Rule
from cvpnd.policy.rule_table import RuleTable

NETWORKS = [ip_network(n) for n in ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "::/0", "fd00::/8")]
RULES = st.builds(
    Rule,
    st.sampled_from(NETWORKS),
    st.sampled_from([None, "a", "b", "c"]),
    st.just(""),
    st.sampled_from(["file", "store"]),
)


@given(begin=st.lists(RULES, max_size=8, unique=True), steps=st.lists(st.lists(RULES, max_size=4), max_size=12))
def test_any_changes_one_after_the_other_come_to_what_the_whole_table_is(
    begin: list[Rule], steps: list[list[Rule]]
) -> None:
    """Each step turns each of its rules over: in where it was not, out where it was."""
    numbers, table, plain = GroupNumbers(), RuleTable(begin), list(begin)
    compiled: dict[IPNetwork, int] = dict(compile_rules(table, numbers))
    for step in steps:
        before, was = table, list(table)
        for rule in step:
            if rule in plain:
                plain.remove(rule)
                table = table.without(rule)
            else:
                plain.append(rule)
                table = table.with_rules([rule])
        for prefix, bits in compile_prefixes(table, {rule.network for rule in step}, numbers).items():
            if bits is None:
                compiled.pop(prefix, None)
            else:
                compiled[prefix] = bits
        assert list(table) == plain and len(table) == len(plain)
        assert compiled == dict(compile_rules(plain, numbers))
        assert table.stored == sum(rule.origin == "store" for rule in plain)
        assert list(before) == was, "a table that others may go back to was changed"


def test_a_rule_is_there_once_and_the_files_is_found_before_the_stores() -> None:
    network = NETWORKS[1]
    own, same, stored = (Rule(network, "a", text, "file" if text else "store") for text in ("1", "2", ""))
    table = RuleTable([stored, own])
    assert table.find(network, "a") is own and table.without(own).find(network, "a") is stored
    assert table.find(network, None) is None and table.on(network) == (stored, own)
    with pytest.raises(ValueError, match="for a is there already"):
        table.with_rules([same])
    with pytest.raises(KeyError):
        table.without(own).without(own)
