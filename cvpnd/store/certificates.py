"""Imported certificates and their sealed private keys."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from cvpnd.store.database import Database, StoreError
from cvpnd.store.tables import certificate, tag


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """Without its private key: that is asked for by itself."""

    arn: str
    certificate: str
    """PEM, as the chain, which is empty if there is none."""
    chain: str
    created_at: float
    imported_at: float


class CertificateStore(Database):
    def imported_certificates(self) -> list[StoredCertificate]:
        """Oldest first."""
        columns = [column for column in certificate.c if column.name not in ("number", "private_key")]
        with self._read() as connection:
            rows = connection.execute(select(*columns).order_by(certificate.c.number))
            return [StoredCertificate(*row) for row in rows]

    def private_key(self, arn: str) -> bytes:
        """PEM. Raises ``StoreError``."""
        with self._read() as connection:
            sealed = connection.execute(
                select(certificate.c.private_key).where(certificate.c.arn == arn)
            ).scalar_one_or_none()
            if sealed is None:
                raise StoreError(f"{arn} is not in the store any more")
            return self._opened(connection, sealed, _row(arn))

    def put_certificate(self, new: StoredCertificate, private_key: bytes) -> None:
        """Added, or in place of the one that has its ARN."""
        with self._write() as connection:
            values = {
                "certificate": new.certificate,
                "chain": new.chain,
                "private_key": self._closed(connection, private_key, _row(new.arn)),
                "imported_at": new.imported_at,
            }
            changed = connection.execute(update(certificate).where(certificate.c.arn == new.arn).values(**values))
            if not changed.rowcount:
                connection.execute(insert(certificate).values(arn=new.arn, created_at=new.created_at, **values))
            details = {"arn": new.arn, "again": bool(changed.rowcount)}
            self._record(connection, "import-certificate", details, now=new.imported_at)

    def delete_certificate(self, arn: str) -> None:
        with self._write() as connection:
            connection.execute(delete(tag).where(tag.c.resource == arn))
            connection.execute(delete(certificate).where(certificate.c.arn == arn))
            self._record(connection, "delete-certificate", {"arn": arn})


def _row(arn: str) -> str:
    return f"certificate {arn}"
