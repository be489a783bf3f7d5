"""What stays of connections that are over."""

from __future__ import annotations

from dataclasses import fields

from cvpnd.endpoints.ended import KEPT_MAX, KEPT_S, EndedConnections
from cvpnd.endpoints.model import ConnectionView


def view(ended_at: float) -> ConnectionView:
    return ConnectionView(**{each.name: None for each in fields(ConnectionView)} | {"ended_at": ended_at})


def test_they_stay_for_an_hour():
    ended = EndedConnections()
    for ended_at in (1000.0, 1001.0):
        ended.add(view(ended_at))
    assert ended.within_an_hour(1000.0 + KEPT_S) == [view(1000.0), view(1001.0)]
    assert ended.within_an_hour(1001.0 + KEPT_S) == [view(1001.0)]
    assert ended.within_an_hour(1002.0 + KEPT_S) == []


def test_of_too_many_the_oldest_go():
    ended = EndedConnections()
    for number in range(KEPT_MAX + 1):
        ended.add(view(number))
    assert [kept.ended_at for kept in ended.within_an_hour(0)][0 :: KEPT_MAX - 1] == [1, KEPT_MAX]
