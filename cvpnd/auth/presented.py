"""A client's certificate as OpenSSL has it, read by ``cryptography`` once for all of its handshakes.

This takes names that pyOpenSSL does not document; where a version lacks them, it is read each time."""

from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto

from cvpnd.remembered import MOST

_LIB: Any = getattr(SSL, "_lib", None)
_FFI: Any = getattr(SSL, "_ffi", None)
_SHA256_BYTES = 32
_SHA256: Any = (
    _LIB.EVP_get_digestbyname(b"sha256")
    if _FFI is not None and hasattr(_LIB, "X509_digest") and hasattr(_LIB, "EVP_get_digestbyname")
    else None
)
_known: dict[bytes, x509.Certificate] = {}
"""By SHA-256 over DER, from which all that is in one follows: nothing but its age ends an entry. Whether it is trusted,
in force and not revoked is asked in each handshake."""


def parsed(presented: crypto.X509) -> x509.Certificate:
    """Of one that OpenSSL has nothing against, so that strangers fill no memory. Its holder comes again and again, with
    each renewal of keys, and what is asked of the object is remembered too. Raises ``ValueError``."""
    pointer = vars(presented).get("_x509")
    if _SHA256 is None or pointer is None:
        return presented.to_cryptography()
    digest = _FFI.new("unsigned char[]", _SHA256_BYTES)
    if _LIB.X509_digest(pointer, _SHA256, digest, _FFI.NULL) != 1:
        raise ValueError("no digest of it")
    key = bytes(_FFI.buffer(digest, _SHA256_BYTES))
    certificate = _known.get(key)
    if certificate is None:
        certificate = presented.to_cryptography()
        if len(_known) >= MOST:
            del _known[next(iter(_known))]
        _known[key] = certificate
    return certificate
