"""Certificates of a client as OpenSSL has them, read by ``cryptography`` once for all of its handshakes.

This takes names that pyOpenSSL does not document; where a version lacks them, they are read each time."""

from typing import Any, NamedTuple

from cryptography import x509
from OpenSSL import SSL, crypto

from cvpnd.remembered import MOST

_LIB: Any = getattr(SSL, "_lib", None)
_FFI: Any = getattr(SSL, "_ffi", None)
_NAMES = (
    *("EVP_get_digestbyname", "SSL_get0_verified_chain", "SSL_get_peer_cert_chain", "X509_digest"),
    *("sk_X509_num", "sk_X509_value"),
)
_SHA256_BYTES = 32


class CertificationPath(NamedTuple):
    """What leads from a client's certificate to whom we trust, as it was proven; shared by clients of one issuer."""

    authorities: tuple[x509.Certificate, ...]
    """From the issuer of the client's certificate to the one that is trusted by itself."""
    sent: tuple[x509.Certificate, ...]
    """Those of them that the client brought."""


NO_PATH = CertificationPath((), ())
_SHA256: Any = (
    _LIB.EVP_get_digestbyname(b"sha256") if _FFI is not None and all(hasattr(_LIB, name) for name in _NAMES) else None
)
_known: dict[bytes, x509.Certificate] = {}
"""By SHA-256 over DER, from which all that is in one follows: nothing but its age ends an entry. Whether it is trusted,
in force and not revoked is asked in each handshake."""
_Chain = tuple[bytes, ...]
_known_paths: dict[tuple[_Chain, _Chain], CertificationPath] = {}
"""By what a client sent beside its own certificate and what OpenSSL proved behind that: most clients of an endpoint
send the same."""


def parsed(presented: crypto.X509) -> x509.Certificate:
    """Of one that OpenSSL has nothing against, so that strangers fill no memory. Its holder comes again and again, with
    each renewal of keys, and what is asked of the object is remembered too. Raises ``ValueError``."""
    pointer = vars(presented).get("_x509")
    if _SHA256 is None or pointer is None:
        return presented.to_cryptography()
    key = _digest(pointer)
    certificate = _known.get(key)
    if certificate is None:
        certificate = presented.to_cryptography()
        _remember(_known, key, certificate)
    return certificate


def certification_path(connection: SSL.Connection) -> CertificationPath:
    """Of a client whose handshake is complete. Raises ``ValueError``."""
    pointer = vars(connection).get("_ssl")
    if _SHA256 is None or pointer is None:
        return _certification_path(connection)
    way = _digests(_LIB.SSL_get_peer_cert_chain(pointer), 0), _digests(_LIB.SSL_get0_verified_chain(pointer), 1)
    found = _known_paths.get(way)
    if found is None:
        found = _certification_path(connection)
        _remember(_known_paths, way, found)
    return found


def _certification_path(connection: SSL.Connection) -> CertificationPath:
    proven = connection.get_verified_chain(as_cryptography=True) or []
    sent = connection.get_peer_cert_chain(as_cryptography=True) or []
    return CertificationPath(tuple(proven[1:]), tuple(each for each in sent if each in proven[1:]))


def _digests(stack: Any, first: int) -> _Chain:
    """Of what lies in a STACK_OF(X509), which is NULL if nothing does."""
    if stack == _FFI.NULL:
        return ()
    return tuple([_digest(_LIB.sk_X509_value(stack, place)) for place in range(first, _LIB.sk_X509_num(stack))])


def _digest(pointer: Any) -> bytes:
    digest = _FFI.new("unsigned char[]", _SHA256_BYTES)
    if _LIB.X509_digest(pointer, _SHA256, digest, _FFI.NULL) != 1:
        raise ValueError("no digest of it")
    return bytes(_FFI.buffer(digest, _SHA256_BYTES))


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    if len(known) >= MOST:
        del known[next(iter(known))]
    known[key] = value
