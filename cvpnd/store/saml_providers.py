"""SAML identity providers that were made through the API, by their metadata."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from cvpnd.store.database import Database
from cvpnd.store.tables import saml_provider


@dataclass(frozen=True, slots=True)
class StoredSamlProvider:
    arn: str
    metadata: str
    """XML, as it was given."""
    valid_until: float | None
    created_at: float


class SamlProviderStore(Database):
    def saml_providers(self) -> list[StoredSamlProvider]:
        """In order of ARNs."""
        with self._read() as connection:
            rows = connection.execute(select(saml_provider).order_by(saml_provider.c.arn))
            return [StoredSamlProvider(*row) for row in rows]

    def put_saml_provider(self, new: StoredSamlProvider) -> None:
        """Added, or in place of the one that has its ARN."""
        with self._write() as connection:
            values = {"metadata": new.metadata, "valid_until": new.valid_until}
            changed = connection.execute(update(saml_provider).where(saml_provider.c.arn == new.arn).values(**values))
            if not changed.rowcount:
                connection.execute(insert(saml_provider).values(arn=new.arn, created_at=new.created_at, **values))
            self._record(
                connection, "update-saml-provider" if changed.rowcount else "create-saml-provider", {"arn": new.arn}
            )

    def delete_saml_provider(self, arn: str) -> None:
        with self._write() as connection:
            connection.execute(delete(saml_provider).where(saml_provider.c.arn == arn))
            self._record(connection, "delete-saml-provider", {"arn": arn})
