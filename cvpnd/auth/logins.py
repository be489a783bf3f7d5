"""Passwords against directories, off the event loop: bounded in number, in time, and in what an answer gives away.

Each directory has threads of its own, so that one which hangs holds up nobody else's logins; a thread that it holds
cannot be taken back, so what would have to wait for one too long is refused instead. Attempts on one account from one
source take turns, because only the outcome of one tells whether the next may be made at all; an attempt whose client
has left goes on without it, else whoever hangs up early would guess uncounted. A failure is answered after
``FAILURE_TAKES_S``, or twice or three times that: unknown users, wrong passwords and disabled accounts look alike,
whatever the directory makes of them."""

from __future__ import annotations

import asyncio
import math
import time
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from cvpnd.auth.challenge import DYNAMIC, STATIC, Proven
from cvpnd.auth.directory import Account, Directory
from cvpnd.auth.health import Latency
from cvpnd.auth.identity import MAX_NAME_CHARACTERS, Refused, problem_with_user_name
from cvpnd.auth.throttle import LoginThrottle
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

MOST_PENDING = 1024
"""Of one directory, from one that waits for its turn to one that a hung server has kept past its deadline."""
MOST_PENDING_OF_SOURCE = 512
"""A large office behind one address, and no single address all of them."""
MOST_PENDING_OF_PAIR = 32
FAILURE_TAKES_S = 1.0
OWN_FAULT = frozenset(
    {
        Refusal.USER_UNKNOWN,
        Refusal.WRONG_PASSWORD,
        Refusal.ACCOUNT_DISABLED,
        Refusal.ACCOUNT_EXPIRED,
        Refusal.ACCOUNT_LOCKED,
        Refusal.ACCOUNT_UNCHECKED,
        Refusal.PASSWORD_EXPIRED,
        Refusal.MUST_CHANGE_PASSWORD,
        Refusal.LOGON_HOURS,
        Refusal.MFA_NOT_ENROLLED,
        Refusal.MFA_CODE_WRONG,
        Refusal.MFA_CODE_REUSED,
        Refusal.MFA_REJECTED,
        Refusal.MFA_THROTTLED,
    }
)
"""A directory has answered, and the answer is no. To the client all of these are one."""
NOBODY_MAY_LOOK = (Refusal.USER_UNKNOWN, Refusal.ACCOUNT_UNCHECKED)
"""What a directory says in which nobody but the user could look."""
MOST_REMEMBERED = 50_000
"""Names of one directory, as they were typed and as they are written there."""
_Answer = TypeVar("_Answer", Account | Refused, Account | Refused | Proven)
KeptPassword = Callable[[], Secret | None]
"""Of an earlier login. Called in the directory's threads, if the directory can be asked in no other way."""
OURSELVES = "-"
"""The source of what no client asked for."""


class SecondFactor(NamedTuple):
    prove: Callable[[Directory, str, Secret], Account | Refused | Proven]
    """Asks the directory about name and password as they came from the client. Called in its threads."""
    judge: Callable[[Proven], Awaitable[Account | Refused]] | None = None
    """What becomes of somebody proven, on the event loop: others are asked, and hold up none of the threads."""


@dataclass(slots=True)
class _Known:
    said: Account | Refused
    asked_at: float


