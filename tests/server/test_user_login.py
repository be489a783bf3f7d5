"""The user method of a login, where something changes while a directory is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cvpnd.auth.directory import Account
from cvpnd.auth.local_users import LocalUser, LocalUsers
from cvpnd.auth.logins import UserLogins
from cvpnd.auth.passwords import hash_password
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.config import AuthenticationConfig
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret
from cvpnd.server.denied import Denied
from cvpnd.server.holder import NOBODY_YET
from cvpnd.server.user_method import vouch

METHOD = AuthenticationConfig(type="directory-service-authentication", directory="local")
HASH, OTHER_HASH = hash_password("right"), hash_password("right")


class ChangedMeanwhile(LocalUsers):
    """An administrator is quicker than the answer."""

    def __init__(self, *after: LocalUser) -> None:
        super().__init__()
        self.replace([LocalUser("anna", HASH)])
        self._after = after

    def log_in(self, username: str, password: Secret) -> Any:
        answer = super().log_in(username, password)
        self.replace(self._after)
        return answer


async def vouched(users: LocalUsers) -> Account:
    logins = UserLogins({"local": users})
    connection: Any = SimpleNamespace(
        endpoint=SimpleNamespace(settings=SimpleNamespace(user_method=METHOD, hand_window_s=60)),
        link=SimpleNamespace(remote=SimpleNamespace(host="192.0.2.1")),
    )
    credentials: Any = SimpleNamespace(username="anna", password=Secret(b"right"))
    control: Any = SimpleNamespace(users=logins)
    try:
        return await vouch(control, connection, credentials, NOBODY_YET, RevokedLogins().begin("", 0.0))
    finally:
        logins.close()


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ((), Refusal.USER_UNKNOWN),
        ((LocalUser("anna", HASH, disabled=True),), Refusal.ACCOUNT_DISABLED),
        ((LocalUser("anna", OTHER_HASH),), Refusal.WRONG_PASSWORD),
    ],
)
async def test_a_user_who_is_removed_disabled_or_changed_during_the_login_stays_out(after, reason):
    with pytest.raises(Denied) as denied:
        await vouched(ChangedMeanwhile(*after))
    assert denied.value.refusal is reason


async def test_groups_are_those_of_the_moment_in_which_the_user_is_let_in():
    account = await vouched(ChangedMeanwhile(LocalUser("anna", HASH, frozenset({"eng"}))))
    assert account.groups == {"eng"}
