"""The audit record: who changed what, and who was refused a change. What is old goes, and what is too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select

from cvpnd.store.database import Database
from cvpnd.store.tables import audit

REFUSED = "refused"
"""The action of a record behind which nothing has changed."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    at: float
    who: str
    action: str
    source: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditExtent:
    """How much of it there is."""

    records: int
    since: float | None
    """The oldest one's time; None: there is none."""


class AuditStore(Database):
    def record_refusal(self, details: Mapping[str, Any]) -> None:
        """Somebody known asked for a change that is not made."""
        with self._write() as connection:
            self._record(connection, REFUSED, details)

    def latest_change(self) -> int:
        """Another number after each change, whoever made it."""
        with self._read() as connection:
            latest = select(func.max(audit.c.id)).where(audit.c.action != REFUSED)
            return connection.execute(latest).scalar() or 0

    def audit_records(self, limit: int = 100) -> list[AuditRecord]:
        """The latest changes, newest first."""
        with self._read() as connection:
            rows = connection.execute(select(audit).order_by(audit.c.id.desc()).limit(limit))
            return [AuditRecord(row.at, row.who, row.action, row.source, row.details) for row in rows]

    def audit_extent(self) -> AuditExtent:
        with self._read() as connection:
            count, since = connection.execute(select(func.count(), func.min(audit.c.at)).select_from(audit)).one()
            return AuditExtent(count, since)

    def audit_shares(self) -> dict[str, int]:
        """How many records there are of whom."""
        with self._read() as connection:
            rows = connection.execute(select(audit.c.who, func.count().label("records")).group_by(audit.c.who))
            return {row.who: row.records for row in rows}

    def forget_audit(self, most: int, *, before: float | None = None, who: str | None = None) -> int:
        """The oldest of those that were made before then, or by them. How many that were; the newest of all stays, so
        that its number is given to no other."""
        newest = select(func.max(audit.c.id)).scalar_subquery()
        old = select(audit.c.id).where(audit.c.id < newest).limit(most)
        if before is not None:
            old = old.where(audit.c.at < before).order_by(audit.c.at)
        if who is not None:
            old = old.where(audit.c.who == who).order_by(audit.c.id)
        with self._write() as connection:
            return connection.execute(delete(audit).where(audit.c.id.in_(old.scalar_subquery()))).rowcount


def fair_share(shares: Mapping[str, int], most: int) -> int:
    """How many records each may have so that all together are no more than ``most``: who has fewer keeps all of them,
    and nobody's flood drives out the records of others."""
    left, sharers = most, len(shares)
    for records in sorted(shares.values()):
        if records * sharers > left:
            return left // sharers
        left, sharers = left - records, sharers - 1
    return most
