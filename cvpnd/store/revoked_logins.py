"""Logins that somebody ended: their tokens are refused, whatever time they have left."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import delete, insert, literal, or_, select

from cvpnd.store.database import Database
from cvpnd.store.tables import kept_password, revoked_login

KEPT_S = 31 * 86_400
"""Longer than any token is good: session timeouts are at most 30 days."""


class RevokedLoginStore(Database):
    def revoked_logins(self) -> dict[str, float]:
        """By subject (``auth.tokens.Revocations``): every login of it up to then."""
        with self._read() as connection:
            return {row.subject: row.at for row in connection.execute(select(revoked_login))}

    def record_terminated(self, connections: Sequence[str], username: str | None, now: float) -> None:
        """Who ended which sessions."""
        with self._write() as connection:
            details = {"connections": list(connections), "username": username}
            self._record(connection, "terminate-connections", details, now=now)

    def revoke_logins(self, subjects: Collection[str], now: float) -> None:
        with self._write() as connection:
            table = revoked_login.c
            connection.execute(
                delete(revoked_login).where(table.subject.in_(list(subjects)) | (table.at < now - KEPT_S))
            )
            kept = kept_password.c  # nobody can open those any more, and they are not to lie about
            account = literal("account ") + kept.directory + literal(" ") + kept.username
            ended = [literal("login ") + kept.login_id, literal("user ") + kept.username, account]
            connection.execute(delete(kept_password).where(or_(*(each.in_(list(subjects)) for each in ended))))
            connection.execute(insert(revoked_login), [{"subject": subject, "at": now} for subject in subjects])
            self._record(connection, "revoke-logins", {"subjects": sorted(subjects)}, now=now)
