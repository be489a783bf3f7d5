"""What is known of an identity provider: its entity id, its keys, and where browsers are sent.

Whoever gives us metadata is trusted with all logins. Still nothing in it is taken on faith that would weaken them: keys
below 2048 bits, an address that is no web page."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, ParseError

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from defusedxml import DefusedXmlException
from defusedxml import ElementTree as DefusedElementTree

from cvpnd.auth.saml.model import METADATA, PROTOCOL, REDIRECT, SIGNATURE

MAX_METADATA_BYTES = 10_000_000
MIN_RSA_BITS = 2048
MIN_EC_BITS = 256
MAX_KEYS = 16


class MetadataError(Exception):
    """It cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class IdpMetadata:
    entity_id: str
    login_url: str
    """HTTP-Redirect."""
    certificates: tuple[str, ...] = field(repr=False)
    """PEM, of the keys that it signs with."""
    valid_until: float | None = None
    """Seconds since the epoch."""
    wants_signed_requests: bool = False
    certificates_end_at: float | None = None
    """When the last of them expires, of which nothing depends: their keys are pinned."""

    def expired(self, now: float) -> bool:
        return self.valid_until is not None and now >= self.valid_until


def parse_metadata(text: str | bytes, entity_id: str | None = None) -> IdpMetadata:
    """``entity_id`` chooses among several. Raises ``MetadataError``."""
    if len(text) > MAX_METADATA_BYTES:
        raise MetadataError(f"is larger than {MAX_METADATA_BYTES} bytes")
    try:
        root: Element = DefusedElementTree.fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise MetadataError(f"is no XML that is taken here: {str(error) or type(error).__name__}") from None
    candidates = [
        (descriptor, role)
        for descriptor in root.iter(f"{{{METADATA}}}EntityDescriptor")
        for role in descriptor.findall(f"{{{METADATA}}}IDPSSODescriptor")
        if PROTOCOL in role.get("protocolSupportEnumeration", "").split()
        and entity_id in (None, descriptor.get("entityID"))
    ]
    if len(candidates) != 1:
        what = "SAML 2.0 identity provider (IDPSSODescriptor)" if entity_id is None else f"entity {entity_id}"
        fix = "" if not candidates else "; say which with idp_entity_id"
        raise MetadataError(f"describes {len(candidates) or 'no'} {what}{fix}")
    descriptor, role = candidates[0]
    name = descriptor.get("entityID", "").strip()
    if not name or not name.isprintable():
        raise MetadataError("has no entityID")
    certificates = _certificates(role)
    return IdpMetadata(
        entity_id=name,
        login_url=_login_url(role),
        certificates=tuple(each.public_bytes(Encoding.PEM).decode() for each in certificates),
        valid_until=min(
            (_moment(each) for each in (root, descriptor, role) if "validUntil" in each.attrib), default=None
        ),
        wants_signed_requests=role.get("WantAuthnRequestsSigned") in ("true", "1"),
        certificates_end_at=max(each.not_valid_after_utc.timestamp() for each in certificates),
    )


@lru_cache(maxsize=64)
def key_of(certificate: str) -> str:
    """Of a certificate in PEM. It stays the same where an identity provider renews only what it says of the key."""
    key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _login_url(role: Element) -> str:
    for service in role.findall(f"{{{METADATA}}}SingleSignOnService"):
        if service.get("Binding") != REDIRECT:
            continue
        url = service.get("Location", "").strip()
        parts = urlsplit(url)
        if (
            parts.scheme in ("https", "http")
            and parts.hostname
            and url.isascii()
            and url.isprintable()
            and " " not in url
        ):
            return url
        raise MetadataError(f"sends browsers to {url[:120]!r}, which is no web page")
    raise MetadataError("has no SingleSignOnService with the binding HTTP-Redirect")


def _certificates(role: Element) -> tuple[x509.Certificate, ...]:
    found: dict[x509.Certificate, None] = {}
    for descriptor in role.findall(f"{{{METADATA}}}KeyDescriptor"):
        if descriptor.get("use", "signing") != "signing":
            continue
        for element in descriptor.iter(f"{{{SIGNATURE}}}X509Certificate"):
            found[_certificate(element.text or "")] = None
    if not 1 <= len(found) <= MAX_KEYS:
        raise MetadataError(f"has {len(found)} certificates for signing; between 1 and {MAX_KEYS} are taken")
    return tuple(found)


def _certificate(text: str) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode("".join(text.split()), validate=True))
        key = certificate.public_key()
    except (binascii.Error, ValueError, TypeError) as error:
        raise MetadataError(f"has a certificate that cannot be read: {error}") from None
    strong = (isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS) or (
        isinstance(key, EllipticCurvePublicKey) and key.key_size >= MIN_EC_BITS
    )
    if not strong:
        raise MetadataError(f"has a signing key that is none of RSA with {MIN_RSA_BITS} bits or EC with {MIN_EC_BITS}")
    return certificate


def _moment(element: Element) -> float:
    try:
        moment = datetime.fromisoformat(element.get("validUntil", "").replace("Z", "+00:00"))
    except ValueError:
        raise MetadataError(f"has a validUntil that is no date: {element.get('validUntil', '')[:40]!r}") from None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
