"""May somebody in these groups reach that address? The plain answer, which is the specification of the fast one.

The longest matching prefix among all rules decides, whoever they name; then one of the groups must be named on exactly
that prefix, or all users. No rule means no."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cvpnd.policy.model import IPAddress, IPNetwork, Route, Rule


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer and everything needed to explain it."""

    allowed: bool
    prefix: IPNetwork | None
    """The longest matching one; None if no rule matches."""
    rules_on_prefix: tuple[Rule, ...]
    """All rules for exactly that prefix: these decide and no others."""
    rule: Rule | None
    """The rule that admits; if none does, the first on the prefix."""

    @property
    def deciding_groups(self) -> tuple[str, ...]:
        """Groups named on the prefix, sorted; ``*`` for all users."""
        return tuple(sorted("*" if rule.group is None else rule.group for rule in self.rules_on_prefix))


def decide(rules: Iterable[Rule], groups: Collection[str], destination: IPAddress) -> Decision:
    matching = [rule for rule in rules if destination in rule.network]
    if not matching:
        return Decision(False, None, (), None)
    prefix = max((rule.network for rule in matching), key=lambda network: network.prefixlen)
    on_prefix = tuple(rule for rule in matching if rule.network == prefix)
    admitting = [rule for rule in on_prefix if rule.group is None or rule.group in groups]
    return Decision(bool(admitting), prefix, on_prefix, (admitting or on_prefix)[0])


def best_route(routes: Iterable[Route], destination: IPAddress) -> Route | None:
    """The route that carries packets to ``destination``: the one with the longest prefix. What is link-local there
    needs a route of its own."""
    matching = [
        route
        for route in routes
        if destination in route.destination and (route.destination.is_link_local or not destination.is_link_local)
    ]
    return max(matching, key=lambda route: route.destination.prefixlen, default=None)
