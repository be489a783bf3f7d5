"""The TLS context of an endpoint: OpenSSL's settings in one place.

Nobody resumes a VPN session at the TLS level, so tickets and the session cache are off. pyOpenSSL has no binding for
SSL_CTX_set_num_tickets; with OP_NO_TICKET a TLS 1.3 handshake still ends with two stateful tickets that nothing can be
resumed from: 158 bytes measured, against 1086 with real ones (OpenSSL 4.0, client certificate of 500 bytes)."""

import logging
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from OpenSSL import SSL, crypto

from cvpnd.auth.files import CertificateSettings, TrustError, read_private_key
from cvpnd.auth.names import canonical_name
from cvpnd.auth.trial import trial_handshake

log = logging.getLogger(__name__)

MAX_CHAIN_DEPTH = 16
"""CA certificates between a client and its root; every real PKI has fewer than five."""

MIN_RSA_BITS = 2048
MIN_RSA_BITS_IF_ALLOWED = 1024
MAX_RSA_BITS = 8192
MAX_RSA_EXPONENT_BITS = 32
"""To verify a signature by such a key takes 2 ms; by one of 3072 bits with an exponent as long it takes 17."""

# Forward secrecy and AEAD only. TLS 1.3 suites are named apart because OpenSSL keeps them apart.
TLS12_SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
TLS13_SUITES = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"

# OpenSSL's own groups for key exchange without those over finite fields (CVE-2002-20001). Any bytes will do for a share
# in them, and whoever offered nothing else had us compute for 4.4 ms; with X25519 it is 0.7 (OpenSSL 4.0).
_GROUPS = b"DEFAULT:-ffdhe2048:-ffdhe3072"

# SSL_MODE_NO_AUTO_CHAIN, which pyOpenSSL does not name. Else OpenSSL looks for the server certificate's issuers among
# the clients' authorities, verifies what it finds and sends all of it, root included, with every handshake: 0.2 ms and
# 800 bytes. They are looked up once instead (``with_intermediates``).
_MODE_NO_AUTO_CHAIN = 0x8

# SSL_OP_CLEANSE_PLAINTEXT, which pyOpenSSL does not name: what was read is wiped inside OpenSSL once it is handed out.
_OP_CLEANSE_PLAINTEXT = 0x2

# SSL_OP_NO_RX_CERTIFICATE_COMPRESSION of OpenSSL 3.2, which pyOpenSSL does not name: a bit without meaning before. The
# wheels of cryptography cannot decompress certificates (RFC 8879), but the host's OpenSSL may, and nobody looks into
# those that are compressed (native/certificates.h). Who was not asked for them must not send any.
_OP_NO_RX_CERTIFICATE_COMPRESSION = 1 << 33

_TLS_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


def minimum_rsa_bits(settings: CertificateSettings) -> int:
    return MIN_RSA_BITS_IF_ALLOWED if settings.allow_rsa_1024 else MIN_RSA_BITS


