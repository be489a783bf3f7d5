"""What is SQLite's own: the file, its modes and pragmas, and what a disk can do to it."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path

import pytest

from cvpnd.store import SchemaTooNew, Store, StoreError, StoreUnavailable
from cvpnd.store.tables import metadata

ENDPOINT = "cvpn-endpoint-0123456789abcdef0"
V4 = ip_network("10.30.0.0/16")


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_a_database_of_the_first_version_keeps_what_it_has(path: Path, url: str) -> None:
    with closing(Store.open(url)) as store:
        rule = store.add_rule(ENDPOINT, V4, "eng")
    with closing(sqlite3.connect(path)) as database:  # back to what 0.1.0 made
        newer = [name for name in reversed(list(metadata.tables)) if name not in ("authorization_rule", "audit")]
        database.executescript("".join(f"DROP TABLE {name};" for name in newer))
        database.executescript("UPDATE alembic_version SET version_num = '0001'")
    with closing(Store.open(url)) as store:
        assert store.rules() == [rule]
        assert store.client_keys() == []


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
        raw.execute("CREATE TABLE alembic_version (version_num TEXT)")
        raw.execute("CREATE TABLE audit (surprise TEXT)")  # the second table of the first migration
    with pytest.raises(StoreError, match="table audit already exists"):
        Store.open(url)
    with closing(sqlite3.connect(path)) as raw:
        tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"alembic_version", "audit"}


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
        ("mysql://u:secret@db/cvpnd", r"u:\*\*\*@db/cvpnd: only SQLite and PostgreSQL are supported"),
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


def _overwrite_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(range(256)) * 160)


def _another_programs(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE customer (name TEXT)")


def _give_to_root(path: Path) -> None:
    path.chmod(0o600)


HARMS = {
    "is damaged; stop cvpnd and restore its backup": _overwrite_the_middle,
    "malformed; stop cvpnd and restore its backup": lambda path: os.truncate(path, path.stat().st_size // 2),
    "not a database; stop cvpnd and restore its backup": lambda path: path.write_bytes(b"precious" * 1000),
    "is empty, and what": lambda path: os.truncate(path, 0),
    "is the database of another program; name another file in daemon.state": _another_programs,
    "give it and its directory to the user that cvpnd runs as": _give_to_root,
}


def _filled(path: Path, url: str) -> None:
    with closing(Store.open(url)) as store:
        store.gateway_secret("auth-token")
        for number in range(300):
            store.add_rule(ENDPOINT, V4, f"{number} {'x' * 200}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def test_a_file_that_was_moved_away_is_begun_anew_with_the_key_that_there_is(path: Path, url: str) -> None:
    with closing(Store.open(url)) as store:
        secret = store.gateway_secret("auth-token")
    path.rename(path.with_name("away"))
    with closing(Store.open(url)) as store:
        assert store.gateway_secret("auth-token") != secret
    path.unlink()
    path.with_name("away").rename(path)
    with closing(Store.open(url)) as store:
        assert store.gateway_secret("auth-token") == secret


def test_half_a_change_that_a_crash_left_without_a_wal_is_rolled_back(path: Path, url: str, tmp_path: Path) -> None:
    _filled(path, url)
    crashed = tmp_path / "crashed"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode = DELETE", "cache_size = 1"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM authorization_rule")
        crashed.mkdir()
        for each in path.parent.iterdir():
            shutil.copy(each, crashed)
    assert (crashed / f"{path.name}-journal").stat().st_size > 0
    with closing(Store.open(f"sqlite:///{crashed / path.name}")) as store:
        assert len(store.rules(ENDPOINT)) == 300


@pytest.mark.parametrize("said", HARMS)
def test_the_daemon_does_not_start_on_a_file_that_is_not_whole_and_ours_and_leaves_it_alone(
    path: Path, url: str, tmp_path: Path, said: str
) -> None:
    _filled(path, url)
    HARMS[said](path)
    before = path.read_bytes()
    config = tmp_path / "cvpnd.toml"
    config.write_text(f'[daemon]\nstate = "{url}"\nadmin_socket = "{tmp_path}/s"\nlog_directory = "{tmp_path}/log"\n')
    command = [sys.executable, "-P", "-m", "cvpnd", "run", "--config", str(config)]
    if HARMS[said] is _give_to_root:
        if os.geteuid():
            pytest.skip("only root can be somebody else")
        for each in (tmp_path, *tmp_path.parents[:-1], path.parent):
            each.chmod(each.stat().st_mode | 0o755)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 1
    assert f"{path}: " in done.stderr and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "sessions go on" not in done.stderr
    assert path.read_bytes() == before


def test_a_file_that_is_damaged_meanwhile_is_neither_believed_nor_written_to_again(
    path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    _filled(path, url)
    with closing(Store.open(url)) as store:
        store.close()  # its connection, which has read all of it
        _overwrite_the_middle(path)
        damaged = path.read_bytes()
        with pytest.raises(StoreUnavailable, match="malformed; stop cvpnd and restore its backup"):
            store.rules()
        for ask in (store.check, store.begin, store.rules, store.audit_extent):
            with pytest.raises(StoreUnavailable, match="restore its backup"):
                ask()
    assert path.read_bytes() == damaged
    assert len(caplog.records) == 1 and caplog.records[0].levelname == "CRITICAL"


def test_a_locked_database_is_an_error_and_then_works_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvpnd.store.sqlite.BUSY_TIMEOUT_S", 0.1)
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
