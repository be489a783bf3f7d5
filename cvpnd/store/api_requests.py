"""Signatures of changes that the API has taken: one that was recorded must not do its work again, here or at another
gateway, before a restart or after it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from cvpnd.store.database import Database
from cvpnd.store.tables import api_request


@dataclass(frozen=True, slots=True)
class SeenRequest:
    sender: str
    """Which connection it came by."""
    at: float
    """On the steady clock."""


class ApiRequestStore(Database):
    def see_request(self, signature: str, sender: str, now: float, *, kept_s: float) -> SeenRequest | None:
        """How it was seen first; None: just now. Those that were longer ago than ``kept_s`` are forgotten."""
        with self._write() as connection:
            connection.execute(delete(api_request).where(api_request.c.at < now - kept_s))
            row = connection.execute(
                select(api_request.c.sender, api_request.c.at).where(api_request.c.signature == signature)
            ).one_or_none()
            if row is not None:
                return SeenRequest(row.sender, row.at)
            connection.execute(insert(api_request).values(signature=signature, sender=sender, at=now))
            return None
