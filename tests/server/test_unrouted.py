"""When the connections of the host are looked at because an endpoint's routes are others: not for a route more."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from cvpnd.host import tracked
from cvpnd.policy.leases import LeasePool
from cvpnd.policy.model import Route
from cvpnd.server.unrouted import forget_unrouted


def route(destination: str, target: str) -> Route:
    return Route(ip_network(destination), target, "add-route")


OFFICE, HALF, V6 = route("10.30.0.0/16", "lan"), route("10.30.128.0/17", "lan"), route("fd30::/32", "lan")


@pytest.mark.parametrize(
    ("before", "now", "looked_at"),
    [
        ([OFFICE], [OFFICE, V6], False),
        ([OFFICE], [OFFICE, route("10.40.0.0/16", "lan2")], False),
        ([HALF], [HALF, OFFICE], False),
        ([OFFICE], [OFFICE, route("10.30.128.0/17", "lan2")], True),
        ([OFFICE], [route("10.30.0.0/16", "lan2")], True),
        ([OFFICE, V6], [OFFICE], True),
    ],
    ids=["another-family", "elsewhere", "around-it", "within-it", "another-target", "gone"],
)
def test_only_a_route_that_is_gone_or_cut_into_has_the_host_looked_at(
    before: list[Route], now: list[Route], looked_at: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Any] = []

    def look(unrouted: Any) -> set[bytes]:
        looks.append(unrouted)
        return set()

    monkeypatch.setattr(tracked, "forget_between", look)
    forget_unrouted(LeasePool(ip_network("10.100.0.0/22")), before, now)
    assert bool(looks) is looked_at
