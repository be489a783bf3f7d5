"""Logins by the token of an earlier one: nobody types, and the account must still be what it was."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from typing import TYPE_CHECKING

from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.logins import OWN_FAULT, left_of_failure
from cvpnd.auth.tokens import LIFETIME_S, Token, TokenOwner
from cvpnd.policy.model import Identity
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret
from cvpnd.server import federated
from cvpnd.server.admission import prefixes
from cvpnd.server.denied import FINAL_TEXT, Denied
from cvpnd.server.holder import check_name
from cvpnd.server.user_method import LOGIN_SHARE
from cvpnd.store import StoreError
from cvpnd.wire.agreement import NO_NAME
from cvpnd.wire.events import CredentialsReceived

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane

log = logging.getLogger(__name__)


async def recognise(
    control: ControlPlane, connection: Connection, credentials: CredentialsReceived, identity: Identity
) -> Account:
    """By the token of an earlier login. Raises ``Denied``, and late enough not to tell who is known here: the directory
    is asked about some and not about others."""
    begun = time.monotonic()
    try:
        known = await _recall(control, connection, credentials, identity)
        return vouch_by_token(control, connection, credentials, identity, known)
    except Denied:
        await asyncio.sleep(left_of_failure(time.monotonic() - begun))
        raise


async def _recall(
    control: ControlPlane, connection: Connection, credentials: CredentialsReceived, identity: Identity
) -> Account | Refused | None:
    """After a restart nobody here knows the account that a token is for. What is returned is somebody that no directory
    can be asked about."""
    settings = connection.endpoint.settings
    method = settings.user_method
    if method is not None and method.is_federated:
        known = await federated.recall(control, connection, credentials)
        return known or Refused(Refusal.TOKEN_INVALID, "of no login that is remembered")
    assert method is not None and method.directory is not None  # noqa: S101 - the caller's promise, the model's check
    within_s = settings.hand_window_s * LOGIN_SHARE
    source, _ = prefixes(connection.link.remote.host)
    kept = _Kept(control, connection, credentials, identity)
    refused = await control.users.recall(
        method.directory, credentials.username, source=source, within_s=within_s, kept=kept
    )
    if refused is not None and refused.refusal in OWN_FAULT:
        await kept.forget()
    if refused is not None:  # the account is not what it was, which is told like a token that is not good; or no answer
        text = FINAL_TEXT[Refusal.TOKEN_INVALID] if refused.refusal in OWN_FAULT else ""
        raise Denied(refused.refusal, refused.detail, text=text)
    return None


def vouch_by_token(
    control: ControlPlane,
    connection: Connection,
    credentials: CredentialsReceived,
    identity: Identity,
    remembered: Account | Refused | None = None,
) -> Account:
    """The account whose password was right when the token was written, as it is now. Raises ``Denied``.

    ``remembered``: somebody that no directory can be asked about."""
    method = connection.endpoint.settings.user_method
    assert method is not None  # noqa: S101 - the caller's promise
    if control.token_key is None:
        raise Denied(Refusal.TOKEN_INVALID)
    account: Account | Refused
    if method.is_federated:
        account = remembered or Account(identity.username, identity.groups)  # of a connection that is let in
    else:
        assert method.directory is not None  # noqa: S101 - the model's check
        check_name(method, credentials.username, identity, typed=True)
        account = control.users.look_up(method.directory, credentials.username)
    known = Account(credentials.username, frozenset()) if isinstance(account, Refused) else account
    token = control.token_key.read(credentials.password.text(), _owner(connection, known, identity))
    if isinstance(account, Refused):  # told like a token that is not good: nobody learns who is known here
        raise Denied(account.refusal, account.detail, text=FINAL_TEXT[Refusal.TOKEN_INVALID])
    if token is None or (connection.token is not None and token.login_id != connection.token.login_id):
        raise Denied(Refusal.TOKEN_INVALID, "not written for this user, endpoint, certificate, password or session")
    check_name(method, account.name, identity)
    if control.revoked_logins.covers(token, connection.endpoint.id, method.directory or "", account.name):
        raise Denied(Refusal.TOKEN_INVALID, "its login was ended by an administrator")
    _check_age(control, connection, token)
    connection.token = token
    return account


def _check_age(control: ControlPlane, connection: Connection, token: Token) -> None:
    """Of a session that is there the steady clock knows it, however often the wall clock is set meanwhile. Who comes
    anew may have been away while no gateway ran. Raises ``Denied``."""
    now, wall = control.clock.now(), time.time()
    lifetime_s = min(token.lifetime_s, _lifetime_s(connection))
    if connection.token is None:
        age_s = token.age_s(wall, now)
        connection.logged_in_at = now - max(now - token.steady_at, wall - token.logged_in_at)
    else:
        age_s = now - connection.logged_in_at
    if age_s < lifetime_s:
        return
    if connection.token is None and token.logged_in_at - wall >= lifetime_s:
        raise Denied(
            Refusal.TOKEN_EXPIRED, f"of a login {token.logged_in_at - wall:.0f} s from now: the clock was set back"
        )
    raise Denied(Refusal.TOKEN_EXPIRED, f"{age_s - lifetime_s:.0f} s ago")


async def keep_password(
    control: ControlPlane,
    connection: Connection,
    credentials: CredentialsReceived,
    identity: Identity,
    account: Account,
) -> None:
    """After a login at a directory in which nobody else may look at the account: for the token that is written now."""
    method = connection.endpoint.settings.user_method
    if method is None or method.directory is None:
        return
    password = control.users.take_password(method.directory, account.name)
    if password is None or control.token_key is None or control.kept_passwords is None:
        return
    token = _begin_login(control, connection, account, with_secret=True)
    owner = _owner(connection, Account(credentials.username, frozenset()), identity)
    try:
        await asyncio.to_thread(control.kept_passwords.keep, token, owner, method.directory, account.name, password)
    except StoreError as error:
        log.warning("the password of %s is not kept, a restart will ask for it: %s", account.name, error)
    except Exception:
        log.exception("the password of %s is not kept: a restart will ask for it", account.name)
    finally:
        password.wipe()


class _Kept:
    """The password that was kept for a login, for who shows the token of it."""

    def __init__(
        self, control: ControlPlane, connection: Connection, credentials: CredentialsReceived, identity: Identity
    ) -> None:
        self._kept = control.kept_passwords
        self._token = Token.claimed(credentials.password.text())
        self._owner = _owner(connection, Account(credentials.username, frozenset()), identity)
        self._opened = False

    def __call__(self) -> Secret | None:
        """In a thread."""
        if self._kept is None or self._token is None:
            return None
        password = self._kept.open(self._token, self._owner)
        self._opened = password is not None
        return password

    async def forget(self) -> None:
        """If it was this token's: nobody else may have it forgotten."""
        if self._kept is not None and self._token is not None and self._opened:
            await asyncio.to_thread(self._kept.forget, self._token)


