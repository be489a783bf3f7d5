"""What a client of AWS's kind carries from the connection that sends it to its browser to the one that brings the
response: its state id, on whichever gateway and after whichever restart it comes back.

Nothing is kept of those who are sent away, who may be anybody: the state id says itself what it is good for. An HMAC
covers that and, unsaid, endpoint, provider and certificate. Its use is what the store remembers (``SamlLogins``), and
for how long it is good nobody changes by setting the wall clock."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import struct
from dataclasses import dataclass, field

from cvpnd.auth.saml.model import PendingRequest
from cvpnd.auth.saml.provider import REQUEST_ID_BYTES, new_request_id

TAG_BYTES = 8
"""Of the address: forty bits would do, as nobody can try any against it."""
MAC_BYTES = 16
_FIELDS = struct.Struct(f">{REQUEST_ID_BYTES}sQH{TAG_BYTES}s")
STATE_CHARACTERS = -(-4 * (_FIELDS.size + MAC_BYTES) // 3)
"""In base64 without padding."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is sent to an identity provider, and has to come back as the same."""

    endpoint_id: str
    provider: str
    certificate_fingerprint: str
    source: str
    """What has to be the same of the address; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Visit:
    request_id: str
    made_at: int
    """On the steady clock."""
    port: int
    same_source: bool

    def request(self, acs_url: str, within_s: float, *, steady: float, wall: float) -> PendingRequest:
        """What is to be answered, for as long as there is left of ``within_s``."""
        return PendingRequest(self.request_id, acs_url, wall, wall + within_s - abs(steady - self.made_at))


@dataclass(frozen=True, slots=True)
class States:
    key: bytes = field(repr=False)
    """The same on every gateway that shares the store."""

    def new(self, visitor: Visitor, port: int, steady: float) -> tuple[str, str]:
        """A state id, and the id of the request that belongs to it. There is no colon in it, which clients cut at."""
        nonce = secrets.token_bytes(REQUEST_ID_BYTES)
        fields = _FIELDS.pack(nonce, int(steady), port, self._tag(visitor.source))
        text = base64.urlsafe_b64encode(fields + self._mac(fields, visitor)).rstrip(b"=").decode()
        return text, new_request_id(nonce)

    def read(self, text: str, visitor: Visitor) -> Visit | None:
        """None: not one of ours, or for another endpoint, provider or certificate."""
        if len(text) != STATE_CHARACTERS:  # and not 256 kB of a stranger's, for each endpoint that it may be of
            return None
        try:
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            return None
        fields, mac = raw[: _FIELDS.size], raw[_FIELDS.size :]
        if len(raw) != _FIELDS.size + MAC_BYTES or not hmac.compare_digest(mac, self._mac(fields, visitor)):
            return None
        nonce, made_at, port, tag = _FIELDS.unpack(fields)
        return Visit(new_request_id(nonce), made_at, port, hmac.compare_digest(tag, self._tag(visitor.source)))

    def _tag(self, source: str) -> bytes:
        return hmac.digest(self.key, b"cvpnd saml source 1" + source.encode(), "sha256")[:TAG_BYTES]

    def _mac(self, fields: bytes, visitor: Visitor) -> bytes:
        words = (visitor.endpoint_id, visitor.provider, visitor.certificate_fingerprint)
        parts = [b"cvpnd saml state 2", *(word.encode() for word in words), fields]
        message = b"".join(struct.pack(">I", len(part)) + part for part in parts)
        return hmac.digest(self.key, message, "sha256")[:MAC_BYTES]
