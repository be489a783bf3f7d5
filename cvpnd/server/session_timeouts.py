"""Ends sessions that have lasted as long as their endpoint or identity provider allows, or over which too little has
passed for too long.

One timer for all, set for the session that is to be looked at next. How long a session has lasted counts from its login
on, which may have been another session's, and by the steady clock: whoever sets the wall clock ends nobody and makes
nothing last for ever. Idleness counts in bytes of inner packets: pings and the control channel keep nobody busy."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass

from cvpnd.auth.tokens import LIFETIME_S
from cvpnd.reasons import End
from cvpnd.server.connection import Connection
from cvpnd.server.control import ControlPlane
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.texts import TIMEOUT_TEXT

IDLE_TEXT = "Idle for too long"
IDLE_LOOKS = 4
"""In the time after which a session is idle: it ends at most a quarter of it late."""
SPARE = 1024
"""Entries of sessions that ended by themselves are dropped once there are this many more than half."""


@dataclass(slots=True)
class _Watched:
    due: float
    """Of its entry on the heap; others of it are superseded."""
    busy_at: float
    bytes_then: int


class SessionTimeouts:
    """Names sessions and does not hold them, so that one which has ended costs next to nothing until it is due."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str, _Watched] = {}
        self._due: list[tuple[float, str]] = []
        """A heap; connection ids."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connection: Connection) -> None:
        """It has been let in."""
        settings = connection.endpoint.settings
        if connection.peer_id is None or not (_longest_s(connection) or settings.idle_timeout_s):
            return
        now = self._loop.time()
        if connection.connection_id not in self._watched:
            self._watched[connection.connection_id] = _Watched(0.0, now, self._bytes(connection))
        self._watch(connection, now)
        self._compact()
        self._arm()

    def changed(self, endpoint: ServedEndpoint) -> None:
        """The endpoint allows another length now; for sessions that are there too."""
        for connection in self._control.table:
            if connection.endpoint is endpoint and connection.established and connection.keys_installed:
                self.begin(connection)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self, connection: Connection, now: float) -> None:
        """Look at it again when it may be due."""
        settings, watched = connection.endpoint.settings, self._watched[connection.connection_id]
        waits = []
        if longest_s := _longest_s(connection):
            waits.append(longest_s - self._lasted_s(connection))
        if settings.idle_timeout_s:
            waits.append(min(watched.busy_at + settings.idle_timeout_s - now, settings.idle_timeout_s / IDLE_LOOKS))
        if not waits:
            del self._watched[connection.connection_id]
            return
        watched.due = now + min(waits)
        heapq.heappush(self._due, (watched.due, connection.connection_id))

    def _lasted_s(self, connection: Connection) -> float:
        return self._control.clock.now() - connection.logged_in_at

    def _bytes(self, connection: Connection) -> int:
        if connection.peer_id is None:
            return 0
        stats = self._control.plane.peer_stats(connection.peer_id)
        return stats.bytes_in + stats.bytes_out

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._timer = self._loop.call_at(self._due[0][0], self._look)

    def _look(self) -> None:
        now = self._loop.time()
        while self._due and self._due[0][0] <= now:
            due, connection_id = heapq.heappop(self._due)
            watched, connection = self._watched.get(connection_id), self._control.table.by_id(connection_id)
            if watched is None or watched.due != due:
                continue
            if connection is None or not connection.established:
                del self._watched[connection_id]
            elif not self._end_if_due(connection, watched, now):
                self._watch(connection, now)
        self._arm()

    def _end_if_due(self, connection: Connection, watched: _Watched, now: float) -> bool:
        """By what the endpoint allows now: an entry may be older than that."""
        settings = connection.endpoint.settings
        longest_s = _longest_s(connection)
        if longest_s and self._lasted_s(connection) >= longest_s:
            if settings.disconnect_on_session_timeout:
                self._control.halt(connection, End.SESSION_TIMEOUT, TIMEOUT_TEXT)
            else:
                self._control.restart(connection, End.SESSION_TIMEOUT)
            return True
        passed = self._bytes(connection)
        if passed - watched.bytes_then >= settings.idle_bytes:
            watched.busy_at, watched.bytes_then = now, passed
        if settings.idle_timeout_s and now - watched.busy_at >= settings.idle_timeout_s:
            self._control.halt(connection, End.IDLE_TIMEOUT, IDLE_TEXT)
            return True
        return False

    def _compact(self) -> None:
        if len(self._due) > 2 * len(self._control.table) + SPARE:
            alive = {c.connection_id for c in self._control.table if c.established}
            self._watched = {name: watched for name, watched in self._watched.items() if name in alive}
            current = [(watched.due, name) for name, watched in self._watched.items()]
            self._due = current
            heapq.heapify(self._due)


def _longest_s(connection: Connection) -> int:
    """From the login on; 0: for ever. An identity provider that says when a login ends (SessionNotOnOrAfter) ends what
    was opened by it too (SAML profiles, 4.1.4.3), and the token says when that is."""
    allowed, token = connection.endpoint.settings.session_timeout_s, connection.token
    if token is None or connection.vouched_by is None:
        return allowed
    granted = max(1, token.lifetime_s)
    return granted if granted < (allowed or LIFETIME_S) else allowed
