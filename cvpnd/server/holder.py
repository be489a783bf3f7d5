"""Whose certificate a login came with, and whether its user is who the certificate names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from cvpnd.auth.identity import Refused, common_name
from cvpnd.config import AuthenticationConfig
from cvpnd.policy.model import Identity
from cvpnd.reasons import Refusal
from cvpnd.remembered import remembered
from cvpnd.server.denied import Denied
from cvpnd.spelling import any_spelling
from cvpnd.wire.events import CredentialsReceived
from cvpnd.wire.tls import fingerprint

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection

NOBODY_YET = Identity("", "", frozenset(), "")


def identify(connection: Connection, credentials: CredentialsReceived) -> Identity:
    """Who the certificate says this is, if the endpoint asks for one. With certificates alone its name is the user's;
    what the client typed proves nothing and is not used."""
    if not connection.endpoint.asks_certificate:
        return NOBODY_YET
    if (refused := check_certificate(connection, credentials)) is not None:
        raise Denied(refused.refusal, refused.detail)
    certificate = credentials.certificate
    assert certificate is not None  # noqa: S101 - or it would have been refused
    holder = _holder(certificate)
    if isinstance(holder, Refused):
        raise Denied(holder.refusal, holder.detail)
    return holder


def check_certificate(connection: Connection, credentials: CredentialsReceived) -> Refused | None:
    """Of the first key or a later one. It may have lost trust since its TLS handshake began, which the client may have
    drawn out."""
    trust, path = connection.endpoint.trust, credentials.path
    if credentials.certificate is not None and credentials.context is not trust.ssl_context:
        proven = trust.prove(credentials.certificate, path.sent)
        if isinstance(proven, Refused):
            return proven
        path = proven
    connection.certificate, connection.path = credentials.certificate, path
    return connection.endpoint.still_trusted(connection)


@remembered
def _holder(certificate: x509.Certificate) -> Identity | Refused:
    """As it says itself."""
    name = common_name(certificate)
    if isinstance(name, Refused):
        return name
    return Identity(
        common_name=name,
        username="",
        groups=frozenset(),
        certificate_fingerprint=fingerprint(certificate).hex(),
    )


def check_name(method: AuthenticationConfig, username: str, identity: Identity, *, typed: bool = False) -> None:
    """``typed``: as people write it, with a domain perhaps. Nobody is asked about the password of another person; that
    the account is the holder's is for its own name to say, afterwards."""
    if not method.username_is_common_name or username == identity.common_name:
        return
    bare = (username, username.rpartition("\\")[2], username.rpartition("@")[0])
    if not typed or any_spelling(identity.common_name) not in map(any_spelling, bare):
        raise Denied(Refusal.USERNAME_NOT_COMMON_NAME, f"user name {username!r}")
