"""PostgreSQL under the store: how long it is waited for, and one writer at a time."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry

from cvpnd.store.outage import Loss

LOCK_TIMEOUT_S = 5
"""How long a change waits for another gateway's."""
CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 10.0
"""How long an answer is waited for. A server that is stopped, or whose disk hangs, has a kernel that goes on
acknowledging, and no timeout of its own. Longer than it waits for the lock, and with a new connection after that less
than systemd waits for the daemon's sign of life."""
SILENT_TIMEOUT_S = 15
"""A host that has vanished: TCP alone would wait for a quarter of an hour, and every change with it."""
IDLE_TIMEOUT_S = 60
"""A gateway whose host has vanished in the middle of a change, which holds the lock of all others. A change that lives
asks the database something far more often."""
WRITERS_LOCK = 0x63_76_70_6E_64
"""PostgreSQL's advisory lock that a writing transaction holds ("cvpnd")."""
_LOST = ("08", "25006", "53", "57P", "58")
"""How its codes begin where it is the server that cannot: connections, a standby, no room or memory, shutting down, the
system under it."""


class PatientConnection(psycopg.Connection[Any]):
    """Gives a server up that does not answer. What it was asked last may still happen once it goes on."""

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return super().wait(_within(gen, time.monotonic() + ANSWER_TIMEOUT_S), *args, **kwargs)
        except Unanswered:
            self.close()
            raise


class Unanswered(psycopg.OperationalError):
    pass


def _within(steps: Generator[Any, Any, Any], until: float) -> Generator[Any, Any, Any]:
    """The steps of a question, each of which begins when there is something to read or write, or after a tenth of a
    second without."""
    try:
        ready = yield next(steps)
        while True:
            if time.monotonic() >= until:
                raise Unanswered(f"it has not answered within {ANSWER_TIMEOUT_S:g} s")
            ready = yield steps.send(ready)
    except StopIteration as end:
        return end.value


def open_postgresql(location: URL) -> Engine:
    patience = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": SILENT_TIMEOUT_S * 1000,  # while it owes an acknowledgement; else it is asked for life:
        "keepalives_idle": SILENT_TIMEOUT_S // 3,
        "keepalives_interval": SILENT_TIMEOUT_S // 3,
        "keepalives_count": 2,
    }
    engine = create_engine(
        location,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        connect_args={key: value for key, value in patience.items() if key not in location.query},
    )
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _connect(
    _dialect: Dialect, _entry: ConnectionPoolEntry, arguments: tuple[Any, ...], named: dict[str, Any]
) -> PatientConnection:
    return PatientConnection.connect(*arguments, **named)


def _on_begin(connection: Connection) -> None:
    """Of several gateways on one database one writes at a time, as in SQLite, and sees what the one before it wrote,
    whatever the server's default isolation is."""
    options = connection.get_execution_options()
    if options.get("writes") or "isolation_level" in options:  # both outlive one call (``Transaction``)
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT_S}s'")
    if options.get("writes"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")


def loss(error: BaseException) -> Loss | None:
    """None: the server does not like what it was asked, or another gateway's change takes too long."""
    if isinstance(error, (Unanswered, psycopg.errors.ConnectionTimeout)):
        return "hangs"
    if not isinstance(error, psycopg.Error):
        return None
    if error.sqlstate is None:  # it is not the server that says so
        return "refuses" if isinstance(error, psycopg.OperationalError) else None
    return "refuses" if error.sqlstate.startswith(_LOST) else None