def new_server_context(
    settings: CertificateSettings, chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]
) -> SSL.Context:
    """A context without a verify callback yet. ``chain``: the server's certificate, then its intermediates."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_TLS_VERSIONS[settings.minimum_version])
    if settings.maximum_version is not None:
        context.set_max_proto_version(_TLS_VERSIONS[settings.maximum_version])
    context.set_options(
        SSL.OP_NO_TICKET
        | SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_CIPHER_SERVER_PREFERENCE
        | _OP_CLEANSE_PLAINTEXT
        | _OP_NO_RX_CERTIFICATE_COMPRESSION
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # A connection that waits for its peer gives its 34 kB of record buffers back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_NO_AUTO_CHAIN)
    _set_suites(context, settings)
    _set_groups(context)
    _set_server_certificate(context, settings, with_intermediates(chain, authorities))
    _set_authorities(context, authorities)
    context.set_verify_depth(MAX_CHAIN_DEPTH)
    try:
        trial_handshake(context)
    except SSL.Error as error:
        raise TrustError(
            settings.certificate,
            f"no client could finish a handshake with this certificate and its key ({_reasons(error)}); use an ECDSA "
            "key on P-256, P-384 or P-521, an RSA key (rsaEncryption, not RSASSA-PSS) or Ed25519, and no tls.ciphers "
            "for another kind",
        ) from None
    return context


def with_intermediates(
    chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """A server certificate without a chain, and the intermediates above it that are among the clients' authorities. A
    root is not sent: who does not have it would not trust it."""
    complete = list(chain)
    while len(chain) == 1 and len(complete) <= MAX_CHAIN_DEPTH:
        issuer = next((each for each in authorities if issued(each, complete[-1])), None)
        if issuer is None or issuer in complete or canonical_name(issuer.issuer) == canonical_name(issuer.subject):
            break
        complete.append(issuer)
    return complete


def issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    if canonical_name(authority.subject) != canonical_name(certificate.issuer):
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _set_suites(context: SSL.Context, settings: CertificateSettings) -> None:
    tls12, tls13 = TLS12_SUITES, TLS13_SUITES
    if settings.ciphers is not None:
        names = settings.ciphers.split(":")
        tls13 = ":".join(name for name in names if name.startswith("TLS_")) or TLS13_SUITES
        tls12 = ":".join(name for name in names if not name.startswith("TLS_")) or TLS12_SUITES
    # Security level 2 wants 112 bits: RSA 2048, no SHA-1 signatures. Level 1 lets RSA 1024 in and still no SHA-1.
    level = 1 if settings.allow_rsa_1024 else 2
    try:
        context.set_cipher_list(f"{tls12}:@SECLEVEL={level}".encode())
        context.set_tls13_ciphersuites(tls13.encode())
    except SSL.Error:
        raise TrustError(settings.certificate, f"no usable TLS cipher suite in {settings.ciphers!r}") from None


def _set_groups(context: SSL.Context) -> None:
    """This takes names that pyOpenSSL does not document, and OpenSSL 3.5. Older ones keep the groups they have."""
    lib: Any = getattr(SSL, "_lib", None)
    raw: Any = getattr(context, "_context", None)
    if raw is not None and hasattr(lib, "SSL_CTX_set1_curves_list") and hasattr(lib, "ERR_clear_error"):
        if lib.SSL_CTX_set1_curves_list(raw, _GROUPS) == 1:
            return
        lib.ERR_clear_error()  # or the next call on this thread would seem to have failed
    log.warning("this OpenSSL is not known or too old: strangers choose a key exchange that is work for us alone")


def _set_server_certificate(
    context: SSL.Context, settings: CertificateSettings, chain: Sequence[x509.Certificate]
) -> None:
    private_key = read_private_key(settings.private_key)
    if private_key.public_key() != chain[0].public_key():
        raise TrustError(settings.private_key, f"is not the key of the certificate in {settings.certificate}")
    try:
        context.use_certificate(chain[0])
        context.use_privatekey(private_key)
        for intermediate in chain[1:]:
            context.add_extra_chain_cert(intermediate)
    except SSL.Error as error:
        raise TrustError(settings.certificate, f"OpenSSL refuses it: {_reasons(error)}") from None


def _set_authorities(context: SSL.Context, authorities: Sequence[x509.Certificate]) -> None:
    store = context.get_cert_store()
    if store is None:
        raise MemoryError("OpenSSL made a context without a certificate store")
    _ask_for_clients(store)
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)  # clients with several certificates choose by this list
    subjects = {canonical_name(authority.subject) for authority in authorities}
    if any(canonical_name(authority.issuer) not in subjects for authority in authorities):
        # An operator who names an intermediate alone means: only those, not all that its root ever signed.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)


def _ask_for_clients(store: crypto.X509Store) -> None:
    """Whether a certificate, and each authority behind it, may vouch for TLS clients: a handshake asks that by itself,
    and who proves a certificate by this store without one is to be told the same. pyOpenSSL does not document this."""
    lib: Any = getattr(SSL, "_lib", None)
    raw: Any = getattr(store, "_store", None)
    if raw is None or not hasattr(lib, "X509_STORE_set_purpose"):
        log.warning("this OpenSSL is not known: sessions of authorities that may not vouch for clients any more go on")
    elif lib.X509_STORE_set_purpose(raw, lib.X509_PURPOSE_SSL_CLIENT) != 1:
        raise MemoryError("OpenSSL takes no purpose for a certificate store")


def _reasons(error: SSL.Error) -> str:
    queue = error.args[0] if error.args else []
    return "; ".join(entry[-1] for entry in queue) or "no reason given"
