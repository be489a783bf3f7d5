"""Access keys of the API. To verify a signature takes the secret itself, so it is kept, sealed."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from cvpnd.store.database import Database
from cvpnd.store.tables import access_key


@dataclass(frozen=True, slots=True)
class StoredAccessKey:
    id: str
    name: str
    role: str
    """``admin`` or ``read-only``."""
    created_at: float


class AccessKeyStore(Database):
    def access_keys(self) -> list[StoredAccessKey]:
        """Oldest first."""
        table = access_key.c
        with self._read() as connection:
            rows = connection.execute(select(table.id, table.name, table.role, table.created_at).order_by(table.number))
            return [StoredAccessKey(*row) for row in rows]

    def access_secrets(self) -> dict[str, bytes]:
        """By key id."""
        with self._read() as connection:
            rows = connection.execute(select(access_key.c.id, access_key.c.secret)).all()
            return {row.id: self._opened(connection, row.secret, _row(row.id)) for row in rows}

    def add_access_key(self, new: StoredAccessKey, secret: bytes) -> None:
        with self._write() as connection:
            values = {"id": new.id, "name": new.name, "role": new.role}
            sealed = self._closed(connection, secret, _row(new.id))
            connection.execute(insert(access_key).values(**values, secret=sealed, created_at=new.created_at))
            self._record(connection, "create-access-key", values, now=new.created_at)

    def delete_access_key(self, key_id: str) -> bool:
        """Whether there was one."""
        with self._write() as connection:
            if not connection.execute(delete(access_key).where(access_key.c.id == key_id)).rowcount:
                return False
            self._record(connection, "delete-access-key", {"id": key_id})
            return True


def _row(key_id: str) -> str:
    return f"access key {key_id}"
