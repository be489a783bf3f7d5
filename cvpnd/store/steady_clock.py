"""How far the steady clock has come (``server/steady_clock.py``). Nothing of it is a change that anybody audits."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, update

from cvpnd.store.database import Database
from cvpnd.store.tables import steady_clock


@dataclass(frozen=True, slots=True)
class StoredClock:
    seconds: float
    wall: float
    """What the wall clock said when that was written."""


class SteadyClockStore(Database):
    def keep_clock(self, seconds: float, wall: float) -> StoredClock:
        """What was there before: that of another gateway may be ahead of ours, and then it stays."""
        with self._write() as connection:
            row = connection.execute(select(steady_clock)).one()
            connection.execute(update(steady_clock).values(seconds=max(seconds, row.seconds), wall=wall))
            return StoredClock(row.seconds, row.wall)
