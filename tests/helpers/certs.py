"""Test certificates: small, quick to make, and kept for the whole test run.

    from helpers import certs
    alice = certs.client("alice")                      # issued by certs.authority()
    context.use_certificate(alice.certificate); context.use_privatekey(alice.private_key)
    server_pem, key_pem = certs.server().certificate_pem, certs.server().private_key_pem
    certs.certificate_revocation_list(revoked=[alice])

Keys are EC P-256 unless a test is about another kind. Everything that takes time is cached by its arguments, so asking
twice for `client("alice")` gives the same certificate."""

import datetime
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cvpnd.auth.crl import Crl
from cvpnd.auth.names import CanonicalName
from cvpnd.pki.issue import IssuedCertificate

PrivateKey = dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
KeyKind = Literal["dsa", "ec", "ec384", "ed25519", "rsa1024", "rsa2048", "rsa4096"]

START = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
"""When this test run began; validity periods are counted from here."""

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class TestCertificate:
    """A certificate with its private key and the intermediates that lead to the root."""

    __test__ = False

    certificate: x509.Certificate
    private_key: PrivateKey
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def chain_pem(self) -> bytes:
        """The certificate followed by its intermediates."""
        return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in (self.certificate, *self.intermediates))

    @property
    def private_key_pem(self) -> bytes:
        return self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write NAME.crt (with intermediates) and NAME.key below ``directory``; returns both paths."""
        certificate, private_key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_bytes(self.chain_pem)
        private_key.write_bytes(self.private_key_pem)
        return certificate, private_key


def as_client(issued: IssuedCertificate) -> TestCertificate:
    """What an authority of the product's own has issued."""
    key = serialization.load_pem_private_key(issued.private_key, None)
    return TestCertificate(x509.load_pem_x509_certificate(issued.certificate), key)


def new_key(kind: KeyKind = "ec") -> PrivateKey:
    match kind:
        case "ec":
            return ec.generate_private_key(ec.SECP256R1())
        case "dsa":
            return dsa.generate_private_key(1024)
        case "ec384":
            return ec.generate_private_key(ec.SECP384R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("rsa")))


# RSA keys take up to seconds: one of each size serves the whole run.
_kept_rsa_key = functools.cache(new_key)


def key_of_kind(kind: KeyKind) -> PrivateKey:
    return _kept_rsa_key(kind) if kind.startswith("rsa") else new_key(kind)


