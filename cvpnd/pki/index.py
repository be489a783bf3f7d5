"""What an authority has issued and revoked, read from its files: `issued/*.crt` and `crl.pem`."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import NameOID

from cvpnd.pki.authority import Authority, utc_now
from cvpnd.pki.files import PkiError


@dataclass(frozen=True)
class CertificateRecord:
    """What the directory knows about one certificate it issued."""

    name: str
    serial: int
    not_before: datetime.datetime
    not_after: datetime.datetime
    status: Literal["valid", "expired", "revoked"]
    path: Path

    @property
    def serial_hex(self) -> str:
        """As openssl prints it."""
        return format_serial(self.serial)


def read_crl(authority: Authority) -> x509.CertificateRevocationList | None:
    """crl.pem, or None where none was ever made. Raises PkiError for one that this authority did not sign:
    to build on it could lose revocations."""
    try:
        data = authority.crl_path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        crl = x509.load_pem_x509_crl(data)
    except ValueError:
        raise PkiError(f"{authority.crl_path}: is not a PEM certificate revocation list") from None
    if crl.issuer != authority.certificate.subject or not crl.is_signature_valid(authority.private_key.public_key()):
        raise PkiError(f"{authority.crl_path}: was not signed by the authority in {authority.directory}")
    return crl


def revoked_serials(crl: x509.CertificateRevocationList | None) -> frozenset[int]:
    return frozenset(entry.serial_number for entry in crl) if crl is not None else frozenset()


def certificates(authority: Authority, name: str | None = None) -> list[CertificateRecord]:
    """Every client certificate this directory issued, or those of one name; newest first within a name."""
    revoked = revoked_serials(read_crl(authority))
    now = utc_now()
    records = []
    for path, certificate in _issued(authority):
        holder = str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[-1].value)
        if name is not None and holder != name:
            continue
        status: Literal["valid", "expired", "revoked"] = "valid"
        if certificate.serial_number in revoked:
            status = "revoked"
        elif certificate.not_valid_after_utc < now:
            status = "expired"
        records.append(
            CertificateRecord(
                holder,
                certificate.serial_number,
                certificate.not_valid_before_utc,
                certificate.not_valid_after_utc,
                status,
                path,
            )
        )
    records.sort(key=lambda record: (record.name, -record.not_before.timestamp()))
    return records


def _issued(authority: Authority) -> Iterator[tuple[Path, x509.Certificate]]:
    for path in sorted(authority.issued_directory.glob("*.crt")):
        if path.name.startswith("."):
            continue  # a write that a crash ended
        try:
            yield path, x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError:
            raise PkiError(f"{path}: is not a PEM certificate; move it away") from None


def format_serial(serial: int) -> str:
    text = f"{serial:X}"
    return text if len(text) % 2 == 0 else f"0{text}"


def parse_serial(text: str) -> int:
    """A serial number as people copy it: hexadecimal, with or without colons. Raises PkiError."""
    try:
        return int(text.replace(":", "").strip(), 16)
    except ValueError:
        raise PkiError(
            f"{text!r} is no serial number; write it in hexadecimal, as cvpnctl certificate list shows"
        ) from None
