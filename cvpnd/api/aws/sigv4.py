"""Signature Version 4, the verifying side. Pure: a request's parts and the time in, who it is or why not out.

What is signed is what was received: the body is hashed here, whatever the request says its hash is, so a signature
without one (``UNSIGNED-PAYLOAD``) fits nothing. Requests go to ``/`` without a query string, so neither can be bent.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cvpnd.reasons import ApiRefusal
from cvpnd.store import SeenRequest

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_S = 300.0
"""How far a request's clock may be off, either way."""

_HEADER = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([A-Za-z0-9]{4,128})/(\d{8})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/aws4_request, *"
    r"SignedHeaders=([a-z0-9;_-]{1,2048}), *Signature=([0-9a-f]{64})"
)
Headers = Sequence[tuple[str, str]]


class Refused(Exception):
    def __init__(self, reason: ApiRefusal, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of itself, before its signature has been looked at."""

    key_id: str
    day: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    stamp: str
    """``x-amz-date``, as it was sent."""

    @property
    def scope(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


def read_claim(headers: Headers, now: datetime) -> Claim:
    """Raises ``Refused``. Costs a stranger nothing but this."""
    authorization = [value for name, value in headers if name == "authorization"]
    if not authorization:
        raise Refused(ApiRefusal.SIGNATURE_MISSING, "the request is not signed")
    found = _HEADER.fullmatch(authorization[0].strip()) if len(authorization) == 1 else None
    if found is None:
        raise Refused(ApiRefusal.SIGNATURE_MALFORMED, f"the Authorization header is not one of {ALGORITHM}")
    signed = tuple(found[5].split(";"))
    if list(signed) != sorted(set(signed)):
        raise Refused(ApiRefusal.SIGNATURE_MALFORMED, "the signed headers are not sorted, or one is there twice")
    present = {name for name, _ in headers}
    needed = {"host", "x-amz-date"} | {name for name in present if name.startswith("x-amz-")}
    for name in sorted(needed):
        if name not in signed or name not in present:
            raise Refused(ApiRefusal.SIGNATURE_MALFORMED, f"the header {name} must be signed")
    stamps = [value.strip() for name, value in headers if name == "x-amz-date"]
    claim = Claim(found[1], found[2], found[3], found[4], signed, found[6], stamps[0])
    try:
        signed_at = datetime.strptime(claim.stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        signed_at = None
    if signed_at is None or len(stamps) > 1 or not claim.stamp.startswith(claim.day):
        raise Refused(ApiRefusal.SIGNATURE_MALFORMED, "x-amz-date is no time of the signature's day")
    if abs(now - signed_at) > timedelta(seconds=SKEW_S):
        raise Refused(
            ApiRefusal.REQUEST_EXPIRED, f"it was signed at {claim.stamp}, and it is {now:%Y%m%dT%H%M%SZ} here"
        )
    return claim


def verify(claim: Claim, secret: bytes, headers: Headers, body: bytes) -> None:
    """Raises ``Refused``. ``POST /`` and no query string are the caller's to see to."""
    digest = hashlib.sha256(body).hexdigest()
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(" ".join(value.split()))
    if any(name not in values for name in claim.signed_headers):
        raise Refused(ApiRefusal.SIGNATURE_MISMATCH, "a signed header is not there")
    canonical = "\n".join(
        [
            "POST",
            "/",
            "",
            *(f"{name}:{','.join(values[name])}" for name in claim.signed_headers),
            "",
            ";".join(claim.signed_headers),
            digest,
        ]
    )
    to_sign = "\n".join([ALGORITHM, claim.stamp, claim.scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + secret
    for part in (claim.day, claim.region, claim.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, to_sign.encode(), "sha256").hex(), claim.signature):
        raise Refused(ApiRefusal.SIGNATURE_MISMATCH, "the signature does not fit the request and the key's secret")


REMEMBERED_S = 7 * 86_400.0
"""How long the signature of a change is at least, on the steady clock. It is good for some minutes, which come again
when the wall clock is put back."""
HONEST_REPEAT_S = 2.0
"""Two requests with the same parameters, signed within one second, have the same signature (seen with boto3). So much
later at most an honest second one arrives."""


def check_repeat(first: SeenRequest | None, sender: str, now: float) -> None:
    """A recorded change must not do its work again; reading may be repeated. ``first``: when it was taken before, if
    it ever was, and by which connection: only who holds that one can have signed the same again. ``now``: of the
    steady clock."""
    if first is None or (first.sender == sender and now - first.at <= HONEST_REPEAT_S):
        return
    raise Refused(ApiRefusal.REQUEST_REPLAYED, "this very request was accepted before")
