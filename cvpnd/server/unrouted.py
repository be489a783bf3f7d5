"""Connections of clients that an endpoint's routes carry no more, or elsewhere: having the kernel forget them.

Without a route what clients send goes nowhere. But what is tracked still comes back, as long as its sender goes on, and
where another target has it now, under the address that clients had at the one before.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Set

from cvpnd.config.values import LOCAL
from cvpnd.host import tracked
from cvpnd.host.errors import HostError
from cvpnd.policy.leases import LeasePool
from cvpnd.policy.model import IPNetwork, Route

log = logging.getLogger(__name__)


class _Targets:
    """Where packets to an address go. Asked for each connection of the host, so it is made once."""

    def __init__(self, routes: Iterable[tuple[IPNetwork, str]]) -> None:
        by_shift: dict[tuple[int, int], dict[int, str]] = {}
        for network, target in routes:
            size, shift = len(network.network_address.packed), network.max_prefixlen - network.prefixlen
            by_shift.setdefault((size, shift), {})[int(network.network_address) >> shift] = target
        self._longest_first = sorted(by_shift.items(), key=lambda item: item[0][1])

    def of(self, packed: bytes) -> str | None:
        number = int.from_bytes(packed)
        for (size, shift), targets in self._longest_first:
            if size == len(packed) and (target := targets.get(number >> shift)) is not None:
                return target
        return None


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def _any_lost(before: Set[tuple[IPNetwork, str]], now: Set[tuple[IPNetwork, str]]) -> bool:
    """Whether one is gone, or a new one takes a part of it. To look at all connections of the host takes seconds where
    there are very many."""
    if not before <= now:
        return True
    new = [destination for destination, _ in now - before]
    old = [destination for destination, _ in before]
    return any(_within(inner, outer) for inner in new for outer in old)


def forget_unrouted(leases: LeasePool, before: Collection[Route], now: Collection[Route]) -> None:
    """Blocking. That it cannot be done is in the log: what clients send is stopped all the same."""
    if not _any_lost({(route.destination, route.target) for route in before}, {(r.destination, r.target) for r in now}):
        return
    cidrs = (leases.cidr,) if leases.cidr_v6 is None else (leases.cidr, leases.cidr_v6)
    clients = _Targets((cidr, LOCAL) for cidr in cidrs)
    old, new = (_Targets((route.destination, route.target) for route in routes) for routes in (before, now))

    def unrouted(client: bytes, other: bytes) -> bool:
        if clients.of(client) is None:
            return False
        target = old.of(other)
        return target is not None and target != new.of(other)

    try:
        if left := tracked.forget_between(unrouted):
            text = "%s: connections of %d clients by routes of before stay tracked (flow offload?)"
            log.warning(text, leases.cidr, len(left))
    except HostError as error:
        log.warning("%s: connections by routes of before are not forgotten: %s", leases.cidr, error)
