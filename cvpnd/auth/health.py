"""What is remembered of servers that logins ask: which of them failed lately, and how long answers take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from cvpnd.ops.histogram import Histogram

FIRST_BACK_OFF_S = 5.0
LONGEST_BACK_OFF_S = 60.0
FAILURE_COUNTS_S = 900.0
"""For which a server that failed and was not asked again is told as down: nobody may log in for a night, and the server
have come back meanwhile."""
LATENCY_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

Url = TypeVar("Url", bound=Hashable)


class Latency(Histogram):
    """Of answers: also of those that came when nobody waited any more, as they do from a server that hangs. Any thread
    may add."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__(LATENCY_BUCKETS_S)
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        with self._lock:
            super().add(value)


@dataclass(frozen=True, slots=True)
class _Health:
    failed_at: float = float("-inf")
    answered_at: float = float("-inf")
    missed: bool = False
    """It failed or was silent since then."""
    down_until: float = 0.0
    back_off_s: float = FIRST_BACK_OFF_S


class ServerHealth(Generic[Url]):
    """A server that failed is left alone for a while, longer each time. Any thread may tell and ask."""

    def __init__(self, urls: Sequence[Url], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of = {url: _Health() for url in urls}

    def in_order(self) -> list[Url]:
        """Those to ask, the first one first: all of them where each has failed."""
        now = self._clock()
        return [url for url, health in self._of.items() if health.down_until <= now] or list(self._of)

    def up(self) -> dict[str, bool]:
        """Whether each answered when it was asked last. Not whether it would be asked again: else one that is down for
        hours were up for a moment after each back-off, and for as long as the next question hangs."""
        now = self._clock()
        return {str(url): now >= health.failed_at + FAILURE_COUNTS_S for url, health in self._of.items()}

    def is_up(self, url: Url) -> bool:
        """Whether it may be asked now."""
        return self._of[url].down_until <= self._clock()

    def succeeded(self, url: Url) -> None:
        self._of[url] = _Health(answered_at=self._clock())

    def failed(self, url: Url) -> float:
        """How long it is left alone now."""
        now = self._clock()
        return self._leave_alone(url, replace(self._of[url], missed=True, failed_at=now), now)

    def silent(self, url: Url, asked_at: float) -> float:
        """The same of one that asks a person before it answers, who may not have looked at their telephone: it is told
        as down from the second time on, if it has answered nobody between and nobody meanwhile."""
        health, now = self._of[url], self._clock()
        if health.answered_at <= asked_at:
            health = replace(health, missed=True, failed_at=now if health.missed else health.failed_at)
        return self._leave_alone(url, health, now)

    def _leave_alone(self, url: Url, health: _Health, now: float) -> float:
        back_off_s = health.back_off_s
        longer_s = min(2 * back_off_s, LONGEST_BACK_OFF_S)
        self._of[url] = replace(health, down_until=now + back_off_s, back_off_s=longer_s)
        return back_off_s
