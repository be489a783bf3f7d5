"""The store on real SQLite files: transactions, audit, migrations, and what a disk can do to it."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from cvpnd.store import (
    Actor,
    AuditRecord,
    DuplicateRule,
    NoSuchRule,
    SchemaTooNew,
    Store,
    StoredClientKey,
    StoredRule,
    StoreError,
    acting,
)
from cvpnd.store.tables import metadata

ENDPOINT = "cvpn-endpoint-0123456789abcdef0"
V4, V6 = ip_network("10.30.0.0/16"), ip_network("2001:db8::/32")
ROOT = Actor("uid:0", "admin-socket pid:1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "state.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_rules_survive_closing_and_are_listed_by_endpoint_in_order(url: str) -> None:
    with closing(Store.open(url)) as store:
        first = store.add_rule(ENDPOINT, V6, "eng", "lab; 'quoted' ünïcode", now=5.5)
        second = store.add_rule(ENDPOINT, V4, None)
        other = store.add_rule("another", V4, None)
    assert first == StoredRule(ENDPOINT, V6, "eng", "lab; 'quoted' ünïcode", 5.5)
    with closing(Store.open(url)) as store:
        assert store.rules() == [first, second, other]
        assert store.rules(ENDPOINT) == [first, second]
        assert store.rules("none") == []


def test_a_rule_exists_once_also_for_all_users(url: str) -> None:
    with closing(Store.open(url)) as store:
        store.add_rule(ENDPOINT, V4, None)
        store.add_rule(ENDPOINT, V4, "eng")
        with pytest.raises(DuplicateRule, match=r"10\.30\.0\.0/16 for all users already"):
            store.add_rule(ENDPOINT, V4, None)
        with pytest.raises(DuplicateRule, match="for group eng already"):
            store.add_rule(ENDPOINT, V4, "eng", "another description")
        assert len(store.rules()) == 2
        assert len(store.audit_records()) == 2, "a refused change leaves no record"


def test_removing_takes_exactly_that_rule(url: str) -> None:
    with closing(Store.open(url)) as store:
        everybody = store.add_rule(ENDPOINT, V4, None)
        engineers = store.add_rule(ENDPOINT, V4, "eng")
        assert store.remove_rule(ENDPOINT, V4, None) == everybody
        assert store.rules() == [engineers]
        with pytest.raises(NoSuchRule, match=r"no rule 10\.30\.0\.0/16 for all users that was added at run time"):
            store.remove_rule(ENDPOINT, V4, None)
        with pytest.raises(NoSuchRule):
            store.remove_rule("another", V4, "eng")


def test_an_empty_group_is_not_a_way_to_everybody(url: str) -> None:
    with closing(Store.open(url)) as store:
        with pytest.raises(StoreError, match="authorization_rule_group_not_empty"):
            store.add_rule(ENDPOINT, V4, "")
        assert store.rules() == []


def test_every_change_is_recorded_with_who_and_whence(url: str) -> None:
    rule = {"endpoint_id": ENDPOINT, "network": "10.30.0.0/16", "group": "eng", "description": "d"}
    with closing(Store.open(url)) as store:
        store.add_rule(ENDPOINT, V4, "eng", "d", actor=ROOT, now=1.0)
        store.remove_rule(ENDPOINT, V4, "eng", now=2.0)
        assert store.audit_records() == [
            AuditRecord(2.0, "daemon", "revoke", "daemon", rule),
            AuditRecord(1.0, "uid:0", "authorize", "admin-socket pid:1", rule),
        ]
        assert store.audit_records(limit=1) == store.audit_records()[:1]


def test_client_keys_that_were_handed_out_are_kept_with_who_did_it(url: str) -> None:
    keys = [StoredClientKey(ENDPOINT, "alice", 2**160 - 1, 5.0), StoredClientKey("another", "bob", 7, 6.0)]
    with closing(Store.open(url)) as store:
        for key in keys:
            store.add_client_key(key, actor=ROOT)
    with closing(Store.open(url)) as store:
        assert store.client_keys() == keys
        details = {"endpoint_id": "another", "name": "bob", "serial": "7"}
        assert store.audit_records(1) == [AuditRecord(6.0, "uid:0", "issue-client-key", "admin-socket pid:1", details)]


def test_a_database_of_the_first_version_keeps_what_it_has(path: Path, url: str) -> None:
    with closing(Store.open(url)) as store:
        rule = store.add_rule(ENDPOINT, V4, "eng")
    with closing(sqlite3.connect(path)) as database:  # back to what 0.1.0 made
        database.executescript("DROP TABLE client_key; UPDATE alembic_version SET version_num = '0001'")
    with closing(Store.open(url)) as store:
        assert store.rules() == [rule]
        assert store.client_keys() == []


def test_the_actor_of_a_request_reaches_a_store_called_in_a_thread(url: str) -> None:
    async def request(store: Store) -> None:
        acting.set(ROOT)
        await asyncio.to_thread(store.add_rule, ENDPOINT, V4, None)

    with closing(Store.open(url)) as store:
        asyncio.run(request(store))
        assert store.audit_records()[0].who == "uid:0"


def test_modes_whatever_the_umask(path: Path, url: str) -> None:
    umask = os.umask(0)
    try:
        with closing(Store.open(url)) as store:
            store.add_rule(ENDPOINT, V4, None)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(umask)
    assert modes == {"state.db": 0o640, "state.db-wal": 0o640, "state.db-shm": 0o640}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_the_connection_has_the_pragmas(url: str) -> None:
    with closing(Store.open(url)) as store, store._read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_the_migrations_make_the_tables_that_the_code_describes(path: Path, url: str) -> None:
    Store.open(url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        # SQLite's reflection shows no expression in an index; the unique index is tested by what it refuses
        assert [
            difference
            for difference in compare_metadata(MigrationContext.configure(connection), metadata)
            if "authorization_rule_unique" not in str(difference)
        ] == []
    engine.dispose()


def test_a_newer_schema_is_refused_by_name_and_left_alone(path: Path, url: str) -> None:
    Store.open(url).close()
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '0999'")
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match=r"state\.db: schema 0999 is newer than this cvpnd, which knows .* up to 00"):
        Store.open(url)
    assert path.read_bytes() == before


def test_a_migration_that_fails_leaves_nothing(path: Path, url: str) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("CREATE TABLE audit (surprise TEXT)")  # the second table of the first migration
    with pytest.raises(StoreError, match="table audit already exists"):
        Store.open(url)
    with closing(sqlite3.connect(path)) as raw:
        tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"audit"}


def test_a_path_with_a_percent_sign_and_a_space_works(tmp_path: Path) -> None:
    with closing(Store.open(f"sqlite:///{tmp_path}/100% sure/state.db")) as store:
        store.add_rule(ENDPOINT, V4, None)
    assert (tmp_path / "100% sure" / "state.db").exists()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("nonsense", "not a database URL"),
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("postgresql+asyncpg://u:secret@db/cvpnd", r"u:\*\*\*@db/cvpnd: only SQLite is supported"),
        ("sqlite:////proc/no/such/state.db", "cannot be made"),
    ],
)
def test_an_unusable_url_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(StoreError, match=complaint):
        Store.open(url)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, url: str) -> None:
    path.parent.mkdir()
    path.write_bytes(b"precious" * 1000)
    with pytest.raises(StoreError, match="file is not a database"):
        Store.open(url)
    assert path.read_bytes() == b"precious" * 1000


def test_a_locked_database_is_an_error_and_then_works_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvpnd.store.store.BUSY_TIMEOUT_S", 0.1)
    with closing(Store.open(url)) as store:
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked"):
            store.add_rule(ENDPOINT, V4, None)
        assert store.rules() == []
        other.execute("ROLLBACK")
        other.close()
        store.add_rule(ENDPOINT, V4, None)
        assert len(store.rules()) == len(store.audit_records()) == 1


def test_many_threads_change_at_once_and_each_change_has_its_record(url: str) -> None:
    failures: list[BaseException] = []

    def change(number: int) -> None:
        try:
            for index in range(10):
                store.add_rule(ENDPOINT, ip_network(f"10.{number}.{index}.0/24"), None)
                store.remove_rule(ENDPOINT, ip_network(f"10.{number}.{index}.0/24"), None)
                store.add_rule(ENDPOINT, ip_network(f"10.{number}.{index}.0/24"), "eng")
        except BaseException as error:
            failures.append(error)

    with closing(Store.open(url)) as store:
        threads = [threading.Thread(target=change, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert (len(store.rules()), len(store.audit_records(limit=1000))) == (40, 120)


def test_processes_that_open_a_new_store_at_once_migrate_it_once(url: str) -> None:
    script = """
        import sys
        from cvpnd.store import Store
        print("ready", flush=True)
        sys.stdin.read()
        Store.open(sys.argv[1]).close()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), url]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(8)]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    assert [child.wait(60) for child in children] == [0] * 8
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).all() == [("0002",)]
    engine.dispose()


