"""The directory for small sites: users of the TOML file and of the store, all of them in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.passwords import verify_password
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret
from cvpnd.spelling import composed


@dataclass(frozen=True, slots=True)
class LocalUser:
    name: str
    password_hash: str = field(repr=False)
    groups: frozenset[str] = frozenset()
    disabled: bool = False
    person: bytes = b""
    """As in ``Account``."""

    @property
    def account(self) -> Account | Refused:
        if self.disabled:
            return Refused(Refusal.ACCOUNT_DISABLED, f"{self.name} is disabled")
        return Account(self.name, self.groups, hashlib.sha256(self.password_hash.encode()).digest(), self.person)


class LocalUsers:
    """The table is replaced whole, so threads need no lock."""

    at_once = 4
    """Each takes 19 MiB and a core."""
    good_for_s: float | None = None

    def __init__(self) -> None:
        self._users: dict[str, LocalUser] = {}
        """By name, and as it is composed, as people's systems may write it."""

    def replace(self, users: Iterable[LocalUser]) -> None:
        """Of several with one name the first counts."""
        table: dict[str, LocalUser] = {}
        for user in users:
            table.setdefault(user.name, user)
        for user in list(table.values()):
            table.setdefault(composed(user.name), user)
        self._users = table

    def servers_up(self) -> dict[str, bool]:
        return {}

    def unchecked(self) -> int:
        return 0

    def log_in(self, username: str, password: Secret) -> Account | Refused:
        user = self._find(username)
        right = verify_password(None if user is None else user.password_hash, password)
        if user is None:
            return _unknown(username)
        if not right:
            return Refused(Refusal.WRONG_PASSWORD, f"of local user {username}")
        return user.account

    def look_up(self, username: str) -> Account | Refused:
        user = self._find(username)
        return _unknown(username) if user is None else user.account

    def still(self, name: str) -> Account | Refused:
        """The account of a session: of nobody else, however alike their names are."""
        user = self._users.get(name)
        return _unknown(name) if user is None or user.name != name else user.account

    def _find(self, username: str) -> LocalUser | None:
        return self._users.get(username) or self._users.get(composed(username))

    def take_password(self, username: str) -> Secret | None:  # noqa: ARG002 - everybody is known here
        return None

    def wipe_passwords(self) -> None:
        pass


def _unknown(name: str) -> Refused:
    return Refused(Refusal.USER_UNKNOWN, f"no local user {name}")
