"""Passwords against directories, off the event loop: bounded in number, in time, and in what an answer gives away.

Each directory has threads of its own, so that one which hangs holds up nobody else's logins; a thread that it holds
cannot be taken back, so what would have to wait for one too long is refused instead. Attempts on one account from one
source take turns, because only the outcome of one tells whether the next may be made at all. A failure is answered no
sooner than ``FAILURE_TAKES_S`` after it began: unknown users, wrong passwords and disabled accounts look alike."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from cvpnd.auth.challenge import DYNAMIC, STATIC
from cvpnd.auth.directory import Account, Directory
from cvpnd.auth.identity import Refused, problem_with_name
from cvpnd.auth.passwords import as_bytes
from cvpnd.auth.throttle import LoginThrottle
from cvpnd.reasons import Refusal

THREADS = 4
"""Of one directory."""
MOST_PENDING = 512
"""Of one directory, from one that waits for its turn to one that a hung server has kept past its deadline."""
MOST_PENDING_OF_PAIR = 32
FAILURE_TAKES_S = 1.0
LATENCY_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
OWN_FAULT = frozenset(
    {
        Refusal.USER_UNKNOWN,
        Refusal.WRONG_PASSWORD,
        Refusal.ACCOUNT_DISABLED,
        Refusal.ACCOUNT_EXPIRED,
        Refusal.ACCOUNT_LOCKED,
        Refusal.PASSWORD_EXPIRED,
        Refusal.MUST_CHANGE_PASSWORD,
        Refusal.LOGON_HOURS,
        Refusal.MFA_NOT_ENROLLED,
        Refusal.MFA_CODE_WRONG,
        Refusal.MFA_CODE_REUSED,
        Refusal.MFA_THROTTLED,
    }
)
"""A directory has answered, and the answer is no. To the client all of these are one."""
MOST_REMEMBERED = 50_000
"""Names of one directory, as they were typed and as they are written there."""
SecondFactor = Callable[[Directory, str, str], Account | Refused]
"""Asks the directory about name and password as they came from the client, and for more. Called in its threads."""


@dataclass(slots=True)
class Latency:
    """Of one directory's answers, as a histogram."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[sum(seconds > bound for bound in LATENCY_BUCKETS_S)] += 1
        self.seconds += seconds


class _Desk:
    """What is under way with one directory, and what it has said last of those who are or may come back."""

    def __init__(self, name: str, directory: Directory) -> None:
        self.directory = directory
        self.accounts: dict[str, tuple[Account, float]] = {}
        """And when it said so."""
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"login-{name}")
        self.pending = 0
        self.latency = Latency()

    def leave(self) -> None:
        self.pending -= 1

    def remember(self, username: str, account: Account, now: float) -> None:
        for name in (username, account.name):
            self.accounts.pop(name, None)
            self.accounts[name] = account, now
        while len(self.accounts) > MOST_REMEMBERED:
            del self.accounts[next(iter(self.accounts))]


