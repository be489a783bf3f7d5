"""Who is logged in at the self-service pages, with which browser, for how long.

In memory and of this process: after a restart people log in again. A stranger gets no place here, only a cookie that
ties the login form to the browser it was shown to; whoever has one here has shown a right password."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from cvpnd.auth.challenge import Asked
from cvpnd.auth.directory import Account
from cvpnd.auth.revoked_logins import LoginUnderWay

SESSION_S = 900.0
"""From the login on; nothing makes it longer."""
ASKED_S = 180.0
"""How long a question waits for its answer."""
_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}")
KEPT = 4096
KEPT_OF_NAME = 8
"""Browsers of one person; the oldest goes."""


@dataclass(frozen=True, slots=True)
class Session:
    endpoint_id: str
    methods: tuple[object, ...]
    """What a login consisted of when this one was made: it is worth nothing once that has changed."""
    username: str
    """The account's; as it was typed while a code is asked."""
    proof: Account | Asked
    """Logged in, or asked for a code after a right password."""
    until: float
    login: LoginUnderWay
    """Since its first word: worth nothing once somebody has ended the logins of before."""
    request_id: str = ""
    """What the identity provider was asked; empty with a password."""


def new_cookie() -> str:
    return secrets.token_urlsafe(32)


def is_cookie(text: str) -> bool:
    """One of ours has this form. What a browser sends as such is shown to it again."""
    return _COOKIE.fullmatch(text) is not None


class Sessions:
    """On the event loop's thread only. ``now`` is monotonic."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._open: OrderedDict[bytes, Session] = OrderedDict()
        """By the cookie's digest, so that how long a look-up takes says nothing of a cookie; the oldest first."""

    def form_word(self, cookie: str, endpoint_id: str) -> str:
        """What a form of ours carries, and no other page can know, in the browser with this cookie."""
        return hmac.new(self._key, f"{endpoint_id} {cookie}".encode(), hashlib.sha256).hexdigest()

    def is_form_word(self, word: str, cookie: str, endpoint_id: str) -> bool:
        return bool(cookie) and hmac.compare_digest(word.encode(), self.form_word(cookie, endpoint_id).encode())

    def open(self, session: Session, now: float) -> str:
        """The cookie."""
        for key in [key for key, each in self._open.items() if each.until <= now]:
            del self._open[key]
        whose = session.endpoint_id, session.username
        own = [key for key, each in self._open.items() if (each.endpoint_id, each.username) == whose]
        for key in own[: max(0, len(own) + 1 - KEPT_OF_NAME)]:
            del self._open[key]
        while len(self._open) >= KEPT:
            self._open.popitem(last=False)
        cookie = new_cookie()
        self._open[_digest(cookie)] = session
        return cookie

    def find(self, cookie: str, endpoint_id: str, now: float) -> Session | None:
        found = self._open.get(_digest(cookie))
        return found if found is not None and found.endpoint_id == endpoint_id and now < found.until else None

    def close(self, cookie: str) -> None:
        self._open.pop(_digest(cookie), None)


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()
