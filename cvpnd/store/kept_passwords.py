"""Sealed passwords of logins, for what ``auth.kept_passwords`` says. What opens them is not here. Nothing of it is a
change that anybody audits."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, insert, select

from cvpnd.store.database import Database
from cvpnd.store.tables import kept_password

MOST_OF_ACCOUNT = 32
"""Devices of one person, and logins of each that it has forgotten; who logs in again and again fills no disk."""


class KeptPasswordStore(Database):
    def keep_password(
        self, login_id: str, directory: str, username: str, sealed: bytes, logged_in_at: float, until: float, now: float
    ) -> None:
        with self._write() as connection:
            table = kept_password.c
            connection.execute(delete(kept_password).where(table.until <= now))
            same = (table.directory == directory) & (table.username == username)
            newest = select(table.login_id).where(same).order_by(table.logged_in_at.desc(), table.login_id)
            over = list(connection.execute(newest.offset(MOST_OF_ACCOUNT - 1)).scalars())
            connection.execute(delete(kept_password).where(table.login_id.in_(over)))
            connection.execute(
                insert(kept_password).values(
                    login_id=login_id, directory=directory, username=username, sealed=sealed,
                    logged_in_at=logged_in_at, until=until,
                )
            )  # fmt: skip

    def kept_password(self, login_id: str, now: float) -> bytes | None:
        table = kept_password.c
        with self._read() as connection:
            found = select(table.sealed).where(table.login_id == login_id, table.until > now)
            return connection.execute(found).scalar()

    def forget_password(self, login_id: str) -> None:
        """And those of the same account that were kept no later."""
        table = kept_password.c
        with self._write() as connection:
            row = connection.execute(select(kept_password).where(table.login_id == login_id)).one_or_none()
            if row is not None:
                same = (table.directory == row.directory) & (table.username == row.username)
                connection.execute(delete(kept_password).where(same, table.logged_in_at <= row.logged_in_at))

    def forget_passwords_of(self, directory: str, username: str) -> None:
        table = kept_password.c
        with self._write() as connection:
            connection.execute(delete(kept_password).where(table.directory == directory, table.username == username))

    def tidy_passwords(self, directories: Collection[str], now: float) -> None:
        """Of other directories none is kept, and none after its time."""
        table = kept_password.c
        gone = table.directory.not_in(list(directories)) | (table.until <= now)
        with self._read() as connection:  # as a rule there is nothing to do, and then nobody else waits
            if connection.execute(select(table.login_id).where(gone).limit(1)).first() is None:
                return
        with self._write() as connection:
            connection.execute(delete(kept_password).where(gone))
