"""Secrets of the gateway itself, each made when it is first asked for."""

from __future__ import annotations

import secrets

from sqlalchemy import insert, select

from cvpnd.store.database import Database
from cvpnd.store.tables import gateway_secret

SECRET_BYTES = 32


class SecretStore(Database):
    def gateway_secret(self, name: str) -> bytes:
        """The same after every restart, and on every gateway with this database."""
        with self._read() as connection:
            sealed = connection.execute(select(gateway_secret.c.secret).where(gateway_secret.c.name == name)).scalar()
            if sealed is not None:
                return self._opened(connection, sealed, _row(name))
        with self._write() as connection:
            sealed = connection.execute(select(gateway_secret.c.secret).where(gateway_secret.c.name == name)).scalar()
            if sealed is not None:  # another gateway was first
                return self._opened(connection, sealed, _row(name))
            secret = secrets.token_bytes(SECRET_BYTES)
            connection.execute(
                insert(gateway_secret).values(name=name, secret=self._closed(connection, secret, _row(name)))
            )
            return secret


def _row(name: str) -> str:
    return f"gateway secret {name}"
