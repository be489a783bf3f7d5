"""Questions that go with the password, and how clients answer them (openvpn-wire.md 15.2): in the password field.

Whatever judges the answer (``totp``, ``radius_codes``), the way there is the same: the directory is asked first, so
that whoever has no password learns nothing about second factors."""

from __future__ import annotations

import base64
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from cvpnd.auth.directory import Account, Directory
from cvpnd.auth.identity import Refused
from cvpnd.auth.revoked_logins import LoginUnderWay
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

STATIC = b"SCRV1:"
DYNAMIC = b"CRV1::"
QUESTION = "Enter MFA code "
"""The text that AWS's profiles have, so that clients which look for it find it."""
MOST_QUESTION_BYTES = 400
"""A message to a client has 1024, with the state and the user's name in base64."""
QUESTION_LIFETIME_S = 180.0
"""A person looks for a telephone and types."""
AS_PEOPLE_TYPE = b" -\t"
"""What is no part of a code."""
KEPT = 4096
KEPT_OF_ACCOUNT = 4
STATE_BYTES = 18


def split_static(password: Secret) -> tuple[Secret, Secret] | None:
    """Password and answer of ``SCRV1:…:…``; None if it is none."""
    if not password.startswith(STATIC) or (parts := password.partition(b":", len(STATIC))) is None:
        return None
    typed, answer = parts[0].from_base64(), parts[1].from_base64()
    return None if typed is None or answer is None else (typed, answer)


def split_dynamic(password: Secret) -> tuple[str, Secret] | None:
    """State and answer of ``CRV1::…::…``, in which the answer may have colons; None if it is none."""
    if not password.startswith(DYNAMIC) or (parts := password.partition(b"::", len(DYNAMIC))) is None:
        return None
    return parts[0].text(), parts[1]


def question_text(text: str) -> str:
    """What a server of somebody else's wants asked, fit for a line that a client shows."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    cut = line.encode("utf-8", "replace")[:MOST_QUESTION_BYTES].decode("utf-8", "ignore")
    return f"{cut} " if cut else QUESTION


@dataclass(frozen=True, slots=True)
class Asker:
    """Where a question is asked, and its answer has to come back to."""

    endpoint_id: str
    directory: str
    certificate_fingerprint: str
    login: LoginUnderWay = field(compare=False)
    """Of who is asked: the answer comes with another one."""


@dataclass(frozen=True, slots=True)
class Proven:
    """Somebody whose password was right, and what came besides it."""

    asker: Asker
    username: str
    """As it was typed."""
    account: Account
    code: Secret
    """Empty: none came."""
    password: Secret = field(default_factory=Secret)
    """Empty where a question was answered, unless it was kept for that."""
    answers: bool = False
    """A question that was put, and not merely the password's."""
    memory: object = None
    """What whoever put the question wanted back with the answer."""


@dataclass(frozen=True)
class Challenged(Refused):
    """Not yet let in: the client comes back with the answer to ``text``, which follows ``AUTH_FAILED,``."""

    text: str


@dataclass(frozen=True)
class Asked(Challenged):
    """The password is right, and the answer to a question is wanted, on whichever way."""

    state: str
    question: str
    echo: bool
    """The answer may be seen while it is typed."""

    def answered(self, answer: Secret) -> Secret:
        """What then stands in the password's place."""
        return Secret(DYNAMIC + self.state.encode() + b"::") + answer


class Questions:
    """Those without an answer yet: each is good once, for a while, and for whom it was put to. Any thread may ask.
    Only somebody whose password was right gets one, and of each account a few are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[Proven, float]] = OrderedDict()
        """Until when it is good; the oldest first."""

    def prove(
        self, asker: Asker, directory: Directory, username: str, password: Secret, now: float
    ) -> Proven | Refused:
        """Asks the directory about what came in the password field."""
        if password.startswith(DYNAMIC):
            return self._answered(asker, directory, username, password, now)
        code = Secret()
        if password.startswith(STATIC):
            if (parts := split_static(password)) is None:
                return Refused(Refusal.CHALLENGE_UNEXPECTED, "the password has not the form of an answered challenge")
            password, code = parts
        if not password:
            return Refused(Refusal.CREDENTIALS_MISSING, "no password beside the code")
        account = directory.log_in(username, password)
        if isinstance(account, Refused):
            return account
        return Proven(asker, username, account, code, password.copy())

    def _answered(
        self, asker: Asker, directory: Directory, username: str, password: Secret, now: float
    ) -> Proven | Refused:
        parts = split_dynamic(password)
        proven = None if parts is None else self._take(parts[0], asker, username, now)
        if parts is None or proven is None:
            return Refused(Refusal.CHALLENGE_UNEXPECTED, "it answers no challenge that is open for this user")
        account = directory.look_up(proven.account.name)  # minutes may have passed since
        if isinstance(account, Refused):
            return account
        if proven.asker.login.is_ended(asker.directory, account.name):
            return Refused(Refusal.TERMINATED, f"the logins of {account.name} were ended while a code was asked")
        if account.stamp != proven.account.stamp:
            return Refused(Refusal.WRONG_PASSWORD, "it was changed while a code was asked")
        return replace(proven, account=account, code=parts[1], answers=True)

    def ask(
        self, proven: Proven, now: float, text: str = QUESTION, *, echo: bool = True, memory: object = None,
        keep_password: bool = False,
    ) -> Asked:  # fmt: skip
        """``memory`` comes back with the answer, and the password if it is kept. ``echo``: a code is worth nothing a
        minute later."""
        state = secrets.token_urlsafe(STATE_BYTES)
        password = proven.password if keep_password else Secret()
        put = replace(proven, code=Secret(), password=password, answers=False, memory=memory)
        whose = (proven.asker.directory, proven.account.name)
        self.expire(now)
        with self._lock:
            own = [key for key, (each, _) in self._open.items() if (each.asker.directory, each.account.name) == whose]
            for old in own[: max(0, len(own) + 1 - KEPT_OF_ACCOUNT)]:
                del self._open[old]
            while len(self._open) >= KEPT:
                self._open.popitem(last=False)
            self._open[state] = put, now + QUESTION_LIFETIME_S
        name = base64.b64encode(proven.username.encode("utf-8", "surrogateescape")).decode()
        challenge = f"CRV1:{'R,E' if echo else 'R'}:{state}:{name}:{text}"
        what = f"{proven.account.name} is asked for a code"
        return Asked(Refusal.MFA_REQUIRED, what, challenge, state, text, echo)

    def expire(self, now: float) -> None:
        """Nobody has answered in time; a password may be among what was kept for it."""
        with self._lock:
            for old in [key for key, (_, until) in self._open.items() if until < now]:
                del self._open[old]

    def _take(self, state: str, asker: Asker, username: str, now: float) -> Proven | None:
        """None: it was never put, not here, not to them, or is over; a state that anybody has shown is worth nothing
        afterwards."""
        with self._lock:
            found = self._open.pop(state, None)
        if found is None:
            return None
        proven, until = found
        return proven if (proven.asker, proven.username) == (asker, username) and now <= until else None
