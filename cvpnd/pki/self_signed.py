"""A certificate for the API that nobody else has signed, for who has none yet: TLS from the first day on."""

from __future__ import annotations

import datetime
import socket
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cvpnd.pki.authority import CLOCK_SKEW, certificate_pem, new_key, private_key_pem, utc_now
from cvpnd.pki.files import PRIVATE_FILE, PUBLIC_FILE, write_file
from cvpnd.pki.issue import SERVER_DAYS

NAME = "cvpnd API"


def ensure_self_signed(directory: Path, host: str) -> tuple[Path, Path]:
    """Files of a certificate and its key that are good for ``host``, this host's name and localhost: those that are
    there, or new ones in place of expired ones. Raises OSError."""
    certificate_path, key_path = directory / "api.crt", directory / "api.key"
    if _usable(certificate_path) and key_path.exists():
        return certificate_path, key_path
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
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    write_file(key_path, private_key_pem(key), PRIVATE_FILE, replace=True)
    write_file(certificate_path, certificate_pem(certificate), PUBLIC_FILE, replace=True)
    return certificate_path, key_path


def _usable(path: Path) -> bool:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc > utc_now()
    except (FileNotFoundError, ValueError):
        return False
