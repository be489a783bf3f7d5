"""The certificate authority itself: its key, its certificate, and the directory around them."""

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from cvpnd.pki.files import PRIVATE_DIRECTORY, PRIVATE_FILE, PUBLIC_FILE, PkiError, locked, write_file

Algorithm = Literal["ecdsa", "rsa"]
SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

RSA_BITS = 3072
AUTHORITY_DAYS = 3650

CLOCK_SKEW = datetime.timedelta(hours=1)
"""Certificates and CRLs begin this much in the past: a client whose clock is late still takes them."""


def new_key(algorithm: Algorithm) -> SigningKey:
    if algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Authority:
    """An opened CA directory. Holds the private key: pass it on to nobody who need not sign."""

    directory: Path
    certificate: x509.Certificate
    private_key: SigningKey = field(repr=False)

    @classmethod
    def create(cls, directory: Path, name: str, *, algorithm: Algorithm = "ecdsa", days: int = AUTHORITY_DAYS) -> Self:
        """Make the directory (0700), a key and a self-signed certificate. Raises PkiError where there is a CA."""
        directory.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
        (directory / "issued").mkdir(exist_ok=True, mode=PRIVATE_DIRECTORY)
        key = new_key(algorithm)
        certificate = _self_signed(key, name, days)
        with locked(directory):
            # The key first: a crash in between leaves a key without a certificate, which opens as neither.
            try:
                write_file(directory / "ca.key", private_key_pem(key), PRIVATE_FILE)
                write_file(directory / "ca.crt", certificate_pem(certificate), PUBLIC_FILE)
            except FileExistsError as error:
                raise PkiError(
                    f"{error.filename2 or directory} exists; a certificate authority is never replaced"
                ) from None
        return cls(directory, certificate, key)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Raises PkiError naming the file that is missing or of no use."""
        certificate_path, key_path = directory / "ca.crt", directory / "ca.key"
        try:
            certificate = x509.load_pem_x509_certificate(_read(certificate_path))
        except ValueError:
            raise PkiError(f"{certificate_path}: is not a PEM certificate") from None
        try:
            key = serialization.load_pem_private_key(_read(key_path), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise PkiError(f"{key_path}: is not a PEM private key without a passphrase") from None
        if not isinstance(key, SigningKey):
            raise PkiError(f"{key_path}: is neither an ECDSA nor an RSA key")
        if key.public_key() != certificate.public_key():
            raise PkiError(f"{key_path}: is not the key of the certificate in {certificate_path}")
        return cls(directory, certificate, key)

    @property
    def certificate_pem(self) -> bytes:
        return certificate_pem(self.certificate)

    @property
    def issued_directory(self) -> Path:
        return self.directory / "issued"

    @property
    def crl_path(self) -> Path:
        return self.directory / "crl.pem"

    @property
    def algorithm(self) -> Algorithm:
        """What its certificates' keys are made with, too."""
        return "rsa" if isinstance(self.private_key, rsa.RSAPrivateKey) else "ecdsa"

    @property
    def key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """For what it signs. Copied from the certificate, since not every CA derives it in the same way."""
        try:
            subject = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PkiError(f"{path}: cannot be read: {error.strerror}") from None


def _self_signed(key: SigningKey, name: str, days: int) -> x509.Certificate:
    now = utc_now()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_encipherment=key_encipherment,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_key_pem(key: SigningKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
