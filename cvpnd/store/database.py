"""The database under the store: opening it, transactions, and errors in words.

SQLite and PostgreSQL behave alike: a writing transaction is the only one from its beginning, so that it cannot fail for
another in the middle, and is on disk when it is over.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cvpnd.store import sqlite
from cvpnd.store.actor import Actor, acting
from cvpnd.store.outage import Availability, Loss, Outage
from cvpnd.store.schema import UnknownSchema, migrate, revision_of
from cvpnd.store.sealing import MADE, Seal, SealError
from cvpnd.store.tables import audit, gone, sealing

log = logging.getLogger(__name__)

COMPARED_EVERY_S = 60.0
LEAST_ROOM = 64 * 1024
"""For which a server that was out of it must have room again before it is said to be usable."""
UPGRADE_TOGETHER = "install that gateway's version here too, as those on one database are upgraded together"
_EXAMPLES = "write sqlite:////var/lib/cvpnd/state.db or postgresql://user@host/cvpnd"


class StoreError(Exception):
    """The store cannot be opened, read or written; the text says which and why. Nothing was changed."""


class StoreUnavailable(StoreError):
    """The database cannot be used now, whatever it is asked."""


class SchemaTooNew(StoreError):
    """A newer cvpnd made this database."""


_joined: ContextVar[Transaction | None] = ContextVar("joined", default=None)


def _joined_connection() -> Connection | None:
    """Not of a change that is stored: what it made the event loop call, like a new endpoint's listener, is called with
    its context for as long as it lives. What was taken back is done for, also for a thread that comes late."""
    transaction = _joined.get()
    return None if transaction is None or transaction.committed else transaction.connection


class Transaction:
    """A transaction that outlives one call: what is done inside ``joined()`` is part of it. Ended exactly once,
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
        """Raises ``StoreError``; then nothing of it has happened, unless the text says that this is not known."""
        asked = False
        try:
            with self._database.named_errors():
                asked = not getattr(self.connection.connection.dbapi_connection, "closed", False)
                self.connection.commit()
            self.committed = True
        except StoreUnavailable as error:
            if not self._database.is_shared or not asked:
                raise
            raise StoreUnavailable(
                f"{error}; whether the change was made is not known until it can be used again: look then"
            ) from error
        finally:
            self.rollback()

    def rollback(self) -> None:
        """Raises nothing: what is in force has yet to be taken back, and a server that does not answer drops the
        transaction with its connection."""
        with contextlib.suppress(SQLAlchemyError):
            self.connection.close()


