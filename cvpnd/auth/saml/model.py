"""What goes to an identity provider, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cvpnd.reasons import Refusal

MAX_RESPONSE_CHARACTERS = 128 * 1024
"""Of a response as it is sent: in base64."""
MAX_NAME_CHARACTERS = 255
MAX_GROUPS = 200
MAX_GROUP_CHARACTERS = 255
XML_SPACE = " \t\r\n"
"""That of a line broken by whoever wrote the XML. Other spaces belong to a name, which no name begins with."""
DEFAULT_ENTITY_ID = "urn:amazon:webservices:clientvpn"

PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol"
ASSERTION = "urn:oasis:names:tc:SAML:2.0:assertion"
SIGNATURE = "http://www.w3.org/2000/09/xmldsig#"
METADATA = "urn:oasis:names:tc:SAML:2.0:metadata"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"


class NotAccepted(Exception):
    """A response that lets nobody in."""

    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(detail)
        self.refusal = refusal
        self.detail = detail


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """Somebody was sent to the identity provider: what the response has to answer."""

    id: str
    acs_url: str
    """Where the browser takes the response."""
    made_at: float
    """Seconds since the epoch, as the next."""
    good_until: float


@dataclass(frozen=True, slots=True)
class Assertion:
    """What the identity provider says of somebody."""

    id: str
    name: str
    """Its NameID, usually an e-mail address."""
    groups: frozenset[str]
    first_name: str = ""
    last_name: str = ""
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """All of them, by name."""
    session_ends_at: float | None = None
    """Its SessionNotOnOrAfter, in seconds since the epoch."""
    expires_at: float = 0.0
    """From when on it would be refused anyway: until then it is remembered as used."""
    issuer: str = ""
    """The identity provider's entity id."""
    signed_by: frozenset[str] = frozenset()
    """The keys that verified it and its response (``metadata.key_of``); without one it is nobody's word."""
