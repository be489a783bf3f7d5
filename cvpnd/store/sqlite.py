"""SQLite under the store: the file and its modes, who waits for whom, and what its disk can do to it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from cvpnd.store.outage import Loss

BUSY_TIMEOUT_S = 5
"""How long a change waits for another process's (a backup, a second ``cvpnd`` at its end)."""
LEAST_SPACE = 256 * 1024
"""On the disk, before a change is begun: far more than one writes."""
_LOST = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_RESTORE = "stop cvpnd and restore its backup, or move it away to begin without what is in it"
_OWN = "give it and its directory to the user that cvpnd runs as"


class UnusableFile(Exception):
    """The text says why, and what to do."""


def open_sqlite(location: URL, key_file: Path) -> Engine:
    """Raises ``UnusableFile``."""
    path = Path(str(location.database))
    try:
        made = _prepare_file(path)
        if path.is_dir():
            raise UnusableFile("is a directory; name a file in daemon.state")
        if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
            raise UnusableFile("its file system is read-only; mount it for writing, or name another in daemon.state")
        if not made:
            _check_not_emptied(path, key_file)
        _roll_back(path)
        _check_whole(path)
    except sqlite3.Error as error:
        raise UnusableFile(f"{error}{advice(error)}") from None
    except OSError as error:
        raise UnusableFile(f"the state database cannot be made: {error.strerror}; {_OWN}") from None
    engine = create_engine(location, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _prepare_file(path: Path) -> bool:
    """Whether there was none. SQLite would make it by the umask; its -wal and -shm files take this one's mode and
    owner."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        return False
    try:
        os.fchmod(file, 0o640)
    finally:
        os.close(file)
    return True


def _check_not_emptied(path: Path, key_file: Path) -> None:
    """A crash before anything was written leaves an empty file, but no key that seals what is in it."""
    wal = path.with_name(f"{path.name}-wal")
    if path.stat().st_size == 0 and key_file.exists() and not (wal.exists() and wal.stat().st_size):
        raise UnusableFile(f"is empty, and what {key_file} seals was in it; restore its backup, or move both away")


def _roll_back(path: Path) -> None:
    """Half a change, which a crash left where there was no WAL: who may only read cannot do that."""
    if path.with_name(f"{path.name}-journal").exists():
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
            connection.execute("SELECT name FROM sqlite_master").fetchall()


def _check_whole(path: Path) -> None:
    """All of its pages, before anything is written (0.5 s for a million audit records): what is damaged in the middle
    would be found years later, and made worse until then. Another program's database would become ours."""
    with contextlib.closing(
        sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
    ) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise UnusableFile(f"is damaged; {_RESTORE}")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "alembic_version" not in tables:
            raise UnusableFile("is the database of another program; name another file in daemon.state")


def advice(error: BaseException | None) -> str:
    """What to do, to be added to the text of an error at the start."""
    code = _code(error)
    if code in _CORRUPT:
        return f"; {_RESTORE}"
    return f"; {_OWN}" if code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN) else ""


def _on_connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # the driver's own idea of transactions leaves DDL out of them; BEGIN is ours (_on_begin)
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # an answered change survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def problem_with_disk(path: Path) -> str | None:
    """SQLite writes at the commit, and by then the change is in force: a disk that will not take it is found out
    before, so that no session ends for a change that has to be taken back."""
    try:
        disk = os.statvfs(path.parent)
    except OSError as error:
        return str(error.strerror)
    if disk.f_flag & os.ST_RDONLY:
        return "the file system is read-only"
    if disk.f_bavail * disk.f_frsize < LEAST_SPACE:
        return f"the disk is full: less than {LEAST_SPACE // 1024} kB are left"
    return None


def loss(error: BaseException) -> Loss | None:
    """None: somebody else uses the file, or it does not like what it was asked."""
    code = _code(error)
    if code in _CORRUPT:
        return "corrupt"
    return "refuses" if code in _LOST else None


def _code(error: BaseException | None) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)) & 0xFF
