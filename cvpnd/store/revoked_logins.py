"""Logins that somebody ended: their tokens are refused, whatever time they have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import delete, insert, literal, or_, select

from cvpnd.spelling import any_spelling
from cvpnd.store.database import Database
from cvpnd.store.tables import kept_password, revoked_login

KEPT_S = 31 * 86_400
"""What ends one login, on the steady clock: longer than any token is good by it, as session timeouts are at most 30
days. What the tokens of a user are marked with stays, or those of before were good again."""
_LOGIN, _USER = "login ", "user "


class RevokedLogin(NamedTuple):
    mark: bytes
    at: float
    """On the steady clock."""


class RevokedLoginStore(Database):
    def revoked_logins(self) -> dict[str, RevokedLogin]:
        """By subject (``auth.revoked_logins.RevokedLogins``)."""
        with self._read() as connection:
            return {row.subject: RevokedLogin(row.mark, row.at) for row in connection.execute(select(revoked_login))}

    def record_terminated(self, connections: Sequence[str], username: str | None) -> None:
        """Who ended which sessions."""
        with self._write() as connection:
            self._record(connection, "terminate-connections", {"connections": list(connections), "username": username})

    def revoke_logins(self, marks: Mapping[str, bytes], now: float) -> None:
        """``now``: of the steady clock."""
        with self._write() as connection:
            table, subjects = revoked_login.c, list(marks)
            over = table.subject.startswith(_LOGIN) & (table.at < now - KEPT_S)
            connection.execute(delete(revoked_login).where(table.subject.in_(subjects) | over))
            kept = kept_password.c  # nobody can open those any more, and they are not to lie about
            users = {each.removeprefix(_USER) for each in subjects if each.startswith(_USER)}
            there = connection.execute(select(kept.username).distinct()).scalars() if users else ()
            meant = [name for name in there if not users.isdisjoint({name, any_spelling(name)})]
            account = literal("account ") + kept.directory + literal(" ") + kept.username
            ended = (literal(_LOGIN) + kept.login_id).in_(subjects), kept.username.in_(meant), account.in_(subjects)
            connection.execute(delete(kept_password).where(or_(*ended)))
            rows = [{"subject": subject, "at": now, "mark": mark} for subject, mark in marks.items()]
            connection.execute(insert(revoked_login), rows)
            self._record(connection, "revoke-logins", {"subjects": sorted(subjects)})
