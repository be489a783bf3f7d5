"""auth-token: what a client shows instead of its user's password once that was right (openvpn-wire.md 15.4).

A token says which login it is of, when that was and for how long it is good; nothing of it is kept here but the key of
the HMAC. Clocks are set, and stand wrong for as long as nobody notices: so a token says the time of two, the wall clock
and the steady one (``server/steady_clock.py``), and what ends it before its time has no date at all but a mark.
Whatever a client does with it, renegotiate or reconnect a thousand times, it gets no other end than the first login
gave it. The HMAC covers what is not in the token too: endpoint, directory, user, certificate, and the stamp of the
account, so that a token of another is worth nothing, and none outlives a changed password.

Where something is kept that only who holds the token may open (``kept_passwords``), it has a secret for that, which the
gateway does not keep."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import struct
from dataclasses import dataclass, field
from typing import Self

from cvpnd.secret import Secret

PREFIX = "SESS_ID_AT_"
"""The reference's, which some clients know tokens by."""
KEY_BYTES = 32
LIFETIME_S = 86_400
"""Where the endpoint has no session timeout."""

SECRET_BYTES = 18
"""144 bits; in base64 without padding, and with everything else in the 127 characters that old clients take."""

MARK_BYTES = 6
NO_MARK = bytes(MARK_BYTES)

_FIELDS = struct.Struct(f">12sQII{MARK_BYTES}s")
_FIELDS_1 = struct.Struct(">12sQQ")
"""Of tokens that cvpnd wrote before there was a steady clock: login id, login and expiry in seconds since the epoch."""
_DIGEST_BYTES = 32
_FORMS = {
    fields.size + secret + _DIGEST_BYTES: fields for fields in (_FIELDS, _FIELDS_1) for secret in (0, SECRET_BYTES)
}
"""By length. All are multiples of three, which base64 does not pad."""
_CHARACTERS = {len(PREFIX) + 4 * size // 3 for size in _FORMS}
_LABELS = {_FIELDS: b"cvpnd auth-token 2", _FIELDS_1: b"cvpnd auth-token 1"}


@dataclass(frozen=True, slots=True)
class TokenOwner:
    endpoint_id: str
    directory: str
    username: str
    certificate_fingerprint: str
    stamp: bytes


@dataclass(frozen=True, slots=True)
class Token:
    login_id: bytes
    logged_in_at: int
    """Seconds since the epoch."""
    lifetime_s: int
    steady_at: int = 0
    """The same moment on the steady clock, which is no older than tokens that do not say it."""
    mark: bytes = NO_MARK
    """``RevokedLogins.mark`` of then."""
    secret: bytes = field(default=b"", repr=False)
    """The client's; empty where nothing is kept that it opens."""

    @classmethod
    def new(
        cls, now: float, lifetime_s: int, *, steady: float = 0.0, mark: bytes = NO_MARK, with_secret: bool = False
    ) -> Self:
        secret = secrets.token_bytes(SECRET_BYTES) if with_secret else b""
        return cls(secrets.token_bytes(12), int(now), lifetime_s, int(steady), mark, secret)

    @property
    def expires_at(self) -> int:
        """Seconds since the epoch."""
        return self.logged_in_at + self.lifetime_s

    @classmethod
    def claimed(cls, text: str) -> Self | None:
        """What a token says of itself, proven by nothing: to find out whose it is before it is read."""
        raw = _decoded(text)
        if raw is None:
            return None
        form = _FORMS[len(raw)]
        secret = raw[form.size : -_DIGEST_BYTES]
        if form is _FIELDS_1:
            login_id, logged_in_at, expires_at = form.unpack_from(raw)
            return cls(login_id, logged_in_at, expires_at - logged_in_at, secret=secret)
        login_id, logged_in_at, lifetime_s, steady_at, mark = form.unpack_from(raw)
        return cls(login_id, logged_in_at, lifetime_s, steady_at, mark, secret)

    def age_s(self, now: float, steady: float) -> float:
        """By the clock that says more. One that is behind the login by so much counts as if it were ahead: how much
        time has passed it cannot say, and a clock that was years ahead must not have written tokens for years."""
        return max(steady - self.steady_at, abs(now - self.logged_in_at))


def looks_like_token(password: Secret) -> bool:
    return password.startswith(PREFIX.encode())


def _decoded(text: str) -> bytes | None:
    if len(text) not in _CHARACTERS or not text.startswith(PREFIX):
        return None
    try:
        raw = base64.b64decode(text[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) in _FORMS else None


class TokenKey:
    """Never show it: there is no repr of the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def write(self, token: Token, owner: TokenOwner) -> str:
        packed = _FIELDS.pack(token.login_id, token.logged_in_at, token.lifetime_s, token.steady_at, token.mark)
        fields = packed + token.secret
        return PREFIX + base64.b64encode(fields + self._digest(_FIELDS, fields, owner)).decode()

    def read(self, text: str, owner: TokenOwner) -> Token | None:
        """None unless it was written for this owner with this key. Whether it has expired is for the caller."""
        raw = _decoded(text)
        if raw is None:
            return None
        digest = self._digest(_FORMS[len(raw)], raw[:-_DIGEST_BYTES], owner)
        return Token.claimed(text) if hmac.compare_digest(raw[-_DIGEST_BYTES:], digest) else None

    def _digest(self, form: struct.Struct, fields: bytes, owner: TokenOwner) -> bytes:
        words = (owner.endpoint_id, owner.directory, owner.username, owner.certificate_fingerprint)
        parts = [_LABELS[form], *(word.encode() for word in words), owner.stamp, fields]
        message = b"".join(struct.pack(">I", len(part)) + part for part in parts)
        return hmac.digest(self._key, message, "sha256")
