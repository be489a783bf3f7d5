"""Codes that RADIUS servers have found right, so that none lets anybody in twice, on whichever gateway. Nothing of it
is a change that anybody audits."""

from __future__ import annotations

import hmac
import struct

from sqlalchemy import delete, insert, select

from cvpnd.secret import Secret
from cvpnd.store.secrets import SecretStore
from cvpnd.store.tables import radius_code

CLOCKS_DIFFER_S = 60.0
"""The steady ones of gateways on one database: a code counts as taken for so much longer."""


class RadiusCodeStore(SecretStore):
    def take_radius_code(self, directory: str, username: str, code: Secret, until: float, now: float) -> bool:
        """False: it has let this user in before, and is not to do so again yet. Until then a digest of it is kept, on
        which nobody can try codes without a secret of the gateway's. Times are those of the steady clock."""
        digesting = hmac.new(self.gateway_secret("radius-codes"), digestmod="sha256")
        for word in (directory.encode(), username.encode(), code.view()):
            digesting.update(struct.pack(">I", len(word)))
            digesting.update(word)
        digest = digesting.hexdigest()
        with self._write() as connection:
            connection.execute(delete(radius_code).where(radius_code.c.until <= now - CLOCKS_DIFFER_S))
            if (
                connection.execute(select(radius_code.c.until).where(radius_code.c.digest == digest)).first()
                is not None
            ):
                return False
            connection.execute(insert(radius_code).values(digest=digest, until=until))
            return True
