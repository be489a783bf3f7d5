"""Which logins somebody has ended: what was written for them before, and those that are under way at that moment.

A login may stand for minutes between its first yes and its end: at a second factor, in a browser, at a client connect
handler, waiting for an address. So it remembers when it began, and whatever is kept of it on the way remembers that
too; it lets nobody in once the logins of its user were ended since."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import xor

from cvpnd.auth.tokens import MARK_BYTES, NO_MARK, Token
from cvpnd.spelling import any_spelling

LONGEST_LOGIN_S = 86_400.0
"""More than any login takes, or a session of the self-service pages lasts."""


class RevokedLogins:
    """Which tokens are worth nothing although their time is not over: those of one login, or those of a user, of their
    account in one directory, or of them at one endpoint, of before.

    What was before no clock says. Each time a user's logins are ended they get another mark, a random number, and a
    token is good for as long as its own is the one of its user. So nothing counts up that a database restored from a
    backup could count up once more.

    Logins that are under way are of this process, whose steady clock tells what was before. Changed on the event loop's
    thread; any may ask."""

    def __init__(self) -> None:
        self._marks: dict[str, bytes] = {}
        """By subject; of a login that there is one says enough."""
        self._stored: dict[str, bytes] = {}
        """As the store had them when it was read last."""
        self._was_read = False
        """The store, by this process."""
        self._unwritten: dict[str, bytes] = {}
        """Those of them that the store is to have, and does not have yet."""
        self._ended_at: dict[str, float] = {}
        """On the steady clock, or when this process heard of it; the oldest first, and none before
        ``LONGEST_LOGIN_S``."""

    @staticmethod
    def of_user(username: str) -> str:
        """Whoever has that name, in whichever directory; as ``any_spelling`` has it, all who have one that is spelled
        otherwise."""
        return f"user {username}"

    @staticmethod
    def of_user_at(endpoint_id: str, username: str) -> str:
        """The same at one endpoint."""
        return f"user-at {endpoint_id} {username}"

    @staticmethod
    def of_account(directory: str, username: str) -> str:
        return f"account {directory} {username}"

    @staticmethod
    def of_login(token: Token) -> str:
        return f"login {token.login_id.hex()}"

    @staticmethod
    def new_marks(subjects: Iterable[str]) -> dict[str, bytes]:
        return {subject: secrets.token_bytes(MARK_BYTES) for subject in subjects}

    def add(self, marks: Mapping[str, bytes], now: float) -> None:
        for subject, mark in marks.items():
            if self._marks.get(subject) != mark:
                self._marks[subject] = mark
                self._ended_at.pop(subject, None)  # to be the latest
                self._ended_at[subject] = now
        while self._ended_at and self._ended_at[oldest := next(iter(self._ended_at))] < now - LONGEST_LOGIN_S:
            del self._ended_at[oldest]

    def hold(self, marks: Mapping[str, bytes]) -> None:
        """Added ones, whatever is read from the store while they wait to be written there."""
        self._unwritten |= marks

    def unwritten(self, subjects: Iterable[str]) -> dict[str, bytes]:
        """Those of them that are held."""
        return {subject: self._unwritten[subject] for subject in subjects if subject in self._unwritten}

    def release(self, marks: Mapping[str, bytes]) -> None:
        """The store has them."""
        self._stored |= marks
        for subject, mark in marks.items():
            if self._unwritten.get(subject) == mark:
                del self._unwritten[subject]

    def replace(self, stored: Mapping[str, tuple[bytes, float]], now: float) -> set[str]:
        """By the marks that the store has, and when they were made. What another gateway has written there since this
        process read it last counts from now: those subjects are returned. What was there at first counts from then: a
        login of now that another process began, in a browser, may be later than that.

        Where it has ended what is held here, neither's mark will do for what was written with the other: such a
        subject gets another mark."""
        if not self._was_read:
            self._was_read = True
            for subject, (mark, at) in sorted(stored.items(), key=lambda item: item[1][1]):
                self.add({subject: mark}, min(at, now))
        marks = {subject: mark for subject, (mark, _) in stored.items()}
        others = {subject for subject, mark in marks.items() if self._stored.get(subject) != mark}
        self._stored = marks
        again = {each for each in others if self._unwritten.get(each, marks[each]) != marks[each]}
        self._unwritten |= self.new_marks(again)
        news = {subject for subject in others if self._marks.get(subject) != marks[subject]}
        marks = {**marks, **self._unwritten}
        self.add(marks, now)
        self._marks = marks
        return news

    def mark(self, endpoint_id: str, directory: str, username: str) -> bytes:
        """What tokens of now get: it is another once one of the subjects' is."""
        marks = [self._marks.get(subject, NO_MARK) for subject in self._subjects(endpoint_id, directory, username)]
        return bytes(reduce(xor, each) for each in zip(*marks, strict=True))

    def covers(self, token: Token, endpoint_id: str, directory: str, username: str) -> bool:
        return self.of_login(token) in self._marks or token.mark != self.mark(endpoint_id, directory, username)

    def begin(self, endpoint_id: str, now: float) -> LoginUnderWay:
        return LoginUnderWay(self, endpoint_id, now)

    def ended_since(self, began_at: float, subjects: Iterable[str]) -> bool:
        return any(began_at <= self._ended_at.get(subject, float("-inf")) for subject in subjects)

    def _subjects(self, endpoint_id: str, directory: str, username: str) -> set[str]:
        return {self.of_account(directory, username), *self.of_names(endpoint_id, [username])}

    @classmethod
    def of_names(cls, endpoint_id: str, names: Iterable[str]) -> set[str]:
        """All by which somebody called so at that endpoint is ended by name."""
        spellings = {spelling for name in names for spelling in (name, any_spelling(name))}
        return {cls.of_user(each) for each in spellings} | {cls.of_user_at(endpoint_id, each) for each in spellings}


@dataclass(frozen=True, slots=True)
class LoginUnderWay:
    """From the first word of somebody who logs in, to whatever is kept of it."""

    revoked_logins: RevokedLogins
    endpoint_id: str
    began_at: float

    def is_ended(self, directory: str, username: str, common_name: str = "") -> bool:
        """``common_name``: of the certificate, by which sessions are ended too."""
        there = self.revoked_logins
        subjects = there.of_names(self.endpoint_id, {username, common_name} - {""})
        return there.ended_since(self.began_at, {there.of_account(directory, username), *subjects})