class _Desk:
    """What is under way with one directory, and what it has said last of those who are or may come back."""

    def __init__(self, name: str, directory: Directory, clock: Callable[[], float]) -> None:
        self.directory = directory
        self._clock = clock
        self._accounts: dict[str, _Known] = {}
        """By each name. Those of one account share what is known, so that no other way to write the name brings back an
        account that has changed."""
        self.threads = ThreadPoolExecutor(directory.at_once, thread_name_prefix=f"login-{name}")
        self.pending: Counter[str] = Counter()
        """By source."""
        self.latency = Latency()

    def crowded(self, source: str) -> Refused | None:
        pending, own = self.pending.total(), self.pending[source]
        if pending < MOST_PENDING and own < MOST_PENDING_OF_SOURCE:
            return None
        return Refused(Refusal.TOO_MANY_LOGINS, f"{pending} are under way, {own} of them from there")

    def enter(self, source: str) -> None:
        self.pending[source] += 1

    def leave(self, source: str) -> None:
        self.pending[source] -= 1
        if not self.pending[source]:
            del self.pending[source]

    def ask(self, question: Callable[[str], _Answer], username: str) -> Future[_Answer]:
        """As soon as a thread is free."""
        return self.threads.submit(self._ask, question, username)

    def _ask(self, question: Callable[[str], _Answer], username: str) -> _Answer:
        begun = self._clock()
        try:
            return question(username)
        finally:
            self.latency.add(self._clock() - begun)

    def learn(self, username: str, account: Account, asked_at: float) -> Account | Refused:
        """The directory's answer to a question of then. What is known now: answers come in any order, and while a login
        waited for others the account may have been looked at again."""
        known = self._accounts.get(account.name)
        if known is not None and isinstance(known.said, Account) and known.said.name != account.name:
            known = None  # it is another way to write another one's
        if known is not None and asked_at < known.asked_at:
            return _unchanged(account, known.said)
        if known is None or isinstance(known.said, Refused):
            known = _Known(account, asked_at)
        known.said, known.asked_at = account, asked_at
        for name in (username, account.name):
            self._accounts.pop(name, None)
            self._accounts[name] = known
        while len(self._accounts) > MOST_REMEMBERED:
            del self._accounts[next(iter(self._accounts))]
        return account

    def unlearn(self, username: str, refused: Refused, asked_at: float) -> None:
        """It is nobody's, under all its names. Names that nobody has had here take no room."""
        if (known := self._accounts.get(username)) is not None and known.asked_at <= asked_at:
            known.said, known.asked_at = refused, asked_at

    def find(self, username: str) -> tuple[Account, float] | None:
        """And when it was asked about."""
        known = self._accounts.get(username)
        return None if known is None or isinstance(known.said, Refused) else (known.said, known.asked_at)


@dataclass(slots=True)
class _Attempt:
    job: Future[Account | Refused | Proven] | None = None
    """What is asked of the directory, once it is its turn."""


