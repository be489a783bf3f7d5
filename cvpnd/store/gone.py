"""What was deleted lately, in its last state, for a while."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, insert, select

from cvpnd.store.database import Database
from cvpnd.store.tables import gone


class GoneStore(Database):
    def remember_gone(self, gone_id: str, view: Mapping[str, Any], now: float, *, kept_s: float) -> None:
        """Together with its deletion. What went longer ago than ``kept_s`` is forgotten on this occasion."""
        with self._write() as connection:
            connection.execute(delete(gone).where((gone.c.at < now - kept_s) | (gone.c.id == gone_id)))
            connection.execute(insert(gone).values(id=gone_id, view=dict(view), at=now))

    def gone(self, gone_id: str, since: float) -> Mapping[str, Any] | None:
        """If it went since then."""
        with self._read() as connection:
            row = connection.execute(select(gone.c.view).where(gone.c.id == gone_id, gone.c.at >= since)).one_or_none()
            return None if row is None else dict(row.view)
