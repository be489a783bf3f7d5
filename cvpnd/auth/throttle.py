"""Slows down who guesses passwords, and nobody else.

Failures are counted for an account as seen from one source, and for the source. So whoever guesses from elsewhere
cannot keep the owner of an account out, and nobody is ever locked out for good: the delay grows with each failure up to
a few minutes, and a quarter of an hour without failures ends it. Who has logged in from a source before is not held up
by the failures of others behind the same address."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

FREE_FAILURES = 5
"""Of one account from one source; people mistype."""
MAX_DELAY_S = 300.0
FREE_FAILURES_OF_SOURCE = 50
MAX_DELAY_OF_SOURCE_S = 60.0
FORGOTTEN_AFTER_S = 900.0
KEPT = 32_768
"""Of each table; who was heard of longest ago is forgotten first."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    latest: float = float("-inf")
    free_at: float = float("-inf")


class Counters:
    """Failures by whatever key; the caller says ``now``, of one and the same clock."""

    def __init__(self, free: int, most_s: float) -> None:
        self._free = free
        self._most_s = most_s
        self._of: OrderedDict[tuple[str, ...], _Failures] = OrderedDict()

    def wait_s(self, key: tuple[str, ...], now: float) -> float:
        found = self._of.get(key)
        return 0.0 if found is None else max(0.0, found.free_at - now)

    def failed(self, key: tuple[str, ...], now: float) -> None:
        found = self._of.setdefault(key, _Failures())
        self._of.move_to_end(key)
        if now - found.latest > FORGOTTEN_AFTER_S:
            found.count = 0
        found.count += 1
        found.latest = now
        excess = found.count - self._free
        if excess > 0:
            found.free_at = now + min(self._most_s, 2.0 ** min(excess, 16))
        if len(self._of) > KEPT:
            self._of.popitem(last=False)

    def take_back(self, key: tuple[str, ...]) -> None:
        """The latest failure was none."""
        if (found := self._of.get(key)) is not None:
            found.count -= 1
            found.free_at = float("-inf")

    def forget(self, key: tuple[str, ...]) -> None:
        self._of.pop(key, None)


class LoginThrottle:
    """``now`` is monotonic."""

    def __init__(self) -> None:
        self._pairs = Counters(FREE_FAILURES, MAX_DELAY_S)
        self._sources = Counters(FREE_FAILURES_OF_SOURCE, MAX_DELAY_OF_SOURCE_S)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_s(self, source: str, account: str, now: float) -> float:
        """Seconds until another attempt will be looked at; 0: now."""
        pair = self._pairs.wait_s((source, account), now)
        return pair if (source, account) in self._known else max(pair, self._sources.wait_s((source,), now))

    def failed(self, source: str, account: str, now: float) -> None:
        self._pairs.failed((source, account), now)
        self._sources.failed((source,), now)

    def succeeded(self, source: str, account: str) -> None:
        self._pairs.forget((source, account))
        self._known[source, account] = None
        self._known.move_to_end((source, account))
        if len(self._known) > KEPT:
            self._known.popitem(last=False)


class CodeThrottle:
    """Slows down who guesses codes, wherever they come from: only somebody with the account's password gets so far.
    Keys are directory and account; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = Counters(FREE_FAILURES, MAX_DELAY_S)

    def begin(self, key: tuple[str, str], now: float) -> float:
        """0: go on, and this counts as a failure until it is found to be right, so that several at once all count. Else
        the seconds to wait."""
        with self._lock:
            if (wait_s := self._failures.wait_s(key, now)) == 0:
                self._failures.failed(key, now)
            return wait_s

    def right(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._failures.forget(key)

    def unjudged(self, key: tuple[str, str]) -> None:
        """What was begun has come to no judgement."""
        with self._lock:
            self._failures.take_back(key)
