"""What was taken away lately, in its last state: whoever waits for that asks for it by its id until it says so.

Kept in memory. After a restart, and at another gateway, it is unknown, which such a program takes for the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

SHOWN_S = 30.0
"""Twice as long as AWS's own waiters pause between two questions."""
MOST = 1000


class Gone(Generic[T]):
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[str, tuple[float, T]] = {}
        """By id, oldest first, with when it went."""

    def add(self, key: str, view: T) -> None:
        self._forget()
        while len(self._found) >= MOST:
            del self._found[next(iter(self._found))]
        self._found[key] = self._clock(), view

    def get(self, key: str) -> T | None:
        self._forget()
        found = self._found.get(key)
        return None if found is None else found[1]

    def _forget(self) -> None:
        now = self._clock()
        for key, (since, _) in list(self._found.items()):
            if now - since <= SHOWN_S:
                break
            del self._found[key]
