"""What a database can do to whoever asks it: hang, go away, come back."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
from helpers.postgresql import PostgreSql, installed

from cvpnd.store import Store, StoreUnavailable

pytest.importorskip("psycopg")
import psycopg

from cvpnd.store import database
from cvpnd.store import postgresql as backend

ENDPOINT = "cvpn-endpoint-0123456789abcdef0"
V4, V6 = ip_network("10.30.0.0/16"), ip_network("fd00::/8")
PATIENCE_S = 1.0


@contextmanager
def paused(server: PostgreSql) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "ANSWER_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(backend, "CONNECT_TIMEOUT_S", 2)


def test_a_server_that_is_stopped_is_given_up_and_found_again(
    postgresql: PostgreSql, key_file: Path, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cvpnd")
    with closing(Store.open(postgresql.new_database("stopped"), key_file)) as store:
        store.add_rule(ENDPOINT, V4, None)
        with paused(postgresql):
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable, match=r"has not answered within 1 s|timeout"):
                store.add_rule(ENDPOINT, V6, None)
            assert time.monotonic() - begun < PATIENCE_S + 2 + 5
            outage = store.outage
            assert outage is not None and outage.loss == "hangs"
            begun = time.monotonic()
            for _ in range(100):  # nobody waits for what is known to hang
                with pytest.raises(StoreUnavailable):
                    store.add_rule(ENDPOINT, V6, None)
            assert time.monotonic() - begun < 0.5
            with pytest.raises(StoreUnavailable):
                store.check()
        store.check()
        assert store.outage is None
        assert [rule.network for rule in store.rules()] == [V4]
        store.add_rule(ENDPOINT, V6, None)
    told = [record for record in caplog.records if "state database" in record.getMessage()]
    assert [record.levelname for record in told] == ["CRITICAL", "CRITICAL"]
    assert "can be used again, after" in told[1].getMessage()


def test_a_server_that_stops_inside_a_change_leaves_nothing_of_it_and_at_its_end_may_have_made_it(
    postgresql: PostgreSql, key_file: Path, impatient: None
) -> None:
    with closing(Store.open(postgresql.new_database("inside"), key_file)) as store:
        for at_its_end in (False, True):
            change = store.begin()
            with change.joined():
                store.add_rule(ENDPOINT, V4, None)
                with paused(postgresql), pytest.raises(StoreUnavailable) as refused:
                    change.commit() if at_its_end else store.add_rule(ENDPOINT, V6, None)
            change.rollback()
            assert ("whether the change was made is not known" in str(refused.value)) is at_its_end
            store.check()
            assert len(store.rules()) == len(store.audit_records()), "all of it or nothing"
            assert at_its_end or store.rules() == []


def test_a_change_whose_end_was_not_asked_for_is_not_made_and_nobody_is_told_to_look(
    postgresql: PostgreSql, key_file: Path, impatient: None
) -> None:
    with closing(Store.open(postgresql.new_database("unasked"), key_file)) as store:
        for lost in ("another asked in vain", "the connection is closed"):
            change = store.begin()
            with change.joined():
                store.add_rule(ENDPOINT, V4, None)
            if lost.startswith("another"):
                with paused(postgresql), pytest.raises(StoreUnavailable):
                    store.rules()
            else:
                change.connection.connection.dbapi_connection.close()  # type: ignore[union-attr]
            with pytest.raises(StoreUnavailable) as refused:
                change.commit()
            assert "not known" not in str(refused.value), lost
            store.check()
            assert store.rules() == []


def test_a_change_is_taken_back_also_when_the_server_does_not_answer_that(
    postgresql: PostgreSql, key_file: Path, impatient: None
) -> None:
    """Else what it has put in force would stay so."""
    with closing(Store.open(postgresql.new_database("back"), key_file)) as store:
        change = store.begin()
        with change.joined():
            store.add_rule(ENDPOINT, V4, None)
        with paused(postgresql):
            change.rollback()
        store.check()
        assert store.rules() == []


def test_a_server_whose_disk_is_full_is_said_so_once_until_there_is_room(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not installed():
        pytest.skip("PostgreSQL is not installed (Debian package postgresql), or this is not root")
    with PostgreSql(disk_mib=80) as server, closing(Store.open(server.new_database("full"), key_file)) as store:
        store.add_rule(ENDPOINT, V4, None)
        with server.full():
            for attempt in range(3):
                with pytest.raises(StoreUnavailable, match=r"No space left on device .*[Cc]heck free disk space"):
                    for number in range(1000):
                        store.add_rule(ENDPOINT, V6, f"{attempt} {number} {'x' * 200}")
                with pytest.raises(StoreUnavailable, match="No space left"):
                    store.check()
            made = len(store.rules())
            assert made == len(store.audit_records(10_000)), "reading goes on, and each change was made or not"
        store.check()
        assert store.outage is None
        store.add_rule(ENDPOINT, V6, None)
        assert len(store.rules()) == made + 1
    told = [record.getMessage() for record in caplog.records if "state database" in record.getMessage()]
    assert len(told) == 2 and "can be used again" in told[1], told
    assert "\n" not in told[0]


def test_a_slow_server_that_answers_is_no_outage(postgresql: PostgreSql, key_file: Path, impatient: None) -> None:
    with closing(Store.open(postgresql.new_database("slow"), key_file)) as store:
        pauses = threading.Thread(target=lambda: (postgresql.pause(), time.sleep(0.2), postgresql.resume()))
        pauses.start()
        time.sleep(0.05)
        store.add_rule(ENDPOINT, V4, None)
        pauses.join()
        assert (store.outage, len(store.rules())) == (None, 1)


def test_a_server_that_crashes_and_comes_back_needs_nobody(postgresql: PostgreSql, key_file: Path) -> None:
    with closing(Store.open(postgresql.new_database("crashed"), key_file)) as store:
        store.add_rule(ENDPOINT, V4, None)
        postgresql.stop()
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match=r"refused|closed the connection"):
                    store.add_rule(ENDPOINT, V6, None)
        finally:
            postgresql.start()
        store.add_rule(ENDPOINT, V6, None)  # it refuses at once while it is away, so everybody may ask
        assert store.outage is not None
        store.check()
        assert (store.outage, len(store.rules())) == (None, 2)


def test_a_gateway_hears_that_a_newer_one_has_changed_the_database_under_it(
    postgresql: PostgreSql, key_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "COMPARED_EVERY_S", 0.0)
    url = postgresql.new_database("upgraded")
    with closing(Store.open(url, key_file)) as store, psycopg.connect(url, autocommit=True) as newer:
        store.check()
        assert store.other_schema == ""
        (before,) = newer.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
        newer.execute("UPDATE alembic_version SET version_num = '0999'")
        store.check()
        store.check()
        assert store.other_schema == "0999"
        (record,) = (each for each in caplog.records if each.name == database.__name__)
        assert "to schema 0999, and this cvpnd knows 0" in record.message and "upgraded together" in record.message
        newer.execute("UPDATE alembic_version SET version_num = %s", [before])
        store.check()
        assert store.other_schema == ""
