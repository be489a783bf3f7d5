"""Users of the directory "local". A change is in force when it is answered: sessions of users who are gone or disabled
have ended, and changed groups have changed what live sessions reach."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from cvpnd.auth.identity import problem_with_name
from cvpnd.auth.passwords import MAX_PASSWORD_BYTES, as_bytes, hash_password
from cvpnd.config import LOCAL_DIRECTORY
from cvpnd.endpoints.model import OperationError, UserView
from cvpnd.endpoints.operations import OperationsBase
from cvpnd.spelling import any_spelling
from cvpnd.store import StoredLocalUser

MAX_GROUPS = 200
MAX_GROUP_CHARACTERS = 255


class UserOperations(OperationsBase):
    async def list_users(self) -> list[UserView]:
        """Those of the file first."""
        stored = await self._store(self._stored.local_users)
        of_file = [UserView(u.name, u.groups, "enabled", "file") for u in self._gateway.config.local_users]
        names = {user.name for user in of_file}
        return [*of_file, *(_view(user) for user in stored if user.name not in names)]

    async def add_user(self, name: str, password: str, groups: Sequence[str]) -> UserView:
        if (problem := problem_with_name(name)) is not None:
            raise OperationError("InvalidParameterValue", f"the name {problem}")
        user = StoredLocalUser(name, await _hashed(password), _checked_groups(groups), False, time.time())
        async with self._change() as change:
            for each in await self.list_users():
                if any_spelling(each.name) == any_spelling(name):  # whoever ends one of them, or counts, means both
                    raise OperationError("EntityAlreadyExists", f"there is a user {each.name} already")
            await self._store(self._stored.add_local_user, user)
            # of somebody whom the file had by that name
            await self._store(self._stored.remove_authenticator, LOCAL_DIRECTORY, name)
            await self._put_in_force(change)
        return _view(user)

    async def change_user(
        self,
        name: str,
        *,
        password: str | None = None,
        groups: Sequence[str] | None = None,
        disabled: bool | None = None,
    ) -> UserView:
        """None: as it is."""
        password_hash = None if password is None else await _hashed(password)
        checked = None if groups is None else _checked_groups(groups)
        async with self._change() as change:
            self._check_origin(name)
            user = await self._store(
                self._stored.change_local_user, name, password_hash=password_hash, groups=checked, disabled=disabled
            )
            if user is None:
                raise OperationError("NoSuchEntity.NotFound", f"there is no user {name}")
            await self._put_in_force(change)
            return _view(user)

    async def remove_user(self, name: str) -> None:
        async with self._change() as change:
            self._check_origin(name)
            if not await self._store(self._stored.remove_local_user, name):
                raise OperationError("NoSuchEntity.NotFound", f"there is no user {name}")
            await self._store(self._stored.remove_authenticator, LOCAL_DIRECTORY, name)
            await self._put_in_force(change)

    def _check_origin(self, name: str) -> None:
        config = self._gateway.config
        if any(user.name == name for user in config.local_users):
            raise OperationError("IncorrectState", f"user {name} is declared in {config.path}; change it there, reload")


async def _hashed(password: str) -> str:
    if not password or len(as_bytes(password)) > MAX_PASSWORD_BYTES:
        raise OperationError("InvalidParameterValue", f"a password has 1 to {MAX_PASSWORD_BYTES} bytes")
    return await asyncio.to_thread(hash_password, password)


def _checked_groups(groups: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(groups))
    if len(chosen) > MAX_GROUPS:
        raise OperationError("InvalidParameterValue", f"{len(chosen)} groups; at most {MAX_GROUPS} count")
    for group in chosen:
        if not group.strip() or not group.isprintable() or len(group) > MAX_GROUP_CHARACTERS:
            raise OperationError("InvalidParameterValue", f"{group[:64]!r} is no name of a group")
    return chosen


def _view(user: StoredLocalUser) -> UserView:
    return UserView(user.name, user.groups, "disabled" if user.disabled else "enabled", "store")
