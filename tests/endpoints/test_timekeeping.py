"""Both clocks looked after: one goes on after a restart, and it is said when the other jumps."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from cvpnd.auth.revoked_logins import LONGEST_LOGIN_S
from cvpnd.endpoints import timekeeping
from cvpnd.endpoints.timekeeping import BEHIND_S, KEPT_EVERY_S, SHOWN_S, Timekeeper
from cvpnd.server.steady_clock import SteadyClock
from cvpnd.store import Store


class Host:
    """Its clocks are numbers."""

    def __init__(self, store: Store) -> None:
        self.monotonic, self.uptime, self.wall = 100.0, 200.0, 1_000_000.0
        self.clock = SteadyClock(lambda: self.monotonic)
        self.keeper = Timekeeper(self.clock, store, lambda: self.wall, lambda: self.uptime)

    def pass_time(self, seconds: float, *, asleep: bool = False) -> None:
        self.monotonic += 0 if asleep else seconds
        self.uptime += seconds
        self.wall += seconds

    def look(self) -> str:
        self.pass_time(1)
        self.keeper.look()
        return self.keeper.trouble


@pytest.fixture
def store(tmp_path: Path):
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as opened:
        yield opened


async def test_a_clock_that_is_set_is_told_once_and_one_that_is_slewed_or_slept_through_is_not(store, caplog):
    host = Host(store)
    for drift in (0.0, 0.5, -0.5, 4.0, -4.0):
        host.wall += drift
        assert host.look() == ""
    host.pass_time(8 * 3600, asleep=True)
    assert host.look() == ""
    for step, said in ((7200, "ahead by 2.0 hours"), (-7200, "back by 2.0 hours"), (40 * 365 * 86_400, "40.0 years")):
        host.wall += step
        assert said in host.look()
        assert host.look() == host.look()
    assert len(caplog.records) == 3
    host.pass_time(SHOWN_S)
    assert host.look() == ""


async def test_readings_that_are_far_apart_say_nothing(store):
    host = Host(store)

    def held_up() -> float:
        host.uptime += 60
        return host.uptime

    host.keeper._uptime = held_up
    assert host.look() == ""


async def test_the_steady_clock_goes_on_after_a_restart_and_follows_the_gateway_that_is_ahead(store, monkeypatch):
    monkeypatch.setattr(timekeeping, "LOOKS_EVERY_S", 0.001)
    first = Host(store)
    store.keep_clock(0.0, first.wall)
    await first.keeper.begin()
    assert first.clock.now() == 0.0
    keeping = asyncio.create_task(first.keeper.keep())
    await asyncio.sleep(0.01)
    first.pass_time(500)
    await kept(store, 500.0)
    keeping.cancel()
    again = Host(store)
    again.wall = first.wall
    await again.keeper.begin()
    assert again.clock.now() == 500.0 and again.keeper.trouble == ""
    keeping = asyncio.create_task(again.keeper.keep())
    store.keep_clock(600.0, again.wall)
    await asyncio.sleep(0.01)
    again.pass_time(timekeeping.KEPT_EVERY_S)
    await asyncio.wait_for(until(lambda: again.clock.now() >= 600.0), 5)
    keeping.cancel()


async def test_a_step_of_the_clock_is_kept_at_once_so_that_a_crash_does_not_take_it_for_time_that_passed(
    store, monkeypatch
):
    monkeypatch.setattr(timekeeping, "LOOKS_EVERY_S", 0.001)
    first = Host(store)
    store.keep_clock(500.0, first.wall)
    await first.keeper.begin()
    keeping = asyncio.create_task(first.keeper.keep())
    await asyncio.sleep(0.01)
    told, keep = [], store.keep_clock
    monkeypatch.setattr(store, "keep_clock", lambda seconds, wall: told.append(wall) or keep(seconds, wall))
    first.wall += 86_400
    await asyncio.wait_for(until(lambda: first.wall in told), 5)
    keeping.cancel()
    again = Host(store)
    again.wall = first.wall + 1
    await again.keeper.begin()
    assert again.clock.now() <= 502.0


@pytest.mark.parametrize("set_back_s", [0, 7200])
async def test_the_steady_clock_is_never_behind_where_it_was_before_a_crash(store, set_back_s):
    """Whoever was sent to a browser a moment before it, and ended a moment after it, would look ended first."""
    first = Host(store)
    store.keep_clock(500.0, first.wall)
    await first.keeper.begin()
    first.pass_time(timekeeping.KEPT_EVERY_S - 1)
    again = Host(store)
    again.wall = first.wall + 0.5 - set_back_s
    await again.keeper.begin()
    assert first.clock.now() <= again.clock.now() <= 500.0 + timekeeping.KEPT_EVERY_S
    third = Host(store)
    third.wall = again.wall + 0.5
    await third.keeper.begin()
    assert third.clock.now() >= again.clock.now(), "nor after another one, a moment later"


async def test_nor_is_it_where_the_store_took_nothing_for_hours_before_the_crash(store):
    first = Host(store)
    store.keep_clock(500.0, first.wall)
    await first.keeper.begin()
    first.pass_time(5 * 3600)
    again = Host(store)
    again.wall = first.wall + 1
    await again.keeper.begin()
    assert again.clock.now() == first.clock.now() + 1
    third = Host(store)
    third.wall = again.wall + 40 * 365 * 86_400
    await third.keeper.begin()
    assert third.clock.now() == again.clock.now() + LONGEST_LOGIN_S, "by when all that is remembered by it is over"


@pytest.mark.parametrize(
    ("behind_s", "ahead_s"), [(0.001, 0), (BEHIND_S + 1, KEPT_EVERY_S), (-20, 20), (-86_400, KEPT_EVERY_S)]
)
async def test_a_start_moves_the_clock_of_other_gateways_little_whatever_its_wall_clock_says(store, behind_s, ahead_s):
    host = Host(SimpleNamespace(is_shared=True, keep_clock=store.keep_clock))
    store.keep_clock(500.0, host.wall + behind_s)
    await host.keeper.begin()
    assert host.clock.now() == pytest.approx(500 + ahead_s)


async def test_a_clock_that_is_behind_the_latest_run_is_told_at_the_start(store):
    store.keep_clock(0.0, 1_000_000.0 + 10 * 86_400)
    host = Host(store)
    await host.keeper.begin()
    assert host.keeper.trouble == "the clock is 10.0 days behind what it was when a gateway ran last"


async def test_a_clock_that_is_far_ahead_of_the_latest_run_is_told_too(store):
    for days, told in ((29, ""), (31, "no gateway has run for 31.0 days, or the clock is ahead")):
        store.keep_clock(0.0, 1_000_000.0 - days * 86_400)
        host = Host(store)
        await host.keeper.begin()
        assert host.keeper.trouble == told


async def test_whoever_waits_for_a_step_is_woken_by_it(store):
    host = Host(store)
    waiting = asyncio.create_task(host.keeper.until_step(60))
    await asyncio.sleep(0)
    host.wall += 3600
    host.look()
    await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(host.keeper.until_step(0.01), 5)


async def kept(store: Store, seconds: float) -> None:
    await asyncio.wait_for(until(lambda: store.keep_clock(0.0, 1_000_500.0).seconds == seconds), 5)


async def until(condition) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for happens in the store
        await asyncio.sleep(0.005)
