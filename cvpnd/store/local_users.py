"""Users of the directory "local" that are not the file's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sqlalchemy import delete, insert, select, update

from cvpnd.store.database import Database
from cvpnd.store.tables import local_user


@dataclass(frozen=True, slots=True)
class StoredLocalUser:
    name: str
    password_hash: str = field(repr=False)
    groups: tuple[str, ...]
    disabled: bool
    created_at: float


class LocalUserStore(Database):
    def local_users(self) -> list[StoredLocalUser]:
        """By name."""
        with self._read() as connection:
            rows = connection.execute(select(local_user).order_by(local_user.c.name))
            return [StoredLocalUser(r.name, r.password_hash, tuple(r.groups), r.disabled, r.created_at) for r in rows]

    def add_local_user(self, user: StoredLocalUser) -> None:
        """There is none of that name."""
        with self._write() as connection:
            connection.execute(
                insert(local_user).values(
                    name=user.name,
                    password_hash=user.password_hash,
                    groups=list(user.groups),
                    disabled=user.disabled,
                    created_at=user.created_at,
                )
            )
            self._record(connection, "add-user", _facts(user), now=user.created_at)

    def change_local_user(
        self,
        name: str,
        *,
        password_hash: str | None = None,
        groups: tuple[str, ...] | None = None,
        disabled: bool | None = None,
    ) -> StoredLocalUser | None:
        """As it is now; None if there is none."""
        with self._write() as connection:
            row = connection.execute(select(local_user).where(local_user.c.name == name)).one_or_none()
            if row is None:
                return None
            before = StoredLocalUser(row.name, row.password_hash, tuple(row.groups), row.disabled, row.created_at)
            after = replace(
                before,
                password_hash=before.password_hash if password_hash is None else password_hash,
                groups=before.groups if groups is None else groups,
                disabled=before.disabled if disabled is None else disabled,
            )
            connection.execute(
                update(local_user)
                .where(local_user.c.name == name)
                .values(password_hash=after.password_hash, groups=list(after.groups), disabled=after.disabled)
            )
            self._record(connection, "change-user", {**_facts(after), "password": password_hash is not None})
            return after

    def remove_local_user(self, name: str) -> bool:
        """Whether there was one."""
        with self._write() as connection:
            if not connection.execute(delete(local_user).where(local_user.c.name == name)).rowcount:
                return False
            self._record(connection, "remove-user", {"name": name})
            return True


def _facts(user: StoredLocalUser) -> dict[str, object]:
    return {"name": user.name, "groups": list(user.groups), "disabled": user.disabled}
