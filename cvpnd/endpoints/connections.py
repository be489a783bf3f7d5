"""Connections: who is there, and ending it."""

from __future__ import annotations

import logging
import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial

from cvpnd.auth.identity import problem_with_user_name
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.endpoints import views
from cvpnd.endpoints.gateway import Gateway
from cvpnd.endpoints.model import ConnectionView, OperationError
from cvpnd.endpoints.operations import OperationsBase, end_rehearsal
from cvpnd.reasons import End, Refusal
from cvpnd.server.connection import Connection, Phase
from cvpnd.server.login import is_under_way
from cvpnd.server.texts import TERMINATED_TEXT
from cvpnd.spelling import any_spelling
from cvpnd.store import Actor, acting

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """What somebody has ended here, for the store."""

    connections: tuple[str, ...]
    username: str | None
    subjects: AbstractSet[str]
    """Of tokens that are worth nothing since (``RevokedLogins``)."""
    actor: Actor

    def __str__(self) -> str:
        return ", ".join(([] if self.username is None else [f"user {self.username}"]) + [*self.connections])


class ConnectionOperations(OperationsBase):
    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.unstored: list[Ending] = []
        """The oldest first. They hold here all the same."""

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
        with its domain or without: two users who differ in nothing else both have to log in again.

        All of that holds here whatever the store says; what it does not have yet is an error that says so, and stored
        as soon as it can be (``store_endings``)."""
        if (connection_id is None) == (username is None):
            raise OperationError("InvalidParameterCombination", "name either a connection id or a user")
        username = None if username is None else username.strip()
        if username is not None and (problem := problem_with_user_name(username)) is not None:
            # above all none that is empty, which everybody has who has none; and the store takes no NUL
            raise OperationError("InvalidParameterValue", f"username: {problem}; name a user")
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
        before = [each for each in self.unstored if connection_id in each.connections]
        if connection_id is not None and not chosen and not before:
            raise OperationError("InvalidConnectionId.NotFound", f"{connection_id}: no such active connection")
        control = self._gateway.control
        subjects = {RevokedLogins.of_login(connection.token) for connection in chosen if connection.token is not None}
        if username is not None:
            of_user = RevokedLogins.of_user if only is None else partial(RevokedLogins.of_user_at, only.id)
            subjects |= {of_user(name) for name in {username, *names}}
        end_rehearsal()
        marks = RevokedLogins.new_marks(subjects)
        outlive = marks if control.token_key is not None or self._stored.is_shared else {}
        """There are tokens, or sessions at other gateways."""
        control.revoked_logins.add(marks, control.clock.now())
        control.revoked_logins.hold(outlive)
        for connection in chosen:
            if connection.established:
                control.halt(connection, End.TERMINATED, TERMINATED_TEXT)
            else:
                control.refuse(connection, Refusal.TERMINATED, detail="its login was under way")
        ended = [connection.connection_id for connection in chosen]
        if ended or outlive:
            self.unstored.append(Ending(tuple(ended), username, outlive.keys(), acting.get()))
        try:
            await self.store_endings()
        except OperationError as error:
            raise OperationError(error.code, self._not_stored(ended, str(error))) from error
        return ended or [each for ending in before for each in ending.connections if each == connection_id]

    def _not_stored(self, ended: list[str], why: str) -> str:
        others = (
            ", and other gateways on the same database do not know it yet: do the same at each of them"
            if self._stored.is_shared
            else ""
        )
        return (
            f"ended here: {', '.join(ended) or 'no connection'}; this gateway takes no token of before. That is not "
            f"stored: {why}. It is tried again until it is, and cvpnctl status tells until then; a restart before that "
            f"forgets it{others}"
        )

    async def store_endings(self) -> None:
        """Those that are not stored yet, each as its administrator's. What keeps other gateways' changes from coming
        into force here does not keep these."""
        if not self.unstored:
            return
        revoked, now = self._gateway.control.revoked_logins, self.steady_now()
        async with self._change(following=False):
            endings = tuple(self.unstored)
            written: dict[str, bytes] = {}
            if endings and self._stored.is_shared:  # others may have ended the same since
                self._gateway.accounts.end_what_others_ended(await self._store(self._stored.revoked_logins))
            for ending in endings:
                mark = acting.set(ending.actor)
                try:
                    await self._store(self._stored.record_terminated, ending.connections, ending.username)
                    if marks := revoked.unwritten(ending.subjects):
                        await self._store(self._stored.revoke_logins, marks, now)
                        written |= marks
                finally:
                    acting.reset(mark)
        revoked.release(written)
        del self.unstored[: len(endings)]

    async def store_last_endings(self) -> None:
        """Before the process ends."""
        try:
            await self.store_endings()
        except OperationError as error:
            log.critical(
                "forgotten from here on, end them again after the start: %s: %s",
                "; ".join(map(str, self.unstored)), error,
            )  # fmt: skip

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
