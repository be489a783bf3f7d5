"""Limits on strangers: how many answers, handshakes and log lines anybody can make us spend without a certificate."""

from __future__ import annotations

from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.session_table import SessionTable, source_prefix
from cvpnd.wire.errors import DropReason

RESETS_PER_SOURCE_S = 100.0
"""A whole office behind one address starts within seconds; a victim whose address is forged is not worth flooding."""
SOURCE_BUCKETS = 4096
"""Sources share them by a keyed hash: memory does not grow, and nobody knows whom they share theirs with."""


class TokenBucket:
    """``rate`` a second on average, ``burst`` at once. ``now`` must not run backwards."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Admission:
    """Shared by all listeners of one daemon."""

    def __init__(self, resets_per_s: int, resets_per_source_s: float = RESETS_PER_SOURCE_S) -> None:
        self._all = TokenBucket(resets_per_s, resets_per_s)
        self._by_source = [TokenBucket(resets_per_source_s, 3 * resets_per_source_s) for _ in range(SOURCE_BUCKETS)]

    def may_answer_reset(self, host: str, now: float) -> bool:
        """One source's share first: what is over it takes nothing from the others."""
        return self._by_source[hash(source_prefix(host)) % SOURCE_BUCKETS].take(now) and self._all.take(now)

    @staticmethod
    def may_begin(table: SessionTable, endpoint: ServedEndpoint, host: str) -> DropReason | None:
        """Whether one more stranger may be kept in mind."""
        limits = endpoint.settings.limits
        if table.handshakes >= limits.handshakes:
            return DropReason.HANDSHAKE_LIMIT
        if table.handshakes_from(host) >= limits.handshakes_per_source:
            return DropReason.SOURCE_LIMIT
        return None
