"""OpenSSL's security level, for a certification path that is proven without a handshake, of which a store knows none
(pyOpenSSL has no binding for ``X509_VERIFY_PARAM_set_auth_level``): the keys of all links, and the digests of all
signatures but that of the trust anchor, on which nobody relies."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from cvpnd.remembered import remembered

EE_KEY_TOO_SMALL, CA_KEY_TOO_SMALL, CA_MD_TOO_WEAK = 66, 67, 68
"""OpenSSL's numbers, as ``X509_V_ERR_*``."""
LEAST_BITS = {2048: 112, 1024: 80}
"""Of security, by the smallest RSA key that is let in: those of levels 2 and 1."""
ROUNDED = 64
"""OpenSSL rounds the strength of an RSA key, so that those count for 2048 bits that have 1984. Of a client's own the
size is asked (``certificate-weak-key``)."""
ENOUGH = 128
"""Has what is of no use weaker."""


def weak_link(path: Sequence[x509.Certificate], minimum_rsa_bits: int) -> tuple[int, int] | None:
    """OpenSSL's error and the depth, from the client's own certificate up. None: all of them are strong enough. Raises
    what ``UNREADABLE`` names."""
    least = LEAST_BITS[minimum_rsa_bits]
    for depth, certificate in enumerate(path):
        if _key_strength(certificate) < least:
            return (CA_KEY_TOO_SMALL if depth else EE_KEY_TOO_SMALL), depth
        if certificate is not path[-1] and _digest_strength(certificate) < least:
            return CA_MD_TOO_WEAK, depth
    return None


@remembered
def _key_strength(certificate: x509.Certificate) -> int:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey):
        rounded = ROUNDED if isinstance(key, rsa.RSAPublicKey) else 0
        return next((bits for size, bits in LEAST_BITS.items() if key.key_size >= size - rounded), 0)
    return key.key_size // 2 if isinstance(key, ec.EllipticCurvePublicKey) else ENOUGH


@remembered
def _digest_strength(certificate: x509.Certificate) -> int:
    """Collisions take half of its bits; of SHA-1's fewer."""
    digest = certificate.signature_hash_algorithm
    if digest is None:  # Ed25519 and others have one of their own
        return ENOUGH
    return 63 if digest.name == "sha1" else 4 * digest.digest_size
