"""Which tls-crypt-v2 client keys were handed out."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from cvpnd.store.actor import Actor
from cvpnd.store.database import Database
from cvpnd.store.tables import client_key

MOST_OF_ENDPOINT = 10_000
"""The latest are remembered. Keys go on being good without that."""


@dataclass(frozen=True, slots=True)
class StoredClientKey:
    """That a tls-crypt-v2 client key was handed out; the key itself is kept nowhere."""

    endpoint_id: str
    name: str
    serial: int
    created_at: float


class ClientKeyStore(Database):
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
            of_endpoint = client_key.c.endpoint_id == key.endpoint_id
            latest = select(client_key.c.id).where(of_endpoint).order_by(client_key.c.id.desc())
            forgotten = latest.offset(MOST_OF_ENDPOINT).limit(1).scalar_subquery()
            connection.execute(delete(client_key).where(of_endpoint, client_key.c.id <= forgotten))
            details = {what: value for what, value in values.items() if what != "created_at"}
            self._record(connection, "issue-client-key", details, actor, key.created_at)

    def client_keys(self) -> list[StoredClientKey]:
        """Those that were handed out last, oldest first."""
        with self._read() as connection:
            rows = connection.execute(select(client_key).order_by(client_key.c.id))
            return [StoredClientKey(row.endpoint_id, row.name, int(row.serial, 16), row.created_at) for row in rows]
