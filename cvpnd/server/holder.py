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
from cvpnd.wire.events import CredentialsReceived
from cvpnd.wire.tls import fingerprint

if TYPE_CHECKING:
    from cvpnd.server.endpoint import ServedEndpoint

NOBODY_YET = Identity("", "", frozenset(), "", "")


def identify(credentials: CredentialsReceived, endpoint: ServedEndpoint) -> Identity:
    """Who the certificate says this is, if the endpoint asks for one. With certificates alone its name is the user's;
    what the client typed proves nothing and is not used."""
    if not endpoint.asks_certificate:
        return NOBODY_YET
    certificate = credentials.certificate
    if certificate is None:
        raise Denied(Refusal.CERTIFICATE_MISSING)
    # It may have lost trust since its TLS handshake began, which the client may have drawn out.
    refused = endpoint.trust.check(certificate)
    if refused is None and credentials.context is not endpoint.trust.ssl_context:
        refused = endpoint.trust.check_chain(certificate, credentials.intermediates)
    if refused is not None:
        raise Denied(refused.refusal, refused.detail)
    holder = _holder(certificate)
    if isinstance(holder, Refused):
        raise Denied(holder.refusal, holder.detail)
    return holder


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
        certificate_serial=f"{certificate.serial_number:x}",
        certificate_fingerprint=fingerprint(certificate).hex(),
    )


def check_name(method: AuthenticationConfig, username: str, identity: Identity, *, typed: bool = False) -> None:
    """``typed``: as people write it, with a domain perhaps. Nobody is asked about the password of another person; that
    the account is the holder's is for its own name to say, afterwards."""
    if not method.username_is_common_name or username == identity.common_name:
        return
    bare = (username, username.rpartition("\\")[2], username.rpartition("@")[0])
    if not typed or identity.common_name.casefold() not in (each.casefold() for each in bare):
        raise Denied(Refusal.USERNAME_NOT_COMMON_NAME, f"user name {username!r}")
