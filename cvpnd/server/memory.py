"""Memory for the long answers of identity providers, which come from people whom nobody knows yet.

A connection may keep a few kilobytes of a key exchange for nothing. What is longer comes out of one reserve for all of
them, of which no source has more than its share; who finds it empty is sent away."""

from __future__ import annotations

from collections import Counter

RESERVE_BYTES = 32 * 1024 * 1024
OF_SOURCE_BYTES = 10 * 1024 * 1024
"""Seventy people with answers of 131 kB behind one address, at the same moment."""


class Reserve:
    """On the event loop's thread only."""

    def __init__(self, most: int = RESERVE_BYTES, of_source: int = OF_SOURCE_BYTES) -> None:
        self._most = most
        self._of_source = of_source
        self._used = 0
        self._by_source: Counter[str] = Counter()

    @property
    def used(self) -> int:
        return self._used

    def change(self, source: str, more: int) -> bool:
        """False: there is not so much, and nothing has changed. Giving back always works."""
        if more > 0 and (self._used + more > self._most or self._by_source[source] + more > self._of_source):
            return False
        self._used += more
        self._by_source[source] += more
        if not self._by_source[source]:
            del self._by_source[source]
        return True


class Share:
    """Of one connection."""

    __slots__ = ("_closed", "_held", "_reserve", "_source")

    def __init__(self, reserve: Reserve, source: str) -> None:
        self._reserve = reserve
        self._source = source
        self._held = 0
        self._closed = False

    def hold(self, amount: int) -> bool:
        """So much in all from now on. False: it stays as it was."""
        if amount == self._held:
            return True
        if self._closed or not self._reserve.change(self._source, amount - self._held):
            return False
        self._held = amount
        return True

    def close(self) -> None:
        self.hold(0)
        self._closed = True