def test_killed_at_any_moment_rules_and_records_agree(path: Path, url: str) -> None:
    script = """
        import sys
        from ipaddress import ip_network
        from cvpnd.store import Store
        store = Store.open(sys.argv[1])
        number = len(store.rules())
        while True:
            store.add_rule("e", ip_network((number << 8, 24)), None)
            number += 1
            print(number, flush=True)
    """
    answered = 0
    for changes in (1, 2, 5, 9, 14):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), url], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(changes):
            answered = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        answered = max([answered, *(int(line) for line in child.stdout.read().split("\n")[:-1] if line)])
        child.stdout.close()
        child.wait()
        with closing(Store.open(url)) as store:
            rules, records = store.rules(), store.audit_records(limit=100_000)
        assert len(rules) == len(records) >= answered
        assert {str(rule.network) for rule in rules} == {record.details["network"] for record in records}


def test_a_full_disk_is_an_error_changes_nothing_and_reading_goes_on(path: Path, url: str) -> None:
    script = """
        import resource, signal, sys
        from ipaddress import ip_network
        from cvpnd.store import Store, StoreError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = Store.open(sys.argv[1])
        store.add_rule("e", ip_network("10.0.0.0/16"), None)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            store.add_rule("e", ip_network("10.1.0.0/16"), None)
        except StoreError as error:
            print("refused:", error)
        print(len(store.rules()), len(store.audit_records()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        store.add_rule("e", ip_network("10.1.0.0/16"), None)
        print(len(store.rules()), len(store.audit_records()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), url], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    refused, during, after = done.stdout.splitlines()
    assert refused.startswith(f"refused: {path}: ")
    assert (during, after) == ("1 1", "2 2")
