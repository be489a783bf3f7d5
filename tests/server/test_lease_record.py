"""Who had which address when the gateway stopped, told to the one that starts."""

from __future__ import annotations

import time
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cvpnd.policy.leases import LeasePool, PoolFull
from cvpnd.server.lease_record import GOOD_FOR_S, LeaseRecord

CIDR = IPv4Network("10.1.0.0/29")
PHONE = ("alice", "phone")


def restored(record: LeaseRecord, cidr: IPv4Network = CIDR) -> LeasePool:
    pool = LeasePool(cidr)
    for address, holder in record.take().resting.get("cvpn-endpoint-1", ()):
        pool.rest(address, holder)
    return pool


@pytest.fixture
def record(tmp_path: Path) -> LeaseRecord:
    return LeaseRecord(tmp_path / "leases.json")


def stopped(record: LeaseRecord) -> dict:
    pool = LeasePool(CIDR)
    leases = {holder: pool.acquire(holder) for holder in ("alice", PHONE, "bob")}
    for address in leases.values():
        pool.release(address)
    record.write({"cvpn-endpoint-1": tuple(pool.resting())})
    return leases


def test_everybody_comes_back_to_their_address_and_nobody_else_gets_one(record):
    before = stopped(record)
    pool = restored(record)
    others = [pool.acquire(f"stranger{n}") for n in range(pool.capacity - len(before))]
    assert not set(others) & set(before.values())
    with pytest.raises(PoolFull):
        pool.acquire("one stranger more")
    assert {holder: pool.acquire(holder) for holder in before} == before


def test_it_is_good_once(record):
    stopped(record)
    assert record.take().resting
    assert not record.take().resting


def test_it_is_not_good_for_long(record, monkeypatch):
    stopped(record)
    real = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + GOOD_FOR_S + 1)
    assert not record.take().resting


def test_addresses_of_another_client_cidr_are_left_out(record):
    stopped(record)
    assert not list(restored(record, IPv4Network("10.2.0.0/29")).resting())


def test_who_was_just_being_forgotten_is_in_it():
    pool = LeasePool(CIDR)
    for address in [pool.acquire(holder) for holder in ("alice", PHONE, "bob")]:
        pool.release(address)
    before = set(pool.resting())
    assert pool.begin_forgetting() and set(pool.resting()) == before


def test_who_writes_it_again_makes_it_no_younger(record, monkeypatch):
    stopped(record)
    before = record.take()
    real = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + GOOD_FOR_S - 1)
    record.write(before.resting, before.at)
    assert record.take() == before
    record.write(before.resting, before.at)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + GOOD_FOR_S + 1)
    assert not record.take().resting


@pytest.mark.parametrize(
    "text", ["", "[", "7", "{}", '{"at": NOW}', '{"at": NOW, "resting": {"an endpoint": [["x", "y"]]}}']
)
def test_what_cannot_be_read_is_said_and_holds_nothing_up(tmp_path, record, text, caplog):
    now = str(time.clock_gettime(time.CLOCK_BOOTTIME))
    (tmp_path / "leases.json").write_text(text.replace("NOW", now))
    assert not record.take().resting
    assert "leases.json cannot be read" in caplog.text


def test_a_directory_that_takes_no_record_is_said(tmp_path, caplog):
    LeaseRecord(tmp_path / "gone" / "leases.json").write({})
    assert "clients' connections begin anew" in caplog.text
