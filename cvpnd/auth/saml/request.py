"""The request that a browser takes to the identity provider, in an address (HTTP-Redirect)."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from saml2.pack import http_redirect_message
from saml2.saml import Issuer
from saml2.samlp import AuthnRequest, NameIDPolicy
from saml2.sigver import RSACrypto
from saml2.xmldsig import SIG_RSA_SHA256

from cvpnd.auth.saml.metadata import IdpMetadata
from cvpnd.auth.saml.model import EMAIL, POST, PendingRequest


def login_url(
    request: PendingRequest,
    idp: IdpMetadata,
    *,
    entity_id: str,
    signing_key: RSAPrivateKey | None,
    relay_state: str = "",
) -> str:
    """As AWS asks; short, because it has to fit into a client's message."""
    message = AuthnRequest(
        id=request.id,
        version="2.0",
        issue_instant=datetime.fromtimestamp(request.made_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        destination=idp.login_url,
        assertion_consumer_service_url=request.acs_url,
        protocol_binding=POST,
        issuer=Issuer(text=entity_id),
        name_id_policy=NameIDPolicy(format=EMAIL),
    )
    signed = {} if signing_key is None else {"sigalg": SIG_RSA_SHA256, "sign": True, "backend": RSACrypto(signing_key)}
    made = http_redirect_message(message, idp.login_url, relay_state, **signed)
    return str(dict(made["headers"])["Location"])
