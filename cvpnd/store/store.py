"""``Store``: every change is one transaction together with its audit record."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from cvpnd.store.actor import Actor, acting
from cvpnd.store.schema import UnknownSchema, migrate
from cvpnd.store.tables import audit, authorization_rule, client_key

Network = IPv4Network | IPv6Network

BUSY_TIMEOUT_S = 5
"""How long a change waits for another process's (a backup, a second ``cvpnd`` at its end)."""


class StoreError(Exception):
    """The store cannot be opened, read or written; the text says which and why. Nothing was changed."""


class SchemaTooNew(StoreError):
    """A newer cvpnd made this database."""


class DuplicateRule(StoreError):
    """The endpoint has this rule already."""


class NoSuchRule(StoreError):
    """The endpoint does not have this rule."""


@dataclass(frozen=True, slots=True)
class StoredRule:
    endpoint_id: str
    network: Network
    group: str | None
    """None means all users."""
    description: str
    created_at: float


@dataclass(frozen=True, slots=True)
class StoredClientKey:
    """That a tls-crypt-v2 client key was handed out; the key itself is kept nowhere."""

    endpoint_id: str
    name: str
    serial: int
    created_at: float


@dataclass(frozen=True, slots=True)
class AuditRecord:
    at: float
    who: str
    action: str
    source: str
    details: Mapping[str, Any]


class Store:
    """Synchronous; call it from a thread (``asyncio.to_thread``). Any number of threads may."""

    def __init__(self, engine: Engine, name: str) -> None:
        """Use ``Store.open``."""
        self._engine = engine
        self._name = name

    @classmethod
    def open(cls, url: str) -> Self:
        """Open the database, make it (directory 0750, file 0640) if it is not there, and bring its schema up to date.

        Raises ``StoreError``, ``SchemaTooNew`` among them."""
        location = _parse(url)
        path = Path(str(location.database))
        try:
            _prepare_file(path)
        except OSError as error:
            raise StoreError(f"{path}: the state database cannot be made: {error.strerror}") from None
        engine = create_engine(location, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        store = cls(engine, str(path))
        try:
            with store._write() as connection:
                migrate(connection)
        except UnknownSchema as error:
            store.close()
            raise SchemaTooNew(
                f"{path}: {error}; install that version again, or restore the backup made before it"
            ) from None
        except StoreError:
            store.close()
            raise
        return store

    def close(self) -> None:
        self._engine.dispose()

    def rules(self, endpoint_id: str | None = None) -> list[StoredRule]:
        """All rules, or one endpoint's, oldest first."""
        query = select(authorization_rule).order_by(authorization_rule.c.id)
        if endpoint_id is not None:
            query = query.where(authorization_rule.c.endpoint_id == endpoint_id)
        with self._read() as connection:
            return [
                StoredRule(row.endpoint_id, ip_network(row.network), row.group_name, row.description, row.created_at)
                for row in connection.execute(query)
            ]

    def add_rule(
        self,
        endpoint_id: str,
        network: Network,
        group: str | None,
        description: str = "",
        *,
        actor: Actor | None = None,
        now: float | None = None,
    ) -> StoredRule:
        """Raises ``DuplicateRule`` or ``StoreError``. ``actor`` None is whoever ``acting`` says."""
        rule = StoredRule(endpoint_id, network, group, description, time.time() if now is None else now)
        with self._write() as connection:
            try:
                connection.execute(
                    insert(authorization_rule).values(
                        endpoint_id=endpoint_id,
                        network=str(network),
                        group_name=group,
                        description=description,
                        created_at=rule.created_at,
                    )
                )
            except IntegrityError as error:
                if "authorization_rule_unique" not in str(error.orig):
                    raise
                raise DuplicateRule(f"{endpoint_id} has the rule {_spell(network, group)} already") from None
            _record(connection, "authorize", _details(rule), actor, rule.created_at)
        return rule

    def remove_rule(
        self,
        endpoint_id: str,
        network: Network,
        group: str | None,
        *,
        actor: Actor | None = None,
        now: float | None = None,
    ) -> StoredRule:
        """The rule that was removed. Raises ``NoSuchRule`` or ``StoreError``."""
        table = authorization_rule
        with self._write() as connection:
            row = connection.execute(
                delete(table)
                .where(
                    table.c.endpoint_id == endpoint_id,
                    table.c.network == str(network),
                    table.c.group_name.is_not_distinct_from(group),
                )
                .returning(table.c.description, table.c.created_at)
            ).one_or_none()
            if row is None:
                raise NoSuchRule(f"{endpoint_id} has no rule {_spell(network, group)} that was added at run time")
            rule = StoredRule(endpoint_id, network, group, row.description, row.created_at)
            _record(connection, "revoke", _details(rule), actor, time.time() if now is None else now)
        return rule

    def add_client_key(self, key: StoredClientKey, *, actor: Actor | None = None) -> None:
        """Raises ``StoreError``."""
        values = {
            "endpoint_id": key.endpoint_id,
            "name": key.name,
            "serial": f"{key.serial:x}",
            "created_at": key.created_at,
        }
        with self._write() as connection:
            connection.execute(insert(client_key).values(values))
            details = {what: value for what, value in values.items() if what != "created_at"}
            _record(connection, "issue-client-key", details, actor, key.created_at)

    def client_keys(self) -> list[StoredClientKey]:
        """All that were ever handed out, oldest first."""
        with self._read() as connection:
            rows = connection.execute(select(client_key).order_by(client_key.c.id))
            return [StoredClientKey(row.endpoint_id, row.name, int(row.serial, 16), row.created_at) for row in rows]

    def audit_records(self, limit: int = 100) -> list[AuditRecord]:
        """The latest changes, newest first."""
        with self._read() as connection:
            rows = connection.execute(select(audit).order_by(audit.c.id.desc()).limit(limit))
            return [AuditRecord(row.at, row.who, row.action, row.source, row.details) for row in rows]

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._named_errors(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def _write(self) -> Iterator[Connection]:
        """A transaction that has the write lock from its beginning, so that it cannot fail for it in the middle."""
        with self._named_errors(), self._engine.execution_options(writes=True).begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise StoreError(f"{self._name}: {reason}") from error


def _parse(url: str) -> URL:
    try:
        location = make_url(url)
    except ArgumentError:
        raise StoreError(f"{url}: not a database URL; write sqlite:////var/lib/cvpnd/state.db") from None
    if location.get_backend_name() != "sqlite":
        shown = location.render_as_string(hide_password=True)
        raise StoreError(f"{shown}: only SQLite is supported; write sqlite:////var/lib/cvpnd/state.db")
    if not location.database or location.database == ":memory:" or location.database.startswith("file:"):
        raise StoreError(f"{url}: name a file; write sqlite:////var/lib/cvpnd/state.db")
    return location


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


def _record(connection: Connection, action: str, details: Mapping[str, Any], actor: Actor | None, now: float) -> None:
    actor = actor or acting.get()
    connection.execute(
        insert(audit).values(at=now, who=actor.who, action=action, source=actor.source, details=dict(details))
    )


def _details(rule: StoredRule) -> dict[str, Any]:
    return {
        "endpoint_id": rule.endpoint_id,
        "network": str(rule.network),
        "group": rule.group,
        "description": rule.description,
    }


def _spell(network: Network, group: str | None) -> str:
    return f"{network} for all users" if group is None else f"{network} for group {group}"
