"""Connections: who is there, and ending it."""

from __future__ import annotations

import time

from cvpnd.endpoints import views
from cvpnd.endpoints.model import ConnectionView, OperationError
from cvpnd.endpoints.operations import OperationsBase
from cvpnd.reasons import End

TERMINATED_TEXT = "Terminated by the administrator"


class ConnectionOperations(OperationsBase):
    async def list_connections(self, endpoint: str | None = None) -> list[ConnectionView]:
        """Live ones, and those that ended within the last hour."""
        only = self._endpoint(endpoint) if endpoint is not None else None
        table = self._gateway.control.table
        found = [c for c in table if c.keys_installed] + table.recently_ended(time.time())
        return [
            views.connection_view(self._gateway.plane, c) for c in found if only is None or c.endpoint.id == only.id
        ]

    async def terminate_connections(
        self, *, connection_id: str | None = None, username: str | None = None, endpoint: str | None = None
    ) -> list[str]:
        """End them for good and return their ids. A user name without sessions is an empty answer, not an error."""
        if (connection_id is None) == (username is None):
            raise OperationError("InvalidParameterCombination", "name either a connection id or a user")
        only = self._endpoint(endpoint) if endpoint is not None else None
        chosen = [
            c
            for c in self._gateway.control.table
            if c.established
            and (only is None or c.endpoint is only)
            and (c.connection_id == connection_id or username in (c.username or None, c.common_name))
        ]
        if connection_id is not None and not chosen:
            raise OperationError("InvalidConnectionId.NotFound", f"{connection_id}: no such active connection")
        for connection in chosen:
            self._gateway.control.halt(connection, End.TERMINATED, TERMINATED_TEXT)
        return [connection.connection_id for connection in chosen]
