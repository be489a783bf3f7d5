"""Authenticator apps of users: secrets (sealed), the latest code that was taken, and recovery codes that are left."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, delete, insert, select, update

from cvpnd.store.database import Database
from cvpnd.store.tables import authenticator


@dataclass(frozen=True, slots=True)
class StoredAuthenticator:
    directory: str
    username: str
    secret: bytes = field(repr=False)
    last_step: int
    recovery: tuple[str, ...] = field(repr=False)
    created_at: float
    person: bytes = b""
    """As in ``auth.directory.Account``."""


@dataclass(frozen=True, slots=True)
class EnrolledUser:
    """What a list of them shows."""

    directory: str
    username: str
    recovery_codes: int
    """How many are left."""
    created_at: float


class AuthenticatorStore(Database):
    def enrolled_users(self) -> list[EnrolledUser]:
        """By directory and name."""
        table = authenticator.c
        with self._read() as connection:
            rows = connection.execute(select(authenticator).order_by(table.directory, table.username))
            return [EnrolledUser(r.directory, r.username, len(r.recovery), r.created_at) for r in rows]

    def authenticator(self, directory: str, username: str) -> StoredAuthenticator | None:
        with self._read() as connection:
            row = connection.execute(select(authenticator).where(_of(directory, username))).one_or_none()
            if row is None:
                return None
            secret = self._opened(connection, row.secret, _row(directory, username))
            recovery, person = tuple(row.recovery), row.person or b""
            return StoredAuthenticator(directory, username, secret, row.last_step, recovery, row.created_at, person)

    def enrol(self, new: StoredAuthenticator) -> bool:
        """In place of the one that the user has. Whether there was one."""
        with self._write() as connection:
            before = connection.execute(delete(authenticator).where(_of(new.directory, new.username))).rowcount
            connection.execute(
                insert(authenticator).values(
                    directory=new.directory,
                    username=new.username,
                    secret=self._closed(connection, new.secret, _row(new.directory, new.username)),
                    last_step=new.last_step,
                    recovery=list(new.recovery),
                    created_at=new.created_at,
                    person=new.person or None,
                )
            )
            details = {"directory": new.directory, "username": new.username}
            self._record(connection, "enrol-authenticator", details, now=new.created_at)
            return before > 0

    def take_step(self, directory: str, username: str, step: int) -> bool:
        """False: it, or a later one, has been taken already; also by another gateway on this database."""
        with self._write() as connection:
            taken = connection.execute(
                update(authenticator)
                .where(_of(directory, username), authenticator.c.last_step < step)
                .values(last_step=step)
            )
            return taken.rowcount == 1

    def take_recovery_code(self, directory: str, username: str, digest: str) -> bool:
        """False: it is none of those that are left."""
        with self._write() as connection:
            left = connection.execute(select(authenticator.c.recovery).where(_of(directory, username))).scalar()
            if left is None or digest not in left:
                return False
            kept = [each for each in left if each != digest]
            connection.execute(update(authenticator).where(_of(directory, username)).values(recovery=kept))
            details = {"directory": directory, "username": username, "left": len(kept)}
            self._record(connection, "use-recovery-code", details)
            return True

    def remove_authenticator(self, directory: str, username: str) -> bool:
        """Whether there was one."""
        with self._write() as connection:
            if not connection.execute(delete(authenticator).where(_of(directory, username))).rowcount:
                return False
            self._record(connection, "remove-authenticator", {"directory": directory, "username": username})
            return True


def _of(directory: str, username: str) -> ColumnElement[bool]:
    return (authenticator.c.directory == directory) & (authenticator.c.username == username)


def _row(directory: str, username: str) -> str:
    return f"authenticator {directory} {username}"
