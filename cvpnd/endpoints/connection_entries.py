"""What becomes of connections, as the connection log has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from cvpnd.dataplane.api import DataPlane
from cvpnd.endpoints import views
from cvpnd.endpoints.model import ConnectionView
from cvpnd.ops.connection_log import (
    UPDATE,
    ConnectionLog,
    assertion_entry,
    attempt_entry,
    reset_entry,
    update_entry,
    waiting_entry,
)
from cvpnd.ops.log_writer import Entry
from cvpnd.ops.recent_log import RecentLog
from cvpnd.reasons import Refusal
from cvpnd.server.connection import Connection

UPDATES_AT_ONCE = 100
"""A few milliseconds of the event loop."""


class ConnectionEntries:
    """Written into the log of all, the stream of an endpoint that has one, and what ``cvpnctl log follow`` reads."""

    def __init__(self, plane: DataPlane, log: ConnectionLog, recent: RecentLog) -> None:
        self.recent = recent
        self._plane = plane
        self._log = log

    def established(self, connection: Connection) -> None:
        self._write(connection, attempt_entry(self._view(connection), time.time()))

    def waiting(self, connection: Connection) -> None:
        self._write(connection, waiting_entry(self._view(connection), time.time()))

    def assertion(self, connection: Connection) -> None:
        self._write(connection, assertion_entry(self._view(connection), time.time()))

    def ended(self, connection: Connection, view: ConnectionView) -> None:
        if connection.end_reason is Refusal.WAITING_FOR_ASSERTION:
            entry = waiting_entry(view, time.time())
        elif not connection.keys_installed:
            entry = attempt_entry(view, time.time(), failure=view.end_reason, detail=connection.end_detail)
        else:
            entry = reset_entry(view, time.time(), detail=connection.end_detail)
        self._write(connection, entry)

    async def keep_updates(self, table: Iterable[Connection], current_interval_s: Callable[[], int]) -> None:
        """An entry for each connection over which something has passed since its last one, spread over the interval."""
        logged: dict[str, int] = {}
        while True:
            interval_s = current_interval_s()
            connections = [c for c in table if c.keys_installed and c.established] if interval_s else []
            logged = {c.connection_id: logged.get(c.connection_id, 0) for c in connections}
            beginnings = range(0, len(connections), UPDATES_AT_ONCE)
            pause_s = (interval_s or 1.0) / (len(beginnings) + 1)
            for begin in beginnings:
                for connection in connections[begin : begin + UPDATES_AT_ONCE]:
                    if connection.established:
                        self._update(connection, logged)
                await asyncio.sleep(pause_s)
            await asyncio.sleep(pause_s)

    def _update(self, connection: Connection, logged: dict[str, int]) -> None:
        view = self._view(connection)
        packets = view.ingress_packets + view.egress_packets
        if packets != logged[connection.connection_id]:
            logged[connection.connection_id] = packets
            self._write(connection, update_entry(view, time.time()))

    def _view(self, connection: Connection) -> ConnectionView:
        return views.connection_view(self._plane, connection)

    def _write(self, connection: Connection, entry: Entry) -> None:
        if entry["connection-log-type"] != UPDATE:  # they would leave no room for who comes and goes
            self.recent.add(entry)
        own = connection.endpoint.settings.connection_log
        self._log.write(entry, None if own is None else (own.group, own.stream))
