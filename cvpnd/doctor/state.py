"""The state database, where no daemon runs whose status would say how it is: whether one could begin with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit

from cvpnd.doctor.disks import state_file
from cvpnd.doctor.facts import Facts
from cvpnd.doctor.findings import Finding, problem

PATIENCE_S = 3
HEADER = b"SQLite format 3\0"


def state(facts: Facts) -> Iterator[Finding]:
    if facts.config is None or facts.daemon is not None:
        return
    path = state_file(facts.config)
    if path is None:
        yield from _server(facts.config.daemon.state)
    elif path.is_file() and path.stat().st_size and (damage := _damage(path)):
        yield problem(
            "state", f"daemon.state: {path} {damage}: cvpnd does not start",
            "restore its backup (docs/backup.md); without one move it away, and what was made at run time is gone",
        )  # fmt: skip


def _damage(path: Path) -> str:
    """Nothing if it is whole. ``immutable``: no file appears beside it, which would be of whoever asks; without what a
    crash left to be written into it, only its beginning can be judged then."""
    with path.open("rb") as file:
        if file.read(len(HEADER)) != HEADER:
            return "is no database"
    unfinished = (path.with_name(f"{path.name}-{kind}") for kind in ("wal", "journal"))
    if any(each.exists() and each.stat().st_size for each in unfinished):
        return ""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return f"is damaged ({error})"
    return "" if found == "ok" else "is damaged"


def _server(url: str) -> Iterator[Finding]:
    """Whether it takes connections: that needs no password, which may be in the daemon's environment."""
    try:
        from psycopg import pq
    except ImportError:
        yield problem("state", "daemon.state is on PostgreSQL, whose driver is not here",
                      "pip install 'cvpnd[postgresql]'")  # fmt: skip
        return
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, f"connect_timeout={PATIENCE_S}")))
    asked = parts._replace(scheme="postgresql", query=query)
    if pq.PGconn.ping(asked.geturl().encode()) != pq.Ping.OK:
        where = parts.hostname or "this host"
        yield problem(
            "state", f"daemon.state: PostgreSQL on {where} takes no connections: cvpnd does not start",
            "is it running, and does its firewall let this host in? pg_isready asks it",
        )  # fmt: skip
