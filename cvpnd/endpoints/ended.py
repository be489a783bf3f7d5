"""Connections that are over: what is shown of them stays for an hour, their sessions do not."""

from __future__ import annotations

from collections import deque

from cvpnd.endpoints.model import ConnectionView

KEPT_S = 3600.0
KEPT_MAX = 10_000
"""A storm of them must not grow memory."""


class EndedConnections:
    def __init__(self) -> None:
        self._views: deque[ConnectionView] = deque(maxlen=KEPT_MAX)

    def add(self, view: ConnectionView) -> None:
        self._views.append(view)

    def within_an_hour(self, now: float) -> list[ConnectionView]:
        """Oldest first; ``now`` is wall-clock time."""
        while self._views and (self._views[0].ended_at or 0.0) < now - KEPT_S:
            self._views.popleft()
        return list(self._views)