class UserLogins:
    """On the event loop's thread only."""

    def __init__(self, directories: Mapping[str, Directory], clock: Callable[[], float] = time.monotonic) -> None:
        self._desks = {name: _Desk(name, directory) for name, directory in directories.items()}
        self._clock = clock
        self._throttle = LoginThrottle()
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}
        self._waiting: Counter[tuple[str, str]] = Counter()

    def replace(self, directories: Mapping[str, Directory]) -> None:
        """Logins that are under way go on with the one that they began with."""
        for name in self._desks.keys() - directories.keys():
            self._desks.pop(name).threads.shutdown(wait=False)
        for name, directory in directories.items():
            if name in self._desks:
                self._desks[name].directory = directory
            else:
                self._desks[name] = _Desk(name, directory)

    def close(self) -> None:
        """Threads that a server still holds end with the process."""
        for desk in self._desks.values():
            desk.threads.shutdown(wait=False, cancel_futures=True)

    def pending(self) -> dict[str, int]:
        return {name: desk.pending for name, desk in self._desks.items()}

    def servers(self) -> dict[str, dict[str, bool]]:
        return {name: desk.directory.servers_up() for name, desk in self._desks.items()}

    def latencies(self) -> dict[str, Latency]:
        return {name: desk.latency for name, desk in self._desks.items()}

    def look_up(self, directory: str, username: str) -> Account | Refused:
        """Without asking anybody: a local user as it is, another as its directory has said last."""
        desk = self._desks[directory]
        if desk.directory.good_for_s is None:
            return desk.directory.look_up(username)
        account, _ = desk.accounts.get(username, (None, 0.0))
        return account or Refused(Refusal.USER_UNKNOWN, f"{username!r} has not logged in here")

    async def recall(self, directory: str, username: str, *, within_s: float) -> Refused | None:
        """Before ``look_up`` for somebody who comes without a password: ask the directory, unless it has spoken of that
        account lately. Refused: it gave no answer. Says nothing to the throttle, as nothing was proven."""
        desk = self._desks[directory]
        good_for_s = desk.directory.good_for_s
        if good_for_s is None or problem_with_name(username) is not None:
            return None
        if username in desk.accounts and self._clock() < desk.accounts[username][1] + good_for_s:
            return None
        if desk.pending >= MOST_PENDING:
            return Refused(Refusal.TOO_MANY_LOGINS, f"{desk.pending} are under way")
        try:
            async with asyncio.timeout(within_s):
                outcome = await self.look_again(directory, username)
        except TimeoutError:
            return _timed_out(directory, within_s)
        return outcome if isinstance(outcome, Refused) and outcome.refusal not in OWN_FAULT else None

    async def look_again(self, directory: str, username: str) -> Account | Refused:
        """The account as the directory has it now."""
        desk = self._desks[directory]
        desk.pending += 1
        asked = asyncio.wrap_future(desk.threads.submit(desk.directory.look_up, username))
        asked.add_done_callback(lambda _: desk.leave())
        outcome = await asyncio.shield(asked)
        if isinstance(outcome, Account):
            desk.remember(username, outcome, self._clock())
        elif outcome.refusal in OWN_FAULT:
            desk.accounts.pop(username, None)
        return outcome

    async def log_in(
        self,
        directory: str,
        username: str,
        password: str,
        *,
        source: str,
        within_s: float,
        second_factor: SecondFactor | None = None,
    ) -> Account | Refused:
        """``source``: what counts as one place that logins come from."""
        if not username or not password:
            return Refused(Refusal.CREDENTIALS_MISSING, "no user name or no password")
        if second_factor is None and password.startswith((STATIC, DYNAMIC)):
            return Refused(Refusal.CHALLENGE_UNEXPECTED, "the password answers a challenge that was not asked")
        begun = self._clock()
        try:
            async with asyncio.timeout(within_s):
                desk = self._desks[directory]
                ask = partial(_ask, desk.directory, password, second_factor)
                outcome = await self._in_turn(desk, username, ask, source)
        except TimeoutError:
            return _timed_out(directory, within_s)
        if isinstance(outcome, Refused) and outcome.refusal in OWN_FAULT:
            await asyncio.sleep(max(0.0, begun + FAILURE_TAKES_S - self._clock()))
        return outcome

    async def _in_turn(
        self, desk: _Desk, username: str, ask: Callable[[str], Account | Refused], source: str
    ) -> Account | Refused:
        pair = (source, username)
        if desk.pending >= MOST_PENDING or self._waiting[pair] >= MOST_PENDING_OF_PAIR:
            return Refused(Refusal.TOO_MANY_LOGINS, f"{desk.pending} are under way")
        self._waiting[pair] += 1
        desk.pending += 1
        asked: asyncio.Future[Account | Refused] | None = None
        try:
            async with self._turns.setdefault(pair, asyncio.Lock()):
                if (wait_s := self._throttle.wait_s(source, username, self._clock())) > 0:
                    return Refused(Refusal.LOGIN_THROTTLED, f"{username} may try again from there in {wait_s:.0f} s")
                begun = self._clock()
                asked = asyncio.wrap_future(desk.threads.submit(ask, username))
                outcome = await asyncio.shield(asked)
                desk.latency.add(self._clock() - begun)
                self._learn(source, username, outcome)
                if isinstance(outcome, Account):  # a wrong password says nothing of who is logged in
                    desk.remember(username, outcome, self._clock())
                return outcome
        finally:
            if asked is None:
                desk.leave()
            else:
                asked.add_done_callback(lambda _: desk.leave())  # not before the thread is free again
            self._waiting[pair] -= 1
            if not self._waiting[pair]:
                del self._waiting[pair], self._turns[pair]

    def _learn(self, source: str, username: str, outcome: Account | Refused) -> None:
        if isinstance(outcome, Account):
            self._throttle.succeeded(source, username)
        elif outcome.refusal in OWN_FAULT:
            self._throttle.failed(source, username, self._clock())


def _ask(directory: Directory, password: str, second_factor: SecondFactor | None, username: str) -> Account | Refused:
    if (problem := problem_with_name(username)) is not None:
        directory.log_in("", as_bytes(password))  # as long as for any other that nobody has
        return Refused(Refusal.USER_UNKNOWN, f"the user name {problem}")
    if second_factor is not None:
        return second_factor(directory, username, password)
    return directory.log_in(username, as_bytes(password))


def _timed_out(directory: str, within_s: float) -> Refused:
    return Refused(Refusal.DIRECTORY_TIMEOUT, f"directory {directory} has not answered within {within_s:g} s")