def token_options(
    control: ControlPlane, connection: Connection, account: Account | None, identity: Identity, username: str
) -> tuple[str, ...]:
    """The token of a first login, or again the one that the client came with; and a name for it if it has none."""
    if account is None or control.token_key is None:
        return ()
    begun = connection.token or _begin_login(control, connection, account)
    token = f"auth-token {control.token_key.write(begun, _owner(connection, account, identity))}"
    return (token,) if username else (token, f"auth-token-user {base64.b64encode(NO_NAME.encode()).decode()}")


def _begin_login(
    control: ControlPlane, connection: Connection, account: Account, *, with_secret: bool = False
) -> Token:
    method, now = connection.endpoint.settings.user_method, control.clock.now()
    directory = "" if method is None else method.directory or ""
    mark = control.revoked_logins.mark(connection.endpoint.id, directory, account.name)
    connection.logged_in_at = now
    connection.token = Token.new(time.time(), _lifetime_s(connection), steady=now, mark=mark, with_secret=with_secret)
    return connection.token


def _owner(connection: Connection, account: Account, identity: Identity) -> TokenOwner:
    method = connection.endpoint.settings.user_method
    directory = "" if method is None else method.directory or ""
    if method is not None and method.is_federated:
        directory = federated.owner_name(method)
    if method is not None and method.mfa != "off":  # else a login without a code were worth as much
        directory += f" {method.mfa}"
    return TokenOwner(connection.endpoint.id, directory, account.name, identity.certificate_fingerprint, account.stamp)


def _lifetime_s(connection: Connection) -> int:
    return connection.endpoint.settings.session_timeout_s or LIFETIME_S
