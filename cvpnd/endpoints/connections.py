"""Connections: who is there, and ending it."""

from __future__ import annotations

import time
from functools import partial

from cvpnd.auth.identity import any_spelling
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.endpoints import views
from cvpnd.endpoints.model import ConnectionView, OperationError
from cvpnd.endpoints.operations import OperationsBase, end_rehearsal
from cvpnd.reasons import End, Refusal
from cvpnd.server.connection import Connection, Phase
from cvpnd.server.login import is_under_way

TERMINATED_TEXT = "Terminated by the administrator"


class ConnectionOperations(OperationsBase):
    async def list_connections(self, endpoint: str | None = None) -> list[ConnectionView]:
        """Live ones, and those that ended within the last hour."""
        only = self._endpoint(endpoint) if endpoint is not None else None
        live = (c for c in self._gateway.control.table if c.keys_installed and c.phase is not Phase.ENDED)
        found = [views.connection_view(self._gateway.plane, connection) for connection in live]
        found += self._gateway.ended.within_an_hour(time.time())
        return [view for view in found if only is None or view.endpoint_id == only.id]

    async def terminate_connections(
        self, *, connection_id: str | None = None, username: str | None = None, endpoint: str | None = None
    ) -> list[str]:
        """End them for good and return their ids: a client needs its user's password to come back. Logins that are
        under way end too, also where nobody knows yet that they are this user's (``LoginUnderWay``). A user name
        without sessions is an empty answer, not an error; tokens of theirs end all the same. However it is spelled, and
        with its domain or without: two users who differ in nothing else both have to log in again."""
        if (connection_id is None) == (username is None):
            raise OperationError("InvalidParameterCombination", "name either a connection id or a user")
        if username == "":  # who has no user name has this one, and so has everybody else without
            raise OperationError("InvalidParameterValue", "username: is empty; name a user")
        only = self._endpoint(endpoint) if endpoint is not None else None

        names = set() if username is None else self._names_meant_by(username)

        def meant(c: Connection) -> bool:
            if username is None:
                return c.connection_id == connection_id
            return not names.isdisjoint({any_spelling(c.username), any_spelling(c.common_name)} - {""})

        chosen = [
            c
            for c in self._gateway.control.table
            if (c.established or is_under_way(c)) and (only is None or c.endpoint is only) and meant(c)
        ]
        if connection_id is not None and not chosen:
            raise OperationError("InvalidConnectionId.NotFound", f"{connection_id}: no such active connection")
        control = self._gateway.control
        subjects = {RevokedLogins.of_login(connection.token) for connection in chosen if connection.token is not None}
        if username is not None:
            of_user = RevokedLogins.of_user if only is None else partial(RevokedLogins.of_user_at, only.id)
            subjects |= {of_user(name) for name in {username, *names}}
        end_rehearsal()
        marks = RevokedLogins.new_marks(subjects)
        outlive = marks if control.token_key is not None else {}
        """There are tokens."""
        control.revoked_logins.add(marks, control.clock.now())
        control.revoked_logins.hold(outlive)
        for connection in chosen:
            if connection.established:
                control.halt(connection, End.TERMINATED, TERMINATED_TEXT)
            else:
                control.refuse(connection, Refusal.TERMINATED, detail="its login was under way")
        ended = [connection.connection_id for connection in chosen]
        if ended or outlive:  # after the sessions: a full disk must not keep them alive
            try:
                async with self._change():
                    await self._store(self._stored.record_terminated, ended, username)
                    if outlive:
                        await self._store(self._stored.revoke_logins, outlive, control.clock.now())
            finally:
                control.revoked_logins.release(outlive)
        return ended

    def _names_meant_by(self, username: str) -> set[str]:
        """Those that accounts may have who would log in by this one, each as ``any_spelling`` has it."""
        names = {any_spelling(username)} | {any_spelling(name) for name in self._gateway.control.users.called(username)}
        domain, backslash, behind = username.strip().partition("\\")
        before, _, realm = username.strip().rpartition("@")
        for directory in self._gateway.config.directories:
            domains = {each.lower() for each in directory.domains}
            if backslash and domain.lower() in domains:
                names.add(any_spelling(behind))
            elif before and realm.lower() in domains:
                names.add(any_spelling(before))
        return names - {""}
