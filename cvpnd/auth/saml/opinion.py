"""pysaml2's own opinion of a response, which a login needs beside ours.

It is asked last, with what is proven to come from the identity provider: it looks at the schema before the signature,
which costs a quarter of a second for 90 kB, with the interpreter's lock held. Of its client class nothing is used: that
remembers everybody who ever logged in."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from saml2.config import SPConfig
from saml2.response import AuthnResponse
from saml2.sigver import SecurityContext

from cvpnd.auth.saml.document import Document
from cvpnd.auth.saml.metadata import IdpMetadata
from cvpnd.auth.saml.model import (
    METADATA,
    POST,
    PROTOCOL,
    REDIRECT,
    SIGNATURE,
    XML_SPACE,
    Assertion,
    NotAccepted,
    PendingRequest,
)
from cvpnd.auth.saml.signature import XmlSec1
from cvpnd.reasons import Refusal


def ask_pysaml2(
    document: Document,
    request: PendingRequest,
    claimed: Assertion,
    *,
    idp: IdpMetadata,
    entity_id: str,
    skew_s: int,
    backend: XmlSec1,
) -> None:
    """Raises ``NotAccepted``: anything but a complete answer that names whom we read is a no."""
    config = _config(idp, entity_id)
    context = SecurityContext(backend, metadata=config.metadata, only_use_keys_in_metadata=True)
    answer = AuthnResponse(
        context,
        config.attribute_converters,
        entity_id,
        return_addrs=[request.acs_url],
        outstanding_queries={request.id: request.acs_url},
        timeslack=skew_s,
        allow_unsolicited=False,
        allow_unknown_attributes=True,
        want_assertions_signed=True,
        want_response_signed=True,
    )
    text = document.text.decode()
    try:
        complete = answer.loads(text, False, text).verify()
        name = None if complete is None else complete.name_id.text.strip(XML_SPACE)
    except Exception as error:  # of a dozen kinds
        raise NotAccepted(Refusal.SAML_MALFORMED, f"pysaml2: {_why(error)}"[:300]) from None
    if name is None or name != claimed.name or len(complete.assertions) != 1:
        raise NotAccepted(Refusal.SAML_MALFORMED, "pysaml2 does not read in it what we read")


def _why(error: Exception) -> str:
    """What does not fit the schema stands behind all of the document."""
    text = str(error)
    found = re.search(r"Reason: (.+?)\\*\n|Reason: (.+?)\\+n", text)
    return (found[1] or found[2]).replace("\\", "") if found else text or type(error).__name__


@lru_cache(maxsize=32)
def _config(idp: IdpMetadata, entity_id: str) -> Any:
    """With metadata of nothing but what is pinned."""
    return SPConfig().load(
        {
            "entityid": entity_id,
            "service": {"sp": {"endpoints": {"assertion_consumer_service": [("http://127.0.0.1", POST)]}}},
            "metadata": {"inline": [_pinned(idp)]},
        }
    )


def _pinned(idp: IdpMetadata) -> str:
    keys = "".join(
        f'<m:KeyDescriptor use="signing"><d:KeyInfo><d:X509Data><d:X509Certificate>{_body(pem)}</d:X509Certificate>'
        "</d:X509Data></d:KeyInfo></m:KeyDescriptor>"
        for pem in idp.certificates
    )
    return (
        f'<m:EntityDescriptor xmlns:m="{METADATA}" xmlns:d="{SIGNATURE}" entityID={quoteattr(idp.entity_id)}>'
        f'<m:IDPSSODescriptor protocolSupportEnumeration="{PROTOCOL}">{keys}'
        f'<m:SingleSignOnService Binding="{REDIRECT}" Location={quoteattr(idp.login_url)}/>'
        "</m:IDPSSODescriptor></m:EntityDescriptor>"
    )


def _body(pem: str) -> str:
    return escape("".join(pem.splitlines()[1:-1]))
