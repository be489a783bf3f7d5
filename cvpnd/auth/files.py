"""An endpoint's certificate files: which there are, and reading them.

Every problem is a `TrustError` that names the file. Parsers may quote what they read, and what they read may be a
private key: their words are never passed on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from cvpnd import _native
from cvpnd.auth.crl import Crl, read_crl
from cvpnd.auth.crl_scope import UNREADABLE, is_authority
from cvpnd.auth.names import canonical_name
from cvpnd.config import EndpointConfig

ServerKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

_Parsed = TypeVar("_Parsed")


class TrustError(Exception):
    """A certificate file that cannot be used; str() names the file and what to do."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


@dataclass(frozen=True)
class CertificateSettings:
    """One endpoint's certificate files and what it asks of clients."""

    certificate: Path
    """PEM: the server's certificate, optionally followed by its intermediates."""
    private_key: Path
    client_ca: Path | None
    """PEM bundle; whoever holds a certificate of one of these CAs may try to log in. None: clients need no
    certificate, and none is asked for."""
    chain: Path | None = None
    """PEM: the server's intermediates where they are in a file of their own."""
    crl: Path | None = None
    allow_rsa_1024: bool = False
    crl_expired: Literal["refuse", "allow-known-good"] = "refuse"
    """`allow-known-good`: an expired CRL still revokes whom it lists, and everybody else may connect."""
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    maximum_version: Literal["1.2", "1.3"] | None = None
    ciphers: str | None = None
    """OpenSSL names separated by colons, TLS 1.2 and TLS 1.3 (`TLS_…`) together; None for ours."""

    @classmethod
    def of_endpoint(cls, endpoint: EndpointConfig) -> Self:
        """From the endpoint's table in the TOML file."""
        server, method, tls = endpoint.server_certificate, endpoint.certificate_method, endpoint.tls
        return cls(
            certificate=server.certificate,
            private_key=server.private_key,
            chain=server.chain,
            client_ca=None if method is None else method.client_ca,
            crl=None if method is None else method.crl,
            crl_expired="refuse" if method is None else method.crl_expired,
            allow_rsa_1024=method is not None and method.allow_rsa_1024,
            minimum_version=tls.minimum_version,
            maximum_version=tls.maximum_version,
            ciphers=tls.ciphers,
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files whose change calls for a reload."""
        given = (self.certificate, self.private_key, self.chain, self.client_ca, self.crl)
        return tuple(path for path in given if path is not None)


def read_certificates(path: Path, *, keys: bool = True) -> list[x509.Certificate]:
    """Every certificate of a PEM file, at least one. Text around them, as easy-rsa writes it, is skipped. OpenSSL takes
    some that cannot be told from others here, by their name and, where ``keys`` are asked for, their key."""
    certificates = _read(path, x509.load_pem_x509_certificates, "does not hold a complete PEM certificate")
    for number, certificate in enumerate(certificates, 1):
        try:
            canonical_name(certificate.subject), canonical_name(certificate.issuer)
            if keys:
                certificate.public_key()
        except UNREADABLE:
            what = f"certificate {number} of {len(certificates)} in it has a name or a key of an unknown kind"
            raise TrustError(path, f"{what}; take it out, or issue it anew with a key on P-256, say") from None
    return certificates


def read_authorities(path: Path, *, keys: bool = True) -> tuple[x509.Certificate, ...]:
    """The CA bundle. A certificate in it that is not a CA's would be trusted as a client for ever: refused. ``keys``:
    there are revocation lists, which are told apart by them."""
    authorities = read_certificates(path, keys=keys)
    for number, authority in enumerate(authorities, 1):
        name = authority.subject.rfc4514_string()
        try:
            accepted = is_authority(authority)
        except UNREADABLE:
            what = f"certificate {number} of {len(authorities)} in it ({name}) has an extension that cannot be read"
            raise TrustError(path, f"{what}; take it out, or issue it anew without") from None
        if not accepted:
            raise TrustError(path, f"{name} is not a certificate authority (basicConstraints CA); remove it")
    return tuple(authorities)


def unfit_to_be_sent(path: Path, authorities: Sequence[x509.Certificate]) -> list[str]:
    """What is to be said of those among them with which no client gets in: OpenSSL sends along the authorities that it
    was given, and what would be work to decode is refused before anybody asks who has signed it."""
    judged = ((each, _native.judge_certificate(each.public_bytes(Encoding.DER))) for each in authorities)
    return [
        f"{path}: {each.subject.rfc4514_string()} is {problem}; clients that send it along, as OpenVPN does, are "
        "refused (certificate-invalid)"
        for each, problem in judged
        if problem
    ]


def read_crl_file(path: Path, authorities: Sequence[x509.Certificate]) -> Crl:
    """Raises TrustError only for a file that is not a complete CRL; see `Crl.problem` for one that must not be used."""
    return _read(path, lambda data: read_crl(data, authorities), "is not a complete certificate revocation list")


def read_private_key(path: Path) -> ServerKey:
    key = _read(
        path, lambda data: load_pem_private_key(data, None), "does not hold a PEM private key without a passphrase"
    )
    if not isinstance(key, ServerKey):
        raise TrustError(path, "is a key of a kind that TLS servers do not use; use ECDSA, RSA or Ed25519")
    return key


def _read(path: Path, parse: Callable[[bytes], _Parsed], problem: str) -> _Parsed:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise TrustError(path, f"cannot be read: {error.strerror}") from None
    except UNREADABLE:
        raise TrustError(path, problem) from None