class UserLogins:
    """On the event loop's thread only."""

    def __init__(self, directories: Mapping[str, Directory], clock: Callable[[], float] = time.monotonic) -> None:
        self._desks = {name: _Desk(name, directory, clock) for name, directory in directories.items()}
        self._clock = clock
        self._throttle = LoginThrottle()
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._under_way: set[asyncio.Task[Account | Refused]] = set()

    def replace(self, directories: Mapping[str, Directory], others: Collection[str] = ()) -> None:
        """Logins that are under way go on with the one that they began with. ``others``: names under which there is
        another directory now, which knows nothing of what the one before has said; a login there has to begin anew."""
        for name in self._desks.keys() - directories.keys():
            self._desks.pop(name).threads.shutdown(wait=False)
        for name, directory in directories.items():
            before = self._desks.get(name)
            if before is not None and name not in others:
                before.directory = directory
                continue
            desk = self._desks[name] = _Desk(name, directory, self._clock)
            if before is not None:
                desk.latency = before.latency  # metrics do not run backwards
                before.threads.shutdown(wait=False)

    def close(self) -> None:
        """Threads that a server still holds end with the process."""
        for attempt in self._under_way:
            attempt.cancel()
        for desk in self._desks.values():
            desk.threads.shutdown(wait=False, cancel_futures=True)

    def pending(self) -> dict[str, int]:
        return {name: desk.pending.total() for name, desk in self._desks.items()}

    def servers(self) -> dict[str, dict[str, bool]]:
        return {name: desk.directory.servers_up() for name, desk in self._desks.items()}

    def unchecked(self) -> dict[str, int]:
        return {name: desk.directory.unchecked() for name, desk in self._desks.items()}

    def latencies(self) -> dict[str, Latency]:
        return {name: desk.latency for name, desk in self._desks.items()}

    def look_up(self, directory: str, username: str) -> Account | Refused:
        """Without asking anybody: a local user as it is, another as its directory has said last."""
        desk = self._desks[directory]
        if desk.directory.good_for_s is None:
            return desk.directory.look_up(username)
        if (known := desk.find(username)) is None:
            return Refused(Refusal.USER_UNKNOWN, f"{username!r} has not logged in here")
        return known[0]

    def called(self, typed: str) -> set[str]:
        """Of the accounts that have logged in by that name, the names that their directories have for them."""
        return {known[0].name for desk in self._desks.values() if (known := desk.find(typed)) is not None}

    def take_password(self, directory: str, username: str) -> Secret | None:
        """Of a login that was right just now, if nobody can be asked about this account without it. Whoever takes it
        wipes it."""
        return self._desks[directory].directory.take_password(username)

    def wipe_passwords(self) -> None:
        """Those that nobody has taken."""
        for desk in self._desks.values():
            desk.directory.wipe_passwords()

    async def recall(
        self, directory: str, username: str, *, source: str, within_s: float, kept: KeptPassword | None = None
    ) -> Refused | None:
        """Before ``look_up`` for somebody who comes without a password: ask the directory, unless it has spoken of that
        account lately. Refused: it gave no answer, or this one. Says nothing to the throttle, as nothing was proven."""
        desk = self._desks[directory]
        good_for_s = desk.directory.good_for_s
        if good_for_s is None or problem_with_user_name(username) is not None:
            return None
        if (known := desk.find(username)) is not None and self._clock() < known[1] + good_for_s:
            return None
        if (crowded := desk.crowded(source)) is not None:
            return crowded
        try:
            async with asyncio.timeout(within_s):
                outcome = await self.look_again(directory, username, source=source, kept=kept)
        except TimeoutError:
            return _timed_out(directory, within_s)
        return outcome if isinstance(outcome, Refused) else None

    async def look_again(
        self, directory: str, username: str, *, source: str = OURSELVES, kept: KeptPassword | None = None
    ) -> Account | Refused:
        """The account as the directory has it now."""
        desk, asked_at = self._desks[directory], self._clock()
        look_up = desk.directory.look_up if kept is None else partial(_look_up_or_bind, desk.directory, kept)
        job = desk.ask(look_up, username)
        desk.enter(source)  # after what may raise where there is no room for a thread
        answer = asyncio.wrap_future(job)
        answer.add_done_callback(lambda _: desk.leave(source))
        try:
            outcome = await asyncio.shield(answer)
        finally:
            job.cancel()
        if self._desks.get(directory) is not desk:
            return _replaced(directory)
        if isinstance(outcome, Account):
            return desk.learn(username, outcome, asked_at)
        if outcome.refusal in OWN_FAULT:
            desk.unlearn(username, outcome, asked_at)
        return outcome

    async def log_in(
        self,
        directory: str,
        username: str,
        password: Secret,
        *,
        source: str,
        within_s: float,
        second_factor: SecondFactor | None = None,
    ) -> Account | Refused:
        """``source``: what counts as one place that logins come from. The password stays the caller's: an attempt whose
        client has left has a copy, which is wiped when it is over."""
        if not username or not password:
            return Refused(Refusal.CREDENTIALS_MISSING, "no user name or no password")
        if second_factor is None and password.startswith(STATIC, DYNAMIC):
            return Refused(Refusal.CHALLENGE_UNEXPECTED, "the password answers a challenge that was not asked")
        begun, desk, pair = self._clock(), self._desks[directory], (source, f"{directory} {_plain(username)}")
        if (crowded := desk.crowded(source)) is not None:
            return crowded
        if self._waiting[pair] >= MOST_PENDING_OF_PAIR:
            return Refused(Refusal.TOO_MANY_LOGINS, f"{self._waiting[pair]} of {username} from there are under way")
        attempt = _Attempt()
        ask = partial(_ask, desk.directory, password.copy(), second_factor)
        turn = asyncio.create_task(self._in_turn(desk, pair, username, ask, second_factor, attempt))
        self._under_way.add(turn)
        self._waiting[pair] += 1
        desk.enter(source)
        turn.add_done_callback(partial(self._over, desk, pair))
        try:
            async with asyncio.timeout(within_s):
                outcome = await asyncio.shield(turn)
        except TimeoutError:
            return _timed_out(directory, within_s)
        finally:  # what has not begun need not any more
            if attempt.job is None:
                turn.cancel()
            else:
                attempt.job.cancel()
        if self._desks.get(directory) is not desk:
            return _replaced(directory)
        if isinstance(outcome, Refused) and outcome.refusal in OWN_FAULT:
            await asyncio.sleep(left_of_failure(self._clock() - begun))
        return outcome

    async def _in_turn(
        self,
        desk: _Desk,
        pair: tuple[str, str],
        username: str,
        ask: Callable[[str], Account | Refused | Proven],
        second_factor: SecondFactor | None,
        attempt: _Attempt,
    ) -> Account | Refused:
        """A task of its own, to its end. The turn is over, and the place in the queue free, when the thread is, and
        whoever else is asked."""
        async with self._turns.setdefault(pair, asyncio.Lock()):
            if (wait_s := self._throttle.wait_s(*pair, self._clock())) > 0:
                return Refused(Refusal.LOGIN_THROTTLED, f"{username} may try again from there in {wait_s:.0f} s")
            asked_at = self._clock()
            attempt.job = desk.ask(ask, username)
            answer = await asyncio.wrap_future(attempt.job)
            if isinstance(answer, Proven):  # what becomes of the account is noticed, however long others take
                desk.learn(username, answer.account, asked_at)
                answer = await _judged(answer, second_factor)
            outcome = desk.learn(username, answer, asked_at) if isinstance(answer, Account) else answer
            if isinstance(outcome, Account):  # a wrong password says nothing of who is logged in
                self._throttle.succeeded(*pair)
            elif outcome.refusal in OWN_FAULT and outcome.refusal is not Refusal.ACCOUNT_UNCHECKED:  # no wrong password
                self._throttle.failed(*pair, self._clock())
            return outcome

    def _over(self, desk: _Desk, pair: tuple[str, str], turn: asyncio.Task[Account | Refused]) -> None:
        self._under_way.discard(turn)
        desk.leave(pair[0])
        self._waiting[pair] -= 1
        if not self._waiting[pair]:
            del self._waiting[pair]
            self._turns.pop(pair, None)


