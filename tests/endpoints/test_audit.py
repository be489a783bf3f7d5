"""How much of the audit record is kept, and of whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cvpnd.config import AuditConfig
from cvpnd.endpoints import audit
from cvpnd.endpoints.audit import DAY_S, AuditOperations
from cvpnd.endpoints.refusals import MOST, REMEMBERED_S, WITHIN_S, Allowance
from cvpnd.store import Actor, Store, acting, fair_share

NOW = 2_000_000_000.0
ADMIN, HELPER, FLOOD = "uid:0", "uid:1000", "AKIAFLOOD"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as opened:
        yield opened


def write(store: Store, who: str, times: range) -> None:
    """A record of each day before now."""
    acting.set(Actor(who, "test"))
    with store._write() as connection:
        for days in times:
            store._record(connection, "refused", {"days": days}, now=NOW - days * DAY_S)


def keeper(store: Store, trouble: str = "", **settings: int) -> AuditOperations:
    gateway: Any = SimpleNamespace(
        store=store,
        config=SimpleNamespace(audit=AuditConfig(**settings)),
        timekeeper=SimpleNamespace(trouble=trouble),
    )
    return AuditOperations(gateway)


async def tidied(store: Store, trouble: str = "", **settings: int) -> Counter[str]:
    await keeper(store, trouble, **settings)._tidy_audit(NOW)
    return Counter(record.who for record in store.audit_records(10_000))


async def test_what_is_old_goes_in_small_steps_and_the_newest_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, ADMIN, range(1300, 0, -1))
    assert await tidied(store, keep_days=0) == {ADMIN: 1300}
    monkeypatch.setattr(audit, "OLD_AT_ONCE", 700)
    assert await tidied(store, keep_days=30) == {ADMIN: 600}, "a clock that is wrong costs no more at a time"
    assert await tidied(store, keep_days=30) == {ADMIN: 30}
    extent = store.audit_extent()
    assert (extent.records, extent.since) == (30, NOW - 30 * DAY_S)
    before = store.latest_change()
    await keeper(store, keep_days=1)._tidy_audit(NOW + 1000 * DAY_S)
    assert [record.details["days"] for record in store.audit_records()] == [1]
    assert store.latest_change() == before


async def test_nothing_is_old_by_a_clock_that_was_set_lately(store: Store) -> None:
    write(store, ADMIN, range(100, 0, -1))
    trouble = "the clock was put ahead by 40.0 years"
    assert await tidied(store, trouble, keep_days=30) == {ADMIN: 100}
    assert sum((await tidied(store, trouble, keep_days=30, keep_entries=50)).values()) <= 50, (
        "what is too much still goes"
    )
    assert await tidied(store, keep_days=30) == {ADMIN: 30}


async def test_nobody_drives_out_the_records_of_others(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    write(store, ADMIN, range(300, 250, -1))
    write(store, HELPER, range(250, 230, -1))
    write(store, FLOOD, range(230, 0, -1))
    assert await tidied(store, keep_entries=300) == {ADMIN: 50, HELPER: 20, FLOOD: 230}
    kept = await tidied(store, keep_entries=200)
    assert kept == {ADMIN: 50, HELPER: 20, FLOOD: 128}
    assert store.audit_records(1)[0].details == {"days": 1}, "of the flood the oldest are gone"
    (told,) = caplog.messages
    assert FLOOD in told and "the 102 oldest" in told


def test_a_share_is_fair() -> None:
    assert fair_share({"a": 10, "b": 10}, 20) == 20
    assert fair_share({"a": 5, "b": 100}, 20) == 15
    assert fair_share({"a": 100, "b": 100, "c": 1}, 21) == 10
    assert fair_share({str(number): 7 for number in range(10)}, 5) == 0
    for most in range(1, 60):
        shares = {"a": 3, "b": 9, "c": 14, "d": 31}
        share = fair_share(shares, most)
        assert sum(min(records, share) for records in shares.values()) <= most


def test_refusals_are_counted_for_no_more_keys_than_there_were_lately() -> None:
    now = 0.0
    allowance = Allowance(lambda: now)
    for number in range(1000):
        now += 60.0
        assert allowance.ask(f"AKIA{number}") == 0
    assert len(allowance._written) == 1000, "of the last day, all"
    now += REMEMBERED_S + 1
    for _ in range(MOST):
        assert allowance.ask("AKIA") == 0
    assert allowance.ask("AKIA") is None and len(allowance._written) == 1
    now += WITHIN_S
    assert allowance.ask("AKIA") == 1, "how many were left out"
