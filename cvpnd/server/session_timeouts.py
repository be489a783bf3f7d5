"""Ends sessions that have lasted as long as their endpoint allows. One timer for all, set for the next that is due."""

from __future__ import annotations

import asyncio
import heapq
import time

from cvpnd.reasons import End
from cvpnd.server.connection import Connection
from cvpnd.server.control import RESTART_TEXT, ControlPlane
from cvpnd.server.endpoint import ServedEndpoint

TIMEOUT_TEXT = "Session timeout"
SPARE = 1024
"""Entries of sessions that ended by themselves are dropped once there are this many more than half."""


class SessionTimeouts:
    """Entries name sessions and do not hold them, so that one which has ended costs next to nothing until then."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[float, int, str]] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connection: Connection) -> None:
        """It has been let in."""
        limit = connection.endpoint.settings.session_timeout_s
        if not limit or connection.peer_id is None:
            return
        left = limit - (time.time() - connection.logged_in_at)
        heapq.heappush(self._due, (self._loop.time() + left, connection.peer_id, connection.connection_id))
        self._compact()
        self._arm()

    def changed(self, endpoint: ServedEndpoint) -> None:
        """The endpoint allows another length now; for sessions that are there too."""
        for connection in self._control.table:
            if connection.endpoint is endpoint and connection.established:
                self.begin(connection)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _find(self, peer_id: int, connection_id: str) -> Connection | None:
        connection = self._control.table.by_peer(peer_id)
        alive = connection is not None and connection.connection_id == connection_id and connection.established
        return connection if alive else None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._timer = self._loop.call_at(self._due[0][0], self._end_due)

    def _end_due(self) -> None:
        while self._due and self._due[0][0] <= self._loop.time():
            _, peer_id, connection_id = heapq.heappop(self._due)
            connection = self._find(peer_id, connection_id)
            if connection is not None:
                self._end_if_due(connection)
        self._arm()

    def _end_if_due(self, connection: Connection) -> None:
        """By what the endpoint allows now: an entry may be older than that."""
        settings = connection.endpoint.settings
        lasted = time.time() - connection.logged_in_at
        if not settings.session_timeout_s or lasted < settings.session_timeout_s - 1:
            return
        if settings.disconnect_on_session_timeout:
            self._control.halt(connection, End.SESSION_TIMEOUT, TIMEOUT_TEXT)
        else:
            self._control.restart(connection, End.SESSION_TIMEOUT, RESTART_TEXT)

    def _compact(self) -> None:
        if len(self._due) > 2 * len(self._control.table) + SPARE:
            self._due = [entry for entry in self._due if self._find(entry[1], entry[2]) is not None]
            heapq.heapify(self._due)