def _ask(
    directory: Directory, password: Secret, second_factor: SecondFactor | None, username: str
) -> Account | Refused | Proven:
    if (problem := problem_with_user_name(username)) is not None:
        directory.log_in("", password)  # as long as for any other that nobody has
        return Refused(Refusal.USER_UNKNOWN, f"the user name {problem}")
    if second_factor is not None:
        return second_factor.prove(directory, username, password)
    return directory.log_in(username, password)


def _look_up_or_bind(directory: Directory, kept: KeptPassword, username: str) -> Account | Refused:
    account = directory.look_up(username)
    if isinstance(account, Account) or account.refusal not in NOBODY_MAY_LOOK or (password := kept()) is None:
        return account
    try:
        account = directory.log_in(username, password)
        if isinstance(account, Account) and (again := directory.take_password(account.name)) is not None:
            again.wipe()
        return account
    finally:
        password.wipe()


async def _judged(proven: Proven, second_factor: SecondFactor | None) -> Account | Refused:
    if second_factor is None or second_factor.judge is None:
        return Refused(Refusal.INTERNAL_ERROR, "nobody judges the second factor")
    return await second_factor.judge(proven)


def _plain(username: str) -> str:
    """The same for all ways to write one name, or nearly so: each of them is a guess at one account. Active Directory
    finds "alice" for "álice" too. Of what is longer than any name no more is remembered."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", username).casefold())
    name = "".join(character for character in folded if not unicodedata.category(character).startswith("M"))
    return " ".join(name.rpartition("\\")[2].partition("@")[0].split())[:MAX_NAME_CHARACTERS]


def left_of_failure(seconds: float) -> float:
    """How long a failure that has taken so many seconds is still to be kept back."""
    return math.ceil(max(seconds, 1e-9) / FAILURE_TAKES_S) * FAILURE_TAKES_S - seconds


def _unchanged(account: Account, now: Account | Refused) -> Account | Refused:
    """What has been proven of an account is of the one that there is now."""
    if isinstance(now, Account) and (now.stamp, now.person) != (account.stamp, account.person):
        return Refused(Refusal.WRONG_PASSWORD, f"the account of {account.name} was changed while it logged in")
    return now


def _replaced(directory: str) -> Refused:
    return Refused(Refusal.SHUTTING_DOWN, f"directory {directory} was replaced while it was asked")


def _timed_out(directory: str, within_s: float) -> Refused:
    return Refused(Refusal.DIRECTORY_TIMEOUT, f"directory {directory} has not answered within {within_s:g} s")
