"""auth-token: what a client shows instead of its user's password once that was right (openvpn-wire.md 15.4).

A token says who logged in where, when, and until when it is good; nothing of it is kept here but the key of the HMAC.
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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from cvpnd.secret import Secret

PREFIX = "SESS_ID_AT_"
"""The reference's, which some clients know tokens by."""
KEY_BYTES = 32
LIFETIME_S = 86_400
"""Where the endpoint has no session timeout."""

SECRET_BYTES = 18
"""144 bits; in base64 without padding, and with everything else in the 127 characters that old clients take."""

_FIELDS = struct.Struct(">12sQQ")
_DIGEST_BYTES = 32
_CHARACTERS = {len(PREFIX) + 4 * (_FIELDS.size + secret + _DIGEST_BYTES) // 3 for secret in (0, SECRET_BYTES)}


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
    """Seconds since the epoch, as the next."""
    expires_at: int
    secret: bytes = field(default=b"", repr=False)
    """The client's; empty where nothing is kept that it opens."""

    @classmethod
    def new(cls, now: float, lifetime_s: int, *, with_secret: bool = False) -> Self:
        secret = secrets.token_bytes(SECRET_BYTES) if with_secret else b""
        return cls(secrets.token_bytes(12), int(now), int(now) + lifetime_s, secret)

    @classmethod
    def claimed(cls, text: str) -> Self | None:
        """What a token says of itself, proven by nothing: to find out whose it is before it is read."""
        raw = _decoded(text)
        if raw is None:
            return None
        login_id, logged_in_at, expires_at = _FIELDS.unpack_from(raw)
        return cls(login_id, logged_in_at, expires_at, raw[_FIELDS.size : -_DIGEST_BYTES])


class Revocations:
    """Which tokens are worth nothing although their time is not over: of a user or of their account in one directory up
    to a moment, or of one login."""

    def __init__(self, at: Mapping[str, float] = MappingProxyType({})) -> None:
        self._at = dict(at)

    @staticmethod
    def of_user(username: str) -> str:
        """Whoever has that name, in whichever directory."""
        return f"user {username}"

    @staticmethod
    def of_account(directory: str, username: str) -> str:
        return f"account {directory} {username}"

    @staticmethod
    def of_login(token: Token) -> str:
        return f"login {token.login_id.hex()}"

    def add(self, subjects: Iterable[str], now: float) -> None:
        self._at |= dict.fromkeys(subjects, now)

    def covers(self, token: Token, directory: str, username: str) -> bool:
        """A token knows whole seconds only: one of the same second is covered too."""
        if self.of_login(token) in self._at:
            return True
        either = (self.of_user(username), self.of_account(directory, username))
        return token.logged_in_at <= max(self._at.get(subject, float("-inf")) for subject in either)


def looks_like_token(password: Secret) -> bool:
    return password.startswith(PREFIX.encode())


def _decoded(text: str) -> bytes | None:
    if len(text) not in _CHARACTERS or not text.startswith(PREFIX):
        return None
    try:
        return base64.b64decode(text[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        return None


class TokenKey:
    """Never show it: there is no repr of the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def write(self, token: Token, owner: TokenOwner) -> str:
        fields = _FIELDS.pack(token.login_id, token.logged_in_at, token.expires_at) + token.secret
        return PREFIX + base64.b64encode(fields + self._digest(fields, owner)).decode()

    def read(self, text: str, owner: TokenOwner) -> Token | None:
        """None unless it was written for this owner with this key. Whether it has expired is for the caller."""
        raw = _decoded(text)
        if raw is None or not hmac.compare_digest(raw[-_DIGEST_BYTES:], self._digest(raw[:-_DIGEST_BYTES], owner)):
            return None
        return Token.claimed(text)

    def _digest(self, fields: bytes, owner: TokenOwner) -> bytes:
        words = (owner.endpoint_id, owner.directory, owner.username, owner.certificate_fingerprint)
        parts = [b"cvpnd auth-token 1", *(word.encode() for word in words), owner.stamp, fields]
        message = b"".join(struct.pack(">I", len(part)) + part for part in parts)
        return hmac.digest(self._key, message, "sha256")
