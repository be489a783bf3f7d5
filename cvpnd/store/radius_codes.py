"""Codes that RADIUS servers have found right, so that none lets anybody in twice, on whichever gateway. Nothing of it
is a change that anybody audits."""

from __future__ import annotations

import hmac
import struct

from sqlalchemy import delete, insert, select

from cvpnd.store.secrets import SecretStore
from cvpnd.store.tables import radius_code


class RadiusCodeStore(SecretStore):
    def take_radius_code(self, directory: str, username: str, code: bytes, until: float, now: float) -> bool:
        """False: it has let this user in before, and is not to do so again yet. Until then a digest of it is kept, on
        which nobody can try codes without a secret of the gateway's."""
        words = (directory.encode(), username.encode(), code)
        message = b"".join(struct.pack(">I", len(word)) + word for word in words)
        digest = hmac.digest(self.gateway_secret("radius-codes"), message, "sha256").hex()
        with self._write() as connection:
            connection.execute(delete(radius_code).where(radius_code.c.until <= now))
            taken = select(radius_code.c.until).where(radius_code.c.digest == digest)
            if connection.execute(taken).scalar() is not None:
                return False
            connection.execute(insert(radius_code).values(digest=digest, until=until))
            return True
