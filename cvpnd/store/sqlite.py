"""SQLite under the store: the file and its modes, who waits for whom, and what its disk can do to it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

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
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
}


def open_sqlite(location: URL) -> Engine:
    """Raises ``OSError``."""
    _prepare_file(Path(str(location.database)))
    engine = create_engine(location, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _prepare_file(path: Path) -> None:
    """SQLite would make the file by the umask; its -wal and -shm files take this one's mode and owner."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        return
    try:
        os.fchmod(file, 0o640)
    finally:
        os.close(file)


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
    return "refuses" if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _LOST else None
