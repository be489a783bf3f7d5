"""Who the users are, and what becomes of sessions when that changes: the directories, the RADIUS servers that ask for
codes, the local users, and whose logins administrators have ended."""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.kept_passwords import KeptPasswords
from cvpnd.auth.ldap_directory import LdapDirectory
from cvpnd.auth.local_users import LocalUser, LocalUsers
from cvpnd.auth.logins import OWN_FAULT, UserLogins
from cvpnd.auth.radius import RadiusSettings
from cvpnd.auth.radius_codes import RadiusCodes
from cvpnd.auth.totp import Totp
from cvpnd.config import LOCAL_DIRECTORY, Config, RadiusConfig
from cvpnd.dataplane.api import DataPlane
from cvpnd.reasons import End, Refusal
from cvpnd.server.connection import Connection
from cvpnd.server.control import ControlPlane
from cvpnd.server.texts import TERMINATED_TEXT
from cvpnd.spelling import any_spelling
from cvpnd.store import RevokedLogin, Store, StoredLocalUser, StoreError, StoreUnavailable

log = logging.getLogger(__name__)


class Accounts:
    """Owned by the gateway, and changed as it is: by one task at a time. What is wanted has been opened before, from
    files that could be read."""

    def __init__(self, plane: DataPlane, control: ControlPlane, store: Store) -> None:
        self._plane, self._control, self._store = plane, control, store
        self._local = LocalUsers()
        self._directories: dict[str, LdapDirectory] = {}
        self._unanswered: dict[str, str] = {}
        """Directory -> the account at which the latest look at all of them ended."""
        self._spelled_alike: dict[str, str] = {}
        """Users of the store -> those of the file whose names differ from theirs in spelling alone."""
        control.users = UserLogins({LOCAL_DIRECTORY: self._local})
        control.totp = Totp(store)

    def close(self) -> None:
        self._control.users.close()
        self.set_radius({})

    def set_directories(self, wanted: dict[str, LdapDirectory]) -> None:
        others = set()
        for name, before in self._directories.items():
            if (directory := wanted.get(name)) is None:
                before.close()
            elif not directory.succeed(before):
                others.add(name)
        self._directories = wanted
        self._control.users.replace({LOCAL_DIRECTORY: self._local, **wanted}, others)

    async def set_kept_passwords(self, file: Config, *, tidy: bool) -> None:
        """``tidy``: of directories that keep none any more, none is there."""
        if any(directory.keeps_passwords for directory in file.directories):
            secret = await asyncio.to_thread(self._store.gateway_secret, "kept-passwords")
            self._control.kept_passwords = KeptPasswords(self._store, secret)
        if tidy:
            await self._tidy_passwords(file)

    async def _tidy_passwords(self, file: Config) -> None:
        keeping = [directory.id for directory in file.directories if directory.keeps_passwords]
        await asyncio.to_thread(self._store.tidy_passwords, keeping, time.time())

    def set_radius(self, wanted: Mapping[RadiusConfig, RadiusSettings]) -> None:
        before, now = self._control.radius, {}
        for config, settings in wanted.items():
            codes = now[config.directory] = before.get(config.directory) or RadiusCodes(
                config, settings, self._store, self._control.clock.now
            )
            codes.replace(config, settings)
        for directory in before.keys() - now.keys():
            before[directory].close()
        self._control.radius = now

    def set_local_users(self, file: Config, stored: Sequence[StoredLocalUser]) -> None:
        """The file's count before those of the store. Sessions follow at once: what their user may not, they lose."""
        self._tell_of_spellings(file, stored)
        self._local.replace(
            [
                *(LocalUser(u.name, u.password_hash, frozenset(u.groups)) for u in file.local_users),
                *(LocalUser(u.name, u.password_hash, frozenset(u.groups), u.disabled, _person(u)) for u in stored),
            ]
        )
        for username in self._logged_in(LOCAL_DIRECTORY):
            self._follow(LOCAL_DIRECTORY, username, self._local.still(username))

    def _tell_of_spellings(self, file: Config, stored: Sequence[StoredLocalUser]) -> None:
        """Once, and no more: neither may be renamed here."""
        of_file = {any_spelling(user.name): user.name for user in file.local_users}
        both = {user.name: of_file.get(any_spelling(user.name), user.name) for user in stored}
        alike = {name: other for name, other in both.items() if name != other}
        for name, other in alike.items() - self._spelled_alike.items():
            log.warning(
                "user %s of cvpnctl and %s of %s differ in spelling alone: who ends logins of one, or counts "
                "sessions, means both; name one of them otherwise",
                name, other, file.path,
            )  # fmt: skip
        self._spelled_alike = alike

    async def look_who_was_ended(self) -> None:
        self.end_what_others_ended(await asyncio.to_thread(self._store.revoked_logins))

    def end_what_others_ended(self, stored: Mapping[str, RevokedLogin]) -> None:
        """As the store has it."""
        revoked = self._control.revoked_logins
        if not (news := revoked.replace(stored, self._control.clock.now())):
            return
        for connection in self._control.table:
            subjects = revoked.of_names(connection.endpoint.id, {connection.username, connection.common_name} - {""})
            if connection.token is not None:
                subjects.add(revoked.of_login(connection.token))
            if connection.established and not news.isdisjoint(subjects):
                self._control.halt(connection, End.TERMINATED, TERMINATED_TEXT)

    def local_account(self, username: str) -> Account | Refused:
        return self._local.look_up(username)

    def _logged_in(self, directory: str) -> set[str]:
        """Users of established sessions."""
        return {name for connection in self._control.table if (name := _user(connection, directory)) is not None}

    def _follow(self, directory: str, username: str, account: Account | Refused) -> None:
        """What became of the user's account, for the sessions that there are."""
        for connection in self._control.table:
            if _user(connection, directory) != username:
                continue
            if isinstance(account, Refused):
                log.info("%s: %s: %s", connection.connection_id, account.refusal, account.detail)
                if account.refusal is Refusal.ACCOUNT_UNCHECKED:  # it may come back with its token, and bind again
                    self._control.restart(connection, End.ACCOUNT_UNCHECKED)
                else:
                    self._control.halt(connection, End.ACCOUNT_DISABLED, "Account disabled")
            elif account.person != connection.person:
                log.info("%s: the account of %s is gone, and another has its name", connection.connection_id, username)
                self._control.halt(connection, End.ACCOUNT_DISABLED, "Account disabled")
            else:
                connection.endpoint.set_account(self._plane, connection, account.groups)

    async def keep(self, config: Callable[[], Config]) -> None:
        """Runs until cancelled: asks each directory at its interval about the users of live sessions."""
        asked_at: dict[str, float] = {}
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            self._control.users.wipe_passwords()
            for codes in self._control.radius.values():
                codes.expire()
            for directory in config().directories:
                if now >= asked_at.setdefault(directory.id, now) + directory.looks_every_s:
                    asked_at[directory.id] = now
                    await self._look_again(directory.id)
                    if directory.keeps_passwords:
                        await self._with_kept_passwords(self._tidy_passwords(config()))

    async def _look_again(self, directory: str) -> None:
        """Everybody gets their turn: whom it could not answer about comes last the next time."""
        unanswered = self._unanswered.pop(directory, "")
        for username in sorted(self._logged_in(directory), key=lambda name: (name <= unanswered, name)):
            if directory not in self._directories:
                return  # a reload took it away meanwhile
            account = await self._control.users.look_again(directory, username)
            if isinstance(account, Refused) and account.refusal not in OWN_FAULT:
                self._unanswered[directory] = username
                log.warning("directory %s: accounts stay as they are: %s", directory, account.detail)
                return
            if isinstance(account, Refused) and account.refusal is not Refusal.ACCOUNT_UNCHECKED:
                await self._with_kept_passwords(asyncio.to_thread(self._store.forget_passwords_of, directory, username))
            self._follow(directory, username, account)

    async def _with_kept_passwords(self, change: Awaitable[None]) -> None:
        """What cannot be taken away now is so later, and nobody can open it."""
        try:
            await change
        except StoreUnavailable:  # which is said already
            pass
        except StoreError as error:
            log.warning("kept passwords stay where they are: %s", error)


def _person(user: StoredLocalUser) -> bytes:
    """Somebody may be removed and another added in their name between two looks at a store that others change too."""
    return struct.pack(">d", user.created_at)


def _user(connection: Connection, directory: str) -> str | None:
    """Of an established session, if this directory let it in."""
    method, identity = connection.endpoint.settings.user_method, connection.identity
    if not connection.established or method is None or method.directory != directory or identity is None:
        return None
    return identity.username
