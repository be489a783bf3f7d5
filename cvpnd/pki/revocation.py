"""The CRL of our own authority: who is on it, adding to it, and keeping it from expiring."""

import datetime
from collections.abc import Sequence
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from cvpnd.pki.authority import CLOCK_SKEW, Authority, utc_now
from cvpnd.pki.crl_number import crl_number
from cvpnd.pki.files import PUBLIC_FILE, PkiError, locked, write_file
from cvpnd.pki.index import CertificateRecord, certificates, parse_serial, read_crl

CRL_DAYS = 180
"""An expired CRL locks everybody out, so it lives long; a gateway that holds the key signs it anew at half of that."""


def ensure_crl(authority: Authority) -> bool:
    """Make an empty CRL where there is none, so that revoking later needs no new configuration. True if it was made."""
    with locked(authority.directory):
        if read_crl(authority) is not None:
            return False
        _write_crl(authority, None, ())
        return True


def revoke(authority: Authority, *, name: str | None = None, serial: str | None = None) -> list[CertificateRecord]:
    """Put every certificate of a name, or the one of a serial number, on the CRL; newest first in the answer.

    Those that are on it stay with their date. One that has expired comes on it too: that is what a clock says which may
    be years ahead. Raises PkiError when nothing matches."""
    if (name is None) == (serial is None):
        raise PkiError("name either a certificate's holder or its serial number")
    wanted = parse_serial(serial) if serial is not None else None
    with locked(authority.directory):
        found = [r for r in certificates(authority, name) if wanted is None or r.serial == wanted]
        if not found:
            what = f"of {name}" if name is not None else f"with serial {serial}"
            raise PkiError(f"no certificate {what} was issued by the authority in {authority.directory}")
        if to_revoke := [record.serial for record in found if record.status != "revoked"]:
            _write_crl(authority, read_crl(authority), to_revoke)
        return [replace(record, status="revoked") for record in found]


def sign_again_if_due(authority: Authority, *, now: datetime.datetime | None = None) -> bool:
    """Give the CRL a new validity once half of it has passed, or if it is not valid yet: then the clock was ahead when
    it was signed. True if it did. Cheap enough to ask every hour, and whenever the clock was set."""
    with locked(authority.directory):
        crl = read_crl(authority)
        if crl is None or crl.next_update_utc is None:
            return False
        now = now or utc_now()
        remaining = crl.next_update_utc - now
        if crl.last_update_utc <= now and remaining > datetime.timedelta(days=CRL_DAYS) / 2:
            return False
        _write_crl(authority, crl, (), now=now)
        return True


def _write_crl(
    authority: Authority,
    previous: x509.CertificateRevocationList | None,
    serials: Sequence[int],
    *,
    now: datetime.datetime | None = None,
) -> None:
    """Caller holds the directory's lock."""
    now = now or utc_now()
    entries = list(previous) if previous is not None else []
    number = (crl_number(previous) if previous is not None else None) or 0
    entries += [x509.RevokedCertificateBuilder(serial, now).build() for serial in serials]
    crl = (
        x509.CertificateRevocationListBuilder(
            issuer_name=authority.certificate.subject,
            last_update=now - CLOCK_SKEW,
            next_update=now + datetime.timedelta(days=CRL_DAYS),
            revoked_certificates=entries,
        )
        .add_extension(x509.CRLNumber(number + 1), critical=False)
        .add_extension(authority.key_identifier, critical=False)
        .sign(authority.private_key, hashes.SHA256())
    )
    write_file(authority.crl_path, crl.public_bytes(serialization.Encoding.PEM), PUBLIC_FILE, replace=True)