class Database:
    """Synchronous; call it from a thread (``asyncio.to_thread``). Any number of threads may."""

    def __init__(self, engine: Engine, loss: Callable[[BaseException], Loss | None], name: str, key_file: Path) -> None:
        """Use ``open``. ``loss``: whether a driver's error means that the database cannot be used."""
        self._engine = engine
        self._name = name
        self._loss = loss
        self._availability = Availability()
        self.key_file = key_file
        self._seal: Seal | None = None
        self._schema = ""
        self._compare_at = 0.0
        self.other_schema = ""
        """To which another gateway has brought it since: one with a newer cvpnd. What is asked of it here may fail, or
        not be what that one means."""

    @classmethod
    def open(cls, url: str, key_file: Path | None = None) -> Self:
        """Open the database, make it (an SQLite file: directory 0750, file 0640) if it is not there, and bring its
        schema up to date. ``key_file`` seals secrets; by default it lies beside an SQLite file.

        Raises ``StoreError``, ``SchemaTooNew`` among them."""
        location = _parse(url)
        key_file = key_file or default_key_file(url)
        if location.get_backend_name() == "sqlite":
            (engine, loss), name = _open_sqlite(location, key_file), str(location.database)
        else:
            (engine, loss), name = _open_postgresql(location), location.render_as_string(hide_password=True)
        database = cls(engine, loss, name, key_file)
        try:
            with database._write() as connection:
                database._schema = migrate(connection)
        except UnknownSchema as error:
            database.close()
            raise SchemaTooNew(
                f"{name}: {error}; install that version again, or restore the backup made before it"
            ) from None
        except StoreError as error:
            database.close()
            raise StoreError(f"{error}{sqlite.advice(getattr(error.__cause__, 'orig', None))}") from error
        database._availability.opened = True
        return database

    def close(self) -> None:
        self._engine.dispose()

    @property
    def is_shared(self) -> bool:
        """Other gateways may be changing it too; SQLite's file is one gateway's."""
        return self._engine.dialect.name == "postgresql"

    @property
    def outage(self) -> Outage | None:
        """None: the database can be used, as far as anybody who asked it knows."""
        return self._availability.outage

    def check(self) -> None:
        """Whether the database can be used, asked of one that hangs too. Raises ``StoreUnavailable``."""
        if not self.is_shared:
            self._check_disk()
        if self.outage is None:
            if self.is_shared and time.monotonic() >= self._compare_at:
                self._compare_schema()
            return
        if self.outage.loss == "corrupt":
            raise StoreUnavailable(self.outage.reason)
        with (
            self.named_errors(whatever=True),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
            if self.is_shared:  # and so that it needs room, which a full disk has for that one row
                with connection.begin_nested() as trial:
                    ballast = {"id": "ballast", "view": secrets.token_hex(LEAST_ROOM), "at": 0.0}
                    connection.execute(insert(gone).values(**ballast))
                    trial.rollback()
        self._availability.found()

    def _compare_schema(self) -> None:
        self._compare_at = time.monotonic() + COMPARED_EVERY_S
        with self._read() as connection:
            found = str(revision_of(connection))
        if found != self._schema and found != self.other_schema:
            log.critical(
                "another gateway has brought %s to schema %s, and this cvpnd knows %s: %s",
                self._name, found, self._schema, UPGRADE_TOGETHER,
            )  # fmt: skip
        self.other_schema = "" if found == self._schema else found

    def begin(self) -> Transaction:
        """Raises ``StoreError``."""
        if not self.is_shared:
            self._check_disk()
        return self._begin(writes=True)

    def begin_reading(self) -> Transaction:
        """Sees what is shared as of one moment, and keeps nobody from changing it. Raises ``StoreError``."""
        return self._begin(isolation_level="REPEATABLE READ")

    def _begin(self, **options: Any) -> Transaction:
        with self.named_errors():
            connection = self._engine.connect().execution_options(**options)
            try:
                connection.begin()
            except BaseException:
                connection.close()
                raise
            return Transaction(self, connection)

    def _check_disk(self) -> None:
        if (problem := sqlite.problem_with_disk(Path(self._name))) is not None:
            self._availability.lost("refuses", f"{self._name}: {problem}")
            raise StoreUnavailable(f"{self._name}: {problem}")

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
    def named_errors(self, *, whatever: bool = False) -> Iterator[None]:
        """``whatever``: also ask a database that hangs. Else one at a time waits for it (``check``), and not every
        thread, nor whoever waits for a change's end, one after the other; one that is corrupt is asked no more."""
        if not whatever and (outage := self.outage) is not None and outage.loss != "refuses":
            raise StoreUnavailable(outage.reason)
        try:
            yield
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            text = f"{self._name}: {' '.join(str(reason).split())}"
            if (loss := self._loss(reason)) is not None:
                if loss == "corrupt" and self._availability.opened:
                    text += sqlite.advice(reason)
                self._availability.lost(loss, text)
                raise StoreUnavailable(text) from error
            raise StoreError(text) from error

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


_Opened = tuple[Engine, Callable[[BaseException], Loss | None]]


def _open_sqlite(location: URL, key_file: Path) -> _Opened:
    try:
        return sqlite.open_sqlite(location, key_file), sqlite.loss
    except sqlite.UnusableFile as error:
        raise StoreError(f"{location.database}: {error}") from None


def _open_postgresql(location: URL) -> _Opened:
    try:
        from cvpnd.store import postgresql
    except ImportError:
        raise StoreError("PostgreSQL needs its driver: pip install 'cvpnd[postgresql]'") from None
    return postgresql.open_postgresql(location), postgresql.loss
