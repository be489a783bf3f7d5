"""Which revocation lists of endpoints' files were in force. Nothing of it is a change that anybody audits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from cvpnd.store.database import Database
from cvpnd.store.tables import crl_edition

KEPT_S = 400 * 86_400.0
"""After a file was in use last, on the steady clock; who uses it says so every day."""


@dataclass(frozen=True, slots=True)
class StoredCrlEdition:
    source: str
    """Digest of its authority's name and key."""
    issuer: str
    this_update: float
    number: int | None


class CrlEditionStore(Database):
    def crl_editions(self, endpoint_id: str, path: str) -> list[StoredCrlEdition]:
        with self._read() as connection:
            table = crl_edition.c
            rows = connection.execute(
                select(table.source, table.issuer, table.this_update, table.number).where(
                    table.endpoint_id == endpoint_id, table.path == path
                )
            )
            return [
                StoredCrlEdition(
                    row.source, row.issuer, row.this_update, None if row.number is None else int(row.number, 16)
                )
                for row in rows
            ]

    def put_crl_editions(self, endpoint_id: str, path: str, editions: Sequence[StoredCrlEdition], now: float) -> None:
        """In place of all that there were of this file. ``now``: of the steady clock."""
        with self._write() as connection:
            table = crl_edition.c
            ours = (table.endpoint_id == endpoint_id) & (table.path == path)
            connection.execute(delete(crl_edition).where(ours | (table.at < now - KEPT_S)))
            rows = [
                {
                    "endpoint_id": endpoint_id,
                    "path": path,
                    "source": each.source,
                    "issuer": each.issuer,
                    "this_update": each.this_update,
                    "number": None if each.number is None else f"{each.number:x}",
                    "at": now,
                }
                for each in editions
            ]
            if rows:
                connection.execute(insert(crl_edition), rows)
