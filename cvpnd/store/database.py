"""The database under the store: opening it, transactions, and errors in words.

SQLite and PostgreSQL behave alike: a writing transaction is the only one from its beginning, so that it cannot fail for
another in the middle, and is on disk when it is over.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from cvpnd.store.actor import Actor, acting
from cvpnd.store.schema import UnknownSchema, migrate
from cvpnd.store.sealing import MADE, Seal, SealError
from cvpnd.store.tables import audit, sealing

BUSY_TIMEOUT_S = 5
"""How long a change waits for another process's (a backup, a second ``cvpnd`` at its end)."""
LEAST_SPACE = 256 * 1024
"""On the disk, before a change is begun: far more than one writes."""
SILENT_TIMEOUT_S = 15
"""A PostgreSQL whose host has vanished: TCP alone would wait for a quarter of an hour, and every change with it."""
IDLE_TIMEOUT_S = 60
"""A gateway whose host has vanished in the middle of a change, which holds the lock of all others. A change that lives
asks the database something far more often."""
WRITERS_LOCK = 0x63_76_70_6E_64
"""PostgreSQL's advisory lock that a writing transaction holds ("cvpnd")."""
_EXAMPLES = "write sqlite:////var/lib/cvpnd/state.db or postgresql://user@host/cvpnd"


class StoreError(Exception):
    """The store cannot be opened, read or written; the text says which and why. Nothing was changed."""


class SchemaTooNew(StoreError):
    """A newer cvpnd made this database."""


_joined: ContextVar[Transaction | None] = ContextVar("joined", default=None)


def _joined_connection() -> Connection | None:
    """Not of a change that is stored: what it made the event loop call, like a new endpoint's listener, is called with
    its context for as long as it lives. What was taken back is done for, also for a thread that comes late."""
    transaction = _joined.get()
    return None if transaction is None or transaction.committed else transaction.connection


