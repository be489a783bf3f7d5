"""How clients answer a question that goes with the password (openvpn-wire.md 15.2): in the password field."""

from __future__ import annotations

import base64
import binascii
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from cvpnd.auth.directory import Account

STATIC = "SCRV1:"
DYNAMIC = "CRV1::"
QUESTION = "Enter MFA code "
"""The text that AWS's profiles have, so that clients which look for it find it."""
LIFETIME_S = 180.0
"""A person looks for a telephone and types."""
KEPT = 4096
KEPT_OF_ACCOUNT = 4
STATE_BYTES = 18


def split_static(password: str) -> tuple[str, str] | None:
    """Password and answer of ``SCRV1:…:…``; None if it is none."""
    parts = password.removeprefix(STATIC).split(":")
    if not password.startswith(STATIC) or len(parts) != 2:
        return None
    try:
        typed, answer = (base64.b64decode(part, validate=True) for part in parts)
    except (binascii.Error, ValueError):
        return None
    return typed.decode("utf-8", "surrogateescape"), answer.decode("utf-8", "surrogateescape")


def split_dynamic(password: str) -> tuple[str, str] | None:
    """State and answer of ``CRV1::…::…``, in which the answer may have colons; None if it is none."""
    state, separator, answer = password.removeprefix(DYNAMIC).partition("::")
    return (state, answer) if password.startswith(DYNAMIC) and separator else None


def question(state: str, username: str) -> str:
    """What follows ``AUTH_FAILED,``. The answer may be seen while it is typed: it is worth nothing a minute later."""
    name = base64.b64encode(username.encode("utf-8", "surrogateescape")).decode()
    return f"CRV1:R,E:{state}:{name}:{QUESTION}"


@dataclass(frozen=True, slots=True)
class Asker:
    """Where a question is asked, and its answer has to come back to."""

    endpoint_id: str
    directory: str
    certificate_fingerprint: str


@dataclass(frozen=True, slots=True)
class _Question:
    asker: Asker
    username: str
    account: Account
    until: float = field(repr=False)


class Questions:
    """Those without an answer yet: each is good once, for a while, and for whom it was put to. Any thread may ask.
    Only somebody whose password was right gets one, and of each account a few are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Question] = OrderedDict()

    def put(self, asker: Asker, username: str, account: Account, now: float) -> str:
        """Its state, which the client brings back."""
        state = secrets.token_urlsafe(STATE_BYTES)
        with self._lock:
            own = [
                key
                for key, q in self._open.items()
                if (q.asker.directory, q.account.name) == (asker.directory, account.name)
            ]
            for old in own[: max(0, len(own) + 1 - KEPT_OF_ACCOUNT)]:
                del self._open[old]
            while len(self._open) >= KEPT:
                self._open.popitem(last=False)
            self._open[state] = _Question(asker, username, account, now + LIFETIME_S)
        return state

    def take(self, state: str, asker: Asker, username: str, now: float) -> Account | None:
        """Whose password was right when it was put. None: it was never, not here, not to them, or is over; a state that
        anybody has shown is worth nothing afterwards."""
        with self._lock:
            found = self._open.pop(state, None)
        if found is None or (found.asker, found.username) != (asker, username) or now > found.until:
            return None
        return found.account
