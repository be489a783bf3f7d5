"""A certificate for the API that nobody else has signed, for who has none yet: TLS from the first day on."""

from __future__ import annotations

import datetime
import socket
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cvpnd.pki.authority import CLOCK_SKEW, certificate_pem, new_key, private_key_pem, utc_now
from cvpnd.pki.files import PRIVATE_FILE, PUBLIC_FILE, write_file
from cvpnd.pki.issue import SERVER_DAYS

NAME = "cvpnd API"
RENEWED_BEFORE = datetime.timedelta(days=30)
"""Its end: for whoever has to give the new one to others. Somebody else's, in its place, is left alone until then."""


def ensure_self_signed(certificate_path: Path, key_path: Path, host: str) -> bool:
    """Files of a certificate and its key that are good for ``host``, this host's name and localhost: those that are
    there, or new ones in place of such as end soon, or do not belong together. Whether a certificate was replaced.
    Raises ``OSError``."""
    if _are_good(certificate_path, key_path):
        return False
    replaced = certificate_path.exists()
    key, now = new_key("ecdsa"), utc_now()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(socket.gethostname())]
    names += [x509.IPAddress(ip_address(address)) for address in dict.fromkeys(("127.0.0.1", "::1", host))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=SERVER_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    write_file(key_path, private_key_pem(key), PRIVATE_FILE, replace=True)
    write_file(certificate_path, certificate_pem(certificate), PUBLIC_FILE, replace=True)
    return replaced


def _are_good(certificate_path: Path, key_path: Path) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = load_pem_private_key(key_path.read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    now = utc_now()
    before = RENEWED_BEFORE if certificate.issuer == certificate.subject else datetime.timedelta()
    lasts = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - before
    return lasts and certificate.public_key() == key.public_key()
