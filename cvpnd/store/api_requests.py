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


KEPT_LONGER = 20_000
"""Of the latest, so many are remembered whatever their age: a clock that is put back makes old ones good again, however
far it is put back."""


class ApiRequestStore(Database):
    def see_request(self, signature: str, sender: str, now: float, *, kept_s: float) -> SeenRequest | None:
        """How it was seen first; None: just now. Those that were longer ago than ``kept_s`` are forgotten once there
        are ``KEPT_LONGER`` later ones."""
        with self._write() as connection:
            latest = select(api_request.c.at).order_by(api_request.c.at.desc())
            earliest = connection.execute(latest.offset(KEPT_LONGER).limit(1)).scalar()
            if earliest is not None:
                old = (api_request.c.at <= earliest) & (api_request.c.at < now - kept_s)
                connection.execute(delete(api_request).where(old))
            row = connection.execute(
                select(api_request.c.sender, api_request.c.at).where(api_request.c.signature == signature)
            ).one_or_none()
            if row is not None:
                return SeenRequest(row.sender, row.at)
            connection.execute(insert(api_request).values(signature=signature, sender=sender, at=now))
            return None