class Transaction:
    """A writing transaction that outlives one call: what is done inside ``joined()`` is part of it. Ended exactly once,
    by ``commit`` or ``rollback``; if the process dies before, nothing of it has happened."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self.connection = connection
        self.committed = False

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """For this task and the threads that it waits for."""
        token = _joined.set(self)
        try:
            yield
        finally:
            _joined.reset(token)

    def commit(self) -> None:
        """Raises ``StoreError``; then nothing of it has happened."""
        try:
            with self._database.named_errors():
                self.connection.commit()
            self.committed = True
        finally:
            self.connection.close()

    def rollback(self) -> None:
        self.connection.close()


class Database:
    """Synchronous; call it from a thread (``asyncio.to_thread``). Any number of threads may."""

    def __init__(self, engine: Engine, name: str, key_file: Path) -> None:
        """Use ``open``."""
        self._engine = engine
        self._name = name
        self.key_file = key_file
        self._seal: Seal | None = None

    @classmethod
    def open(cls, url: str, key_file: Path | None = None) -> Self:
        """Open the database, make it (an SQLite file: directory 0750, file 0640) if it is not there, and bring its
        schema up to date. ``key_file`` seals secrets; by default it lies beside an SQLite file.

        Raises ``StoreError``, ``SchemaTooNew`` among them."""
        location = _parse(url)
        if location.get_backend_name() == "sqlite":
            engine, name = _open_sqlite(location), str(location.database)
        else:
            engine, name = _open_postgresql(location), location.render_as_string(hide_password=True)
        database = cls(engine, name, key_file or default_key_file(url))
        try:
            with database._write() as connection:
                migrate(connection)
        except UnknownSchema as error:
            database.close()
            raise SchemaTooNew(
                f"{name}: {error}; install that version again, or restore the backup made before it"
            ) from None
        except StoreError:
            database.close()
            raise
        return database

    def close(self) -> None:
        self._engine.dispose()

    def begin(self) -> Transaction:
        """Raises ``StoreError``."""
        if self._engine.dialect.name == "sqlite":
            self._check_space()
        with self.named_errors():
            connection = self._engine.connect().execution_options(writes=True)
            try:
                connection.begin()
            except BaseException:
                connection.close()
                raise
            return Transaction(self, connection)

    def _check_space(self) -> None:
        """SQLite writes at the commit, and by then the change is in force: a disk that will not take it is found out
        before, so that no session ends for a change that has to be taken back."""
        try:
            disk = os.statvfs(Path(self._name).parent)
        except OSError as error:
            raise StoreError(f"{self._name}: {error.strerror}") from None
        if disk.f_flag & os.ST_RDONLY:
            raise StoreError(f"{self._name}: the file system is read-only")
        if disk.f_bavail * disk.f_frsize < LEAST_SPACE:
            raise StoreError(f"{self._name}: the disk is full: less than {LEAST_SPACE // 1024} kB are left")

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        with self.named_errors():
            if (connection := _joined_connection()) is not None:
                yield connection
                return
            with self._engine.connect() as connection:
                yield connection

    @contextlib.contextmanager
    def _write(self) -> Iterator[Connection]:
        """The transaction that is joined; else one of its own, which has the write lock from its beginning."""
        with self.named_errors():
            if (connection := _joined_connection()) is not None:
                with connection.begin_nested():
                    yield connection
                return
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield connection

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise StoreError(f"{self._name}: {str(reason).strip()}") from error

    def _record(
        self,
        connection: Connection,
        action: str,
        details: Mapping[str, Any],
        actor: Actor | None = None,
        now: float | None = None,
    ) -> None:
        """The audit record of a change; in its transaction."""
        self._record_all(connection, action, [details], actor, now)

    def _record_all(
        self,
        connection: Connection,
        action: str,
        details: Sequence[Mapping[str, Any]],
        actor: Actor | None = None,
        now: float | None = None,
    ) -> None:
        """One record for each of many changes of a kind."""
        actor = actor or acting.get()
        common = {"at": time.time() if now is None else now, "who": actor.who, "action": action, "source": actor.source}
        connection.execute(insert(audit), [{**common, "details": dict(each)} for each in details])

    # -- secrets --------------------------------------------------------------------------------------------

    def _closed(self, connection: Connection, secret: bytes, row: str) -> bytes:
        return self._sealing(connection, make=True).close(secret, row)

    def _opened(self, connection: Connection, sealed: bytes, row: str) -> bytes:
        try:
            return self._sealing(connection, make=False).open(sealed, row)
        except SealError as error:
            raise StoreError(f"{self._name}: {error}") from None

    def _sealing(self, connection: Connection, *, make: bool) -> Seal:
        """The first secret makes the key file; from then on the database knows which one it is."""
        if self._seal is not None:
            return self._seal
        try:
            proof = connection.execute(select(sealing.c.proof)).scalar()
            seal = Seal.of_file(self.key_file, make=make and proof is None)
            if proof is not None:
                _check_key(seal, proof, self.key_file)
            elif make:
                connection.execute(insert(sealing).values(id=1, proof=seal.close(MADE, "sealing")))
                return seal  # not kept before this transaction is over: it may be undone
        except SealError as error:
            raise StoreError(str(error)) from None
        self._seal = seal
        return seal


def default_key_file(url: str) -> Path:
    location = _parse(url)
    if location.get_backend_name() == "sqlite":
        return Path(str(location.database)).with_suffix(".key")
    return Path("/var/lib/cvpnd/state.key")


def _check_key(seal: Seal, proof: bytes, path: Path) -> None:
    try:
        seal.open(proof, "sealing")
    except SealError:
        raise SealError(f"{path}: is the key of another state database; put this one's backup there") from None


def _parse(url: str) -> URL:
    try:
        location = make_url(url)
    except ArgumentError:
        raise StoreError(f"{url}: not a database URL; {_EXAMPLES}") from None
    backend = location.get_backend_name()
    if backend == "postgresql":
        return location.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        shown = location.render_as_string(hide_password=True)
        raise StoreError(f"{shown}: only SQLite and PostgreSQL are supported; {_EXAMPLES}")
    if not location.database or location.database == ":memory:" or location.database.startswith("file:"):
        raise StoreError(f"{url}: name a file; write sqlite:////var/lib/cvpnd/state.db")
    return location


# -- SQLite -------------------------------------------------------------------------------------------------


def _open_sqlite(location: URL) -> Engine:
    path = Path(str(location.database))
    try:
        _prepare_file(path)
    except OSError as error:
        raise StoreError(f"{path}: the state database cannot be made: {error.strerror}") from None
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


# -- PostgreSQL ---------------------------------------------------------------------------------------------


def _open_postgresql(location: URL) -> Engine:
    patience = {
        "connect_timeout": BUSY_TIMEOUT_S,
        "tcp_user_timeout": SILENT_TIMEOUT_S * 1000,  # while it owes an acknowledgement; else it is asked for life:
        "keepalives_idle": SILENT_TIMEOUT_S // 3,
        "keepalives_interval": SILENT_TIMEOUT_S // 3,
        "keepalives_count": 2,
    }
    try:
        engine = create_engine(
            location,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
            connect_args={key: value for key, value in patience.items() if key not in location.query},
        )
    except (ImportError, NoSuchModuleError):
        raise StoreError("PostgreSQL needs its driver: pip install 'cvpnd[postgresql]'") from None
    event.listen(engine, "begin", _on_begin_postgresql)
    return engine


def _on_begin_postgresql(connection: Connection) -> None:
    """Of several gateways on one database one writes at a time, as in SQLite, and sees what the one before it wrote,
    whatever the server's default isolation is."""
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_S}s'")
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")
