"""Authorization rules as the data plane reads them: one entry for each prefix, its value the groups it admits.

Groups are bits. Bit 0 is everybody's, so "all users" needs no special case: the longest matching prefix decides, and
then one AND does."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from ipaddress import ip_network
from operator import or_

from cvpnd.policy.model import IPAddress, IPNetwork, Rule
from cvpnd.policy.rule_table import RuleTable

EVERYBODY = 1
"""Bit 0, set for every session and in every rule for all users."""

Compiled = Sequence[tuple[IPNetwork, int]]


class GroupNumbers:
    """Group name → bit number, for one endpoint. A number comes to mean another group only when no table in the data
    plane carries it any more; and before one does again, ``edition`` has every live session's bits made anew. Any
    thread may ask for one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._highest = 0
        self._free: list[int] = []
        self.edition = 0
        """Another one whenever a group has got a number: the bits of before lack that."""

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, group: str) -> int:
        """The group's bit number, given now if it has none."""
        if (known := self._numbers.get(group)) is not None:
            return known
        with self._lock:
            if (known := self._numbers.get(group)) is not None:  # by another thread meanwhile
                return known
            if not self._free:
                self._highest += 1
                self._free.append(self._highest)
            self._numbers[group] = number = self._free.pop()
            self.edition += 1
            return number

    def known(self) -> Mapping[str, int]:
        return self._numbers

    def forget(self, groups: Iterable[str]) -> None:
        """Whose numbers are in no table: others may have them."""
        with self._lock:
            in_order = sorted(groups)  # the same whatever the hash seed
            self._free.extend([self._numbers.pop(group) for group in in_order])


def compile_rules(rules: Iterable[Rule], numbers: GroupNumbers) -> list[tuple[IPNetwork, int]]:
    """Rules on one prefix become one entry. Names new groups in ``numbers``: the caller then gives every live session
    its ``group_bits`` again (see ``numbers.edition``), best before the table: bits that no prefix asks for yet do
    nothing, while a new prefix without them denies for a moment."""
    table: dict[IPNetwork, int] = {}
    for rule in rules:
        table[rule.network] = table.get(rule.network, 0) | _bits(rule, numbers)
    return list(table.items())


def compile_prefixes(
    rules: RuleTable, prefixes: Iterable[IPNetwork], numbers: GroupNumbers
) -> dict[IPNetwork, int | None]:
    """These prefixes' entries as ``compile_rules`` would make them; None where no rule is left. As much work as there
    are rules on them, however many others there are."""
    return {
        prefix: reduce(or_, (_bits(rule, numbers) for rule in on_it)) if (on_it := rules.on(prefix)) else None
        for prefix in prefixes
    }


def admitted_by_both(one: Compiled, other: Compiled) -> list[tuple[IPNetwork, int]]:
    """What admits nobody whom one of the two does not, for while one gives way to the other. Who is admitted by another
    group in each is not."""
    before, after = _Deciding(one), _Deciding(other)
    table = []
    for prefix in {**before.table, **after.table}:
        mine, theirs = before.whole(prefix), after.whole(prefix)
        table.append((prefix, theirs if mine & EVERYBODY else mine if theirs & EVERYBODY else mine & theirs))
    return table


def admits(table: Compiled, bits: int, address: IPAddress) -> bool:
    """What the data plane says of a session with these bits."""
    return bool(_Deciding(table).whole(ip_network(address)) & bits)


class _Deciding:
    """Looks a prefix up at the lengths that there are: few, where one of IPv6 may be found at 128."""

    def __init__(self, table: Iterable[tuple[IPNetwork, int]]) -> None:
        self.table = dict(table)
        self._bits = {(p.version, p.prefixlen, int(p.network_address)): bits for p, bits in self.table.items()}
        lengths = {(p.version, p.prefixlen) for p in self.table}
        self._lengths = {v: sorted((n for version, n in lengths if version == v), reverse=True) for v in (4, 6)}

    def whole(self, prefix: IPNetwork) -> int:
        """What decides for all of it, where the table has no longer ones in it."""
        if (bits := self.table.get(prefix)) is not None:
            return bits
        version, address = prefix.version, int(prefix.network_address)
        for length in self._lengths[version]:
            zeros = prefix.max_prefixlen - length
            found = self._bits.get((version, length, address >> zeros << zeros))
            if length < prefix.prefixlen and found is not None:  # which may be nobody
                return found
        return 0


def _bits(rule: Rule, numbers: GroupNumbers) -> int:
    return EVERYBODY if rule.group is None else 1 << numbers.number(rule.group)


def group_bits(groups: Iterable[str], numbers: GroupNumbers) -> int:
    """A session's bits. Groups that no rule has named yet get no number: a directory may have thousands."""
    known = numbers.known()
    bits = EVERYBODY
    for group in groups:
        if (number := known.get(group)) is not None:
            bits |= 1 << number
    return bits
