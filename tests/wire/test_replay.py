"""Which packets are taken once, and how ours are counted (openvpn-wire.md section 6.5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.wire.wrap.replay import WINDOW_IDS, WINDOW_S, ReplayWindow, SendCounter
from cvpnd.wire.wrap.wrapping import ReplayId


def taken(window: ReplayWindow, *ids: int, time: int = 100, now: float = 0.0) -> list[bool]:
    return [window.accept(ReplayId(number, time), now) for number in ids]


def test_each_id_once_in_any_order() -> None:
    window = ReplayWindow()
    assert taken(window, 1, 2, 2, 5, 3, 3, 4, 1, 5) == [True, True, False, True, True, False, True, False, False]


def test_id_0_is_never_valid() -> None:
    window = ReplayWindow()
    assert taken(window, 0) == [False]
    assert taken(window, 1) == [True]
    assert taken(window, 0, time=200) == [False]


def test_the_window_is_64_ids_deep() -> None:
    window = ReplayWindow()
    assert taken(window, 1000) == [True]
    assert taken(window, 1000 - WINDOW_IDS, 1000 - WINDOW_IDS + 1) == [False, True]
    assert taken(window, 0x0F000001) == [True], "a jump of any width"
    assert taken(window, 1000, 1001) == [False, False]


def test_an_id_is_too_late_15_s_after_a_higher_one() -> None:
    window = ReplayWindow()
    assert taken(window, 10) == [True]
    assert taken(window, 9, now=WINDOW_S) == [True]
    assert taken(window, 8, now=WINDOW_S + 0.1) == [False]
    assert taken(window, 11, now=1000.0) == [True], "the next one may take its time"


def test_a_higher_time_begins_anew_and_a_lower_one_is_over() -> None:
    window = ReplayWindow()
    assert taken(window, 1, 7, time=100) == [True, True]
    assert taken(window, 1, 2, time=101) == [True, True]
    assert taken(window, 8, 1, 3, time=100) == [False, False, False]
    assert taken(window, 3, time=101) == [True]


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 3), st.floats(0, 20)), max_size=120))
def test_nothing_is_taken_twice_whatever_comes(packets: list[tuple[int, int, float]]) -> None:
    window = ReplayWindow()
    now = 0.0
    seen = set()
    for number, time, wait in packets:
        now += wait
        if window.accept(ReplayId(number, time), now):
            assert (number, time) not in seen
            seen.add((number, time))
    assert len(window._arrivals) <= WINDOW_IDS


@pytest.mark.parametrize("first", [1, 2, 0x0F000001])
def test_ours_count_up_with_the_time_of_the_first(first: int) -> None:
    clock = iter([1000.9, 5000.0])
    counter = SendCounter(lambda: next(clock), first)
    assert [counter.next() for _ in range(3)] == [ReplayId(first + i, 1000) for i in range(3)]


def test_used_up_ids_begin_again_with_a_later_time() -> None:
    """CVE-2017-7479: no assertion, and no pair twice even within the same second."""
    counter = SendCounter(lambda: 1000.0, 0xFFFFFFFE)
    pairs = [counter.next() for _ in range(4)]
    assert pairs == [ReplayId(0xFFFFFFFE, 1000), ReplayId(0xFFFFFFFF, 1000), ReplayId(1, 1001), ReplayId(2, 1001)]
    window = ReplayWindow()
    assert all(window.accept(pair, 0.0) for pair in pairs)
