"""Logins at identity providers: what has been used and counts no second time, who has logged in and may come back with
a token, and the metadata that was fetched last. Nothing of it is a change that anybody audits."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from cvpnd.store.database import Database
from cvpnd.store.tables import saml_login, saml_metadata, saml_spent

KEPT_LONGER_S = 7 * 86_400.0
"""Than the gateway that wrote it says. That is what the identity provider and the wall clock made of it, which may be
put back; and the steady clock of another gateway on this database may be ahead."""
METADATA_KEPT_S = 400 * 86_400.0
"""Longer than metadata is good: of a provider that no gateway asks any more."""


@dataclass(frozen=True, slots=True)
class StoredSamlLogin:
    username: str
    groups: tuple[str, ...]


class SamlLoginStore(Database):
    def spend_saml(self, key: str, until: float, now: float) -> bool:
        """False: it has been spent before, on whichever gateway. Remembered until it would be refused anyway, by the
        steady clock."""
        with self._write() as connection:
            connection.execute(delete(saml_spent).where(saml_spent.c.until < now - KEPT_LONGER_S))
            if connection.execute(select(saml_spent.c.until).where(saml_spent.c.key == key)).scalar() is not None:
                return False
            connection.execute(insert(saml_spent).values(key=key, until=until))
            return True

    def remember_saml_login(
        self, login_id: str, provider: str, username: str, groups: tuple[str, ...], until: float, now: float
    ) -> None:
        with self._write() as connection:
            connection.execute(delete(saml_login).where(saml_login.c.until < now))
            connection.execute(
                insert(saml_login).values(
                    login_id=login_id, provider=provider, username=username, groups=list(groups), until=until
                )
            )

    def saml_login(self, login_id: str, provider: str, now: float) -> StoredSamlLogin | None:
        with self._read() as connection:
            row = connection.execute(
                select(saml_login).where(
                    saml_login.c.login_id == login_id, saml_login.c.provider == provider, saml_login.c.until >= now
                )
            ).first()
            return None if row is None else StoredSamlLogin(row.username, tuple(row.groups))

    def saml_metadata(self, provider: str, url: str) -> str | None:
        """XML, as it was fetched from there."""
        with self._read() as connection:
            table = saml_metadata.c
            found = select(table.metadata).where(table.provider == provider, table.url == url)
            return connection.execute(found).scalar()

    def keep_saml_metadata(self, provider: str, url: str, metadata: str, now: float) -> None:
        """What was fetched longer ago than ``METADATA_KEPT_S`` is forgotten on this occasion."""
        with self._write() as connection:
            connection.execute(delete(saml_metadata).where(saml_metadata.c.fetched_at < now - METADATA_KEPT_S))
            if connection.execute(
                update(saml_metadata)
                .where(saml_metadata.c.provider == provider)
                .values(url=url, metadata=metadata, fetched_at=now)
            ).rowcount:
                return
            connection.execute(
                insert(saml_metadata).values(provider=provider, url=url, metadata=metadata, fetched_at=now)
            )
