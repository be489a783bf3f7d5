"""A certificate for the API that nobody else has signed, for who has none yet: TLS from the first day on."""

from __future__ import annotations

import datetime
import socket
import stat
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cvpnd.pki.authority import CLOCK_SKEW, certificate_pem, new_key, private_key_pem, utc_now
from cvpnd.pki.files import PRIVATE_FILE, PUBLIC_FILE, sync_directory, write_file
from cvpnd.pki.issue import SERVER_DAYS

NAME = "cvpnd API"
RENEWED_BEFORE = datetime.timedelta(days=30)
"""Its end: for whoever has to give the new one to others. Somebody else's, in its place, is left alone until then."""


def ensure_self_signed(certificate_path: Path, key_path: Path, host: str, *, is_clock_right: bool = True) -> bool:
    """Files of a certificate and its key, in one directory, that are good for ``host``, this host's name and localhost:
    those that are there, or new ones in place of such as end soon, or do not belong together; these are kept as
    ``api.crt~`` and ``api.key~``. Whether a certificate was replaced. ``is_clock_right``: if not, one of ours that is
    not valid yet may be good. Raises ``OSError``: then what was there still is."""
    if _are_good(certificate_path, key_path, is_clock_right):
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
    with TemporaryDirectory(prefix=".api.", dir=certificate_path.parent) as beside:
        new_key_path, new_path = Path(beside, key_path.name), Path(beside, certificate_path.name)
        write_file(new_key_path, private_key_pem(key), PRIVATE_FILE, replace=True)  # without a hard link
        write_file(new_path, certificate_pem(certificate), PUBLIC_FILE, replace=True)
        for path in (key_path, certificate_path):
            if path.exists():
                kept, mode = path.with_name(f"{path.name}~"), stat.S_IMODE(path.stat().st_mode)
                write_file(kept, path.read_bytes(), mode, replace=True)
        new_key_path.replace(key_path)
        new_path.replace(certificate_path)
        sync_directory(certificate_path.parent)
    return replaced


def _are_good(certificate_path: Path, key_path: Path, is_clock_right: bool) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = load_pem_private_key(key_path.read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    now = utc_now()
    if certificate.issuer != certificate.subject:  # not ours: that a clock is behind is no reason to take it away
        lasts = now < certificate.not_valid_after_utc
    else:
        begun = not is_clock_right or certificate.not_valid_before_utc <= now
        lasts = begun and now < certificate.not_valid_after_utc - RENEWED_BEFORE
    return lasts and certificate.public_key() == key.public_key()