def _signing_hash(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def common_name(*values: str) -> x509.Name:
    """A subject of these CNs; nothing about them is checked, so that tests can make the odd ones."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value, _validate=False) for value in values])


def issue(
    issuer: TestCertificate | None,
    subject: x509.Name,
    *,
    kind: KeyKind = "ec",
    is_ca: bool = False,
    usage: Sequence[x509.ObjectIdentifier] | None = None,
    names: Sequence[x509.GeneralName] = (),
    start: datetime.datetime = START - DAY,
    end: datetime.datetime = START + 365 * DAY,
    serial: int | None = None,
    path_length: int | None = None,
    key_usage: x509.KeyUsage | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> TestCertificate:
    """Sign one certificate; without an issuer it signs itself. ``extensions``: further (extension, critical) pairs."""
    key = key_of_kind(kind)
    signer = issuer.private_key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial if serial is not None else x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(is_ca, path_length if is_ca else None), critical=True)
        .add_extension(key_usage or _usual_key_usage(is_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    intermediates = () if issuer is None or _is_root(issuer) else (issuer.certificate, *issuer.intermediates)
    return TestCertificate(builder.sign(signer, _signing_hash(signer)), key, intermediates)


def _is_root(certificate: TestCertificate) -> bool:
    return certificate.certificate.issuer == certificate.certificate.subject


def _usual_key_usage(is_ca: bool) -> x509.KeyUsage:
    return key_usage(digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca)


def key_usage(**given: bool) -> x509.KeyUsage:
    """KeyUsage with only the named bits set."""
    bits = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{bit: given.get(bit, False) for bit in bits.split()})


# --- the usual ones ---------------------------------------------------------------------------------------------------


@functools.cache
def authority(name: str = "Test CA", kind: KeyKind = "ec") -> TestCertificate:
    """A self-signed CA; another name is another CA."""
    return issue(None, common_name(name), kind=kind, is_ca=True, start=START - 400 * DAY, end=START + 3650 * DAY)


@functools.cache
def intermediate(name: str = "Test Intermediate CA", issuer: TestCertificate | None = None) -> TestCertificate:
    return issue(issuer or authority(), common_name(name), is_ca=True, end=START + 1000 * DAY)


@functools.cache
def server(
    name: str = "vpn.example.com", kind: KeyKind = "ec", issuer: TestCertificate | None = None
) -> TestCertificate:
    return issue(
        issuer or authority(),
        common_name(name),
        kind=kind,
        usage=(ExtendedKeyUsageOID.SERVER_AUTH,),
        names=(x509.DNSName(name),),
        key_usage=key_usage(digital_signature=True, key_encipherment=kind.startswith("rsa")),
    )


@functools.cache
def client(name: str = "alice", kind: KeyKind = "ec", issuer: TestCertificate | None = None) -> TestCertificate:
    return issue(issuer or authority(), common_name(name), kind=kind, usage=(ExtendedKeyUsageOID.CLIENT_AUTH,))


# --- clients that are to be refused -----------------------------------------------------------------------------------


@functools.cache
def client_of_another_authority(name: str = "mallory") -> TestCertificate:
    return client(name, issuer=authority("Another CA"))


@functools.cache
def expired_client(name: str = "expired") -> TestCertificate:
    return _client_with(common_name(name), start=START - 30 * DAY, end=START - DAY)


@functools.cache
def client_not_yet_valid(name: str = "early") -> TestCertificate:
    return _client_with(common_name(name), start=START + DAY, end=START + 30 * DAY)


@functools.cache
def client_without_common_name() -> TestCertificate:
    return _client_with(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "nameless")]))


@functools.cache
def client_with_server_usage(name: str = "wrong-usage") -> TestCertificate:
    return _client_with(common_name(name), usage=(ExtendedKeyUsageOID.SERVER_AUTH,))


@functools.cache
def self_signed_client(name: str = "self-signed") -> TestCertificate:
    return issue(None, common_name(name), usage=(ExtendedKeyUsageOID.CLIENT_AUTH,))


def client_with_subject(subject: x509.Name) -> TestCertificate:
    return _client_with(subject)


def without_key_identifiers(certificate: TestCertificate, issuer: TestCertificate) -> x509.Certificate:
    """The same, by an issuer that leaves away what tells it from another of its name."""
    identifiers = x509.SubjectKeyIdentifier | x509.AuthorityKeyIdentifier
    kept = [each for each in certificate.certificate.extensions if not isinstance(each.value, identifiers)]
    return _issued_again(certificate, issuer, [(each.value, each.critical) for each in kept])


def with_extension(root: TestCertificate, value: x509.ExtensionType) -> x509.Certificate:
    """An authority's next certificate, of its name and key, that says one thing more."""
    before = [(each.value, each.critical) for each in root.certificate.extensions]
    return _issued_again(root, root, [*before, (value, False)])


def _issued_again(
    certificate: TestCertificate, issuer: TestCertificate, extensions: Iterable[tuple[x509.ExtensionType, bool]]
) -> x509.Certificate:
    was = certificate.certificate
    builder = x509.CertificateBuilder(was.issuer, was.subject, was.public_key(), was.serial_number)
    builder = builder.not_valid_before(was.not_valid_before_utc).not_valid_after(was.not_valid_after_utc)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(issuer.private_key, _signing_hash(issuer.private_key))


def _client_with(
    subject: x509.Name,
    usage: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    start: datetime.datetime = START - DAY,
    end: datetime.datetime = START + 365 * DAY,
) -> TestCertificate:
    return issue(authority(), subject, usage=usage, start=start, end=end)


# --- revocation -------------------------------------------------------------------------------------------------------


def certificate_revocation_list(
    issuer: TestCertificate | None = None,
    revoked: Iterable[TestCertificate | int] = (),
    *,
    start: datetime.datetime = START - DAY,
    end: datetime.datetime | None = START + 30 * DAY,
    number: int = 1,
    signer: TestCertificate | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.CertificateRevocationList:
    """A CRL of certificates or bare serial numbers; ``signer`` other than the issuer makes a forged one."""
    issuer = issuer or authority()
    key = (signer or issuer).private_key
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=issuer.certificate.subject,
        last_update=start,
        next_update=end,
        revoked_certificates=[
            x509.RevokedCertificateBuilder(r if isinstance(r, int) else r.certificate.serial_number, start).build()
            for r in revoked
        ],
    ).add_extension(x509.CRLNumber(number), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, _signing_hash(key))


@functools.cache
def large_revocation_list(entries: int = 20_000, *also: TestCertificate) -> x509.CertificateRevocationList:
    """``entries`` serial numbers that belong to nobody, then those of ``also``."""
    first = 1 << 100
    return certificate_revocation_list(revoked=[*range(first, first + entries), *also])


def crl_pem(*lists: x509.CertificateRevocationList) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in lists)


def revoked_by(crl: Crl) -> set[tuple[CanonicalName, int]]:
    """Every certificate in a file's lists, by issuer and serial number (``crl.certificate_key``)."""
    return {(issuer, serial) for issuer, lists in crl.by_issuer.items() for each in lists for serial in each.serials}
