"""Limits on strangers: how many handshakes and log lines anybody can make us spend without a certificate.

How many of their packets get that far, and how many resets are answered, is the doorman's (``[daemon.strangers]``)."""

from __future__ import annotations

from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.session_table import SessionTable
from cvpnd.wire.errors import DropReason


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


def may_begin(table: SessionTable, endpoint: ServedEndpoint, host: str) -> DropReason | None:
    """Why not one more stranger may be kept in mind."""
    limits = endpoint.settings.limits
    if table.handshakes >= limits.handshakes:
        return DropReason.HANDSHAKE_LIMIT
    if table.handshakes_from(host) >= limits.handshakes_per_source:
        return DropReason.SOURCE_LIMIT
    return None
