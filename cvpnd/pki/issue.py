"""Signing certificates for the gateway and for people."""

import datetime
import re
from dataclasses import dataclass, field
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cvpnd.pki.authority import CLOCK_SKEW, Authority, certificate_pem, key_usage, new_key, private_key_pem, utc_now
from cvpnd.pki.files import PRIVATE_FILE, PUBLIC_FILE, PkiError, locked, write_file
from cvpnd.pki.index import certificates, format_serial

SERVER_DAYS = 825
CLIENT_DAYS = 825
"""What common clients accept of a certificate's life at most."""

RENEWAL_PERIOD = datetime.timedelta(days=30)
"""So long before its end, a certificate's holder may be given the next one; before, it must be revoked first."""

# Names become file names and reach shells and logs: what people and machines are called, and no more.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


@dataclass(frozen=True)
class IssuedCertificate:
    """A new certificate and its private key, both PEM. Nobody has kept the key."""

    name: str
    serial: int
    not_after: datetime.datetime
    certificate: bytes = field(repr=False)
    private_key: bytes = field(repr=False)


def check_name(name: str) -> None:
    """Raises PkiError for a name that we do not put into certificates."""
    if _NAME.fullmatch(name) is None:
        raise PkiError(
            f"{name!r} cannot be the name of a certificate; use up to 64 letters, digits and . _ @ + - "
            "and begin with a letter or digit"
        )


def issue_server(authority: Authority, name: str, *, days: int = SERVER_DAYS) -> IssuedCertificate:
    """Make server.crt and server.key (0600) for a host name or address. Raises PkiError where there is one."""
    check_server_name(name)
    with locked(authority.directory):
        issued = _sign(authority, name, days, server=True)
        try:
            write_file(authority.directory / "server.key", issued.private_key, PRIVATE_FILE)
            write_file(authority.directory / "server.crt", issued.certificate, PUBLIC_FILE)
        except FileExistsError:
            raise PkiError(f"{authority.directory}/server.crt or server.key exists; move them away first") from None
    return issued


def issue_client(authority: Authority, name: str, days: int = CLIENT_DAYS) -> IssuedCertificate:
    """A certificate for one person or device, recorded in issued/. The key is in the answer and nowhere else.

    Raises PkiError for a name that cannot be, or that has a valid certificate that does not end soon."""
    check_name(name)
    with locked(authority.directory):
        for record in certificates(authority, name):
            if record.status == "valid" and record.not_after - utc_now() > RENEWAL_PERIOD:
                raise PkiError(
                    f"{name} has a certificate (serial {record.serial_hex}, valid until {record.not_after:%Y-%m-%d}); "
                    "revoke it first"
                )
        issued = _sign(authority, name, days, server=False)
        path = authority.issued_directory / f"{name}.crt"
        authority.issued_directory.mkdir(exist_ok=True, mode=0o700)
        if path.exists():
            earlier = x509.load_pem_x509_certificate(path.read_bytes())
            path.rename(path.with_name(f"{name}.{format_serial(earlier.serial_number)}.crt"))
        write_file(path, issued.certificate, PUBLIC_FILE)
    return issued


def check_server_name(name: str) -> None:
    """Raises PkiError for what is neither a host name nor an address."""
    if not re.fullmatch(r"[A-Za-z0-9:]([A-Za-z0-9.:-]{0,62}[A-Za-z0-9:])?", name):
        raise PkiError(f"{name!r} is no host name or address of at most 64 characters")


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _sign(authority: Authority, name: str, days: int, *, server: bool) -> IssuedCertificate:
    if days < 1:
        raise PkiError(f"a certificate cannot be valid for {days} days; choose at least 1")
    key = new_key(authority.algorithm)
    now = utc_now()
    not_after = min(now + datetime.timedelta(days=days), authority.certificate.not_valid_after_utc)
    if not_after <= now:
        raise PkiError(f"the certificate authority in {authority.directory} has expired; make a new one")
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # OpenVPN 2.x wants both bits of a server (remote-cert-tls), whatever the kind of key.
        .add_extension(key_usage(digital_signature=True, key_encipherment=server), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority.key_identifier, critical=False)
    )
    if server:
        builder = builder.add_extension(x509.SubjectAlternativeName([_alternative_name(name)]), critical=False)
    certificate = builder.sign(authority.private_key, hashes.SHA256())
    return IssuedCertificate(
        name, certificate.serial_number, not_after, certificate_pem(certificate), private_key_pem(key)
    )
