"""A handshake in memory with a server's context, before any client has to find out: of a key that OpenSSL takes and no
client can use (RSA-PSS, an elliptic curve of its own, suites for another kind of key) it says nothing until then."""

from __future__ import annotations

import contextlib

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL

from cvpnd.auth.crl_scope import UNREADABLE

_RECORDS = 1 << 20


def trial_handshake(context: SSL.Context) -> None:
    """Raises ``SSL.Error`` if a client that takes all that OpenSSL offers cannot be answered, or cannot verify the
    answer. The client says nothing of itself: who it is is not tried."""
    asking = SSL.Context(SSL.TLS_CLIENT_METHOD)
    asking.set_cipher_list(b"ALL:@SECLEVEL=0")
    client, server = SSL.Connection(asking, None), SSL.Connection(context, None)
    client.set_connect_state()
    server.set_accept_state()
    for side, other in ((client, server), (server, client), (client, server)):
        with contextlib.suppress(SSL.WantReadError):
            side.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            other.bio_write(side.bio_read(_RECORDS))


def is_for_servers(certificate: x509.Certificate) -> bool:
    """Whether a client with ``remote-cert-tls server``, as every profile of ours has it, takes it for a server's."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False
    return ExtendedKeyUsageOID.SERVER_AUTH in usage
