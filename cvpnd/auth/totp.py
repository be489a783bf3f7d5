"""Codes of an authenticator app (RFC 6238, as every app has it) on top of a right password.

A code counts for its own half minute and the ones beside it, and once: none up to the latest that was taken is taken
again, on any gateway with the same database. Wrong codes slow down the account, wherever they come from: only somebody
with its password gets so far, and a recovery code is taken even then. All of it runs in the directory's threads."""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from cvpnd.auth.challenge import AS_PEOPLE_TYPE, Asker, Questions
from cvpnd.auth.directory import Account, Directory
from cvpnd.auth.identity import Refused
from cvpnd.auth.throttle import CodeThrottle
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

SECRET_BYTES = 20
DIGITS = 6
STEP_S = 30
BESIDE = 1
"""Steps before and after this one that count too: clocks differ, and people type."""
RECOVERY_CODES = 10
_RECOVERY_BYTES = 10


class Enrolled(Protocol):
    """An authenticator as the store has it."""

    @property
    def secret(self) -> bytes: ...
    @property
    def last_step(self) -> int: ...
    @property
    def person(self) -> bytes: ...


class Authenticators(Protocol):
    """Where they are kept (``store``). Called from threads; raises if it cannot tell, and then nobody gets in."""

    def authenticator(self, directory: str, username: str) -> Enrolled | None: ...

    def take_step(self, directory: str, username: str, step: int) -> bool:
        """False: this one or a later one has been taken."""
        ...

    def take_recovery_code(self, directory: str, username: str, digest: str) -> bool:
        """False: it is none of those that are left."""
        ...


class Totp:
    """Any thread may ask."""

    def __init__(
        self,
        authenticators: Authenticators,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``wall``: the authenticator apps' time; everything else goes by ``clock``."""
        self._authenticators = authenticators
        self._wall = wall
        self._clock = clock
        self._questions = Questions()
        self._throttle = CodeThrottle()

    def log_in(self, asker: Asker, directory: Directory, username: str, password: Secret) -> Account | Refused:
        proven = self._questions.prove(asker, directory, username, password, self._clock())
        if isinstance(proven, Refused):
            return proven
        if proven.code or proven.answers:
            return self._check(asker.directory, proven.account, proven.code)
        enrolled = self._enrolled(asker.directory, proven.account)
        return enrolled if isinstance(enrolled, Refused) else self._questions.ask(proven, self._clock())

    def _check(self, directory: str, account: Account, code: Secret) -> Account | Refused:
        enrolled = self._enrolled(directory, account)
        if isinstance(enrolled, Refused):
            return enrolled
        typed = code.without(AS_PEOPLE_TYPE)
        if len(typed) != DIGITS or not all(0x30 <= byte <= 0x39 for byte in typed.view()):
            digest = recovery_digest(enrolled.secret, typed)  # no guess finds one of these: never held up
            if self._authenticators.take_recovery_code(directory, account.name, digest):
                return account
            return Refused(Refusal.MFA_CODE_WRONG, f"{account.name} sent neither a code nor an unused recovery code")
        key, now = (directory, account.name), self._clock()
        if (wait_s := self._throttle.begin(key, now)) > 0:
            return Refused(Refusal.MFA_THROTTLED, f"{account.name} may send a code again in {wait_s:.0f} s")
        step = _step_of(enrolled.secret, typed, self._wall())
        if step is None:
            return Refused(Refusal.MFA_CODE_WRONG, f"the code of {account.name} is not that of this minute")
        if step <= enrolled.last_step or not self._authenticators.take_step(directory, account.name, step):
            return Refused(Refusal.MFA_CODE_REUSED, f"the code of {account.name}, or a later one, was used before")
        self._throttle.right(key)
        return account

    def _enrolled(self, directory: str, account: Account) -> Enrolled | Refused:
        """The account's own authenticator: that of who had its name before is nobody's any more."""
        enrolled = self._authenticators.authenticator(directory, account.name)
        fix = f"cvpnctl user totp enrol {account.name} --directory {directory}"
        if enrolled is None:
            return Refused(Refusal.MFA_NOT_ENROLLED, f"{account.name} has no authenticator; {fix}")
        if enrolled.person and account.person and enrolled.person != account.person:
            what = f"the authenticator of {account.name} is that of another person, who had the name before"
            return Refused(Refusal.MFA_NOT_ENROLLED, f"{what}; {fix}")
        return enrolled


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def provisioning_uri(secret: bytes, username: str, issuer: str) -> str:
    """What the QR code says."""
    return _totp(secret).get_provisioning_uri(username, issuer)


def new_recovery_codes() -> list[str]:
    """To be shown once."""
    texts = (base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower() for _ in range(RECOVERY_CODES))
    return ["-".join(text[i : i + 4] for i in range(0, len(text), 4)) for text in texts]


def recovery_digest(secret: bytes, code: Secret) -> str:
    """What is kept of a recovery code: nothing to try codes on without the secret."""
    return hmac.digest(secret, code.without(AS_PEOPLE_TYPE).view(), "sha256").hex()


def _step_of(secret: bytes, code: Secret, now: float) -> int | None:
    """Every step takes its time, whichever is the right one. Two with the same code: the later one."""
    found = None
    here = int(now) // STEP_S
    for step in range(here - BESIDE, here + BESIDE + 1):
        if hmac.compare_digest(_totp(secret).generate(step * STEP_S), code.view()):
            found = step
    return found


def _totp(secret: bytes) -> TOTP:
    return TOTP(secret, DIGITS, SHA1(), STEP_S)  # noqa: S303 - HMAC-SHA1, the one that every app knows
