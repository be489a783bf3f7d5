"""From credentials to an installed peer, read from top to bottom.

The TLS handshake has proven the certificate, if the endpoint asks for one (chain, validity, purpose, CRL, name). What
follows here is what the endpoint asks for on top, which is a user's password, then its client connect handler, then the
address, then the answer to the client. All methods of the endpoint and the handler must say yes before anything is
given or told. Everything that is not a clear yes is a no: an unexpected error too, as ``internal-error``.

The steps: ``holder.py`` (the certificate), ``user_method.py`` or ``token_login.py`` (the user), ``grants.py`` (what a
yes is worth), ``denied.py`` (what a no is told).
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from cvpnd.auth.directory import Account
from cvpnd.auth.revoked_logins import LoginUnderWay
from cvpnd.auth.tokens import looks_like_token
from cvpnd.handlers.schema import ConnectRequest, HandlerFailed
from cvpnd.policy.model import Identity
from cvpnd.reasons import Refusal
from cvpnd.server.connection import DeviceKey
from cvpnd.server.denied import CLIENT_TEXT, FINAL_TEXT, Denied
from cvpnd.server.grants import check_limits, client_facts, holder_of, make_grant, peer_settings
from cvpnd.server.holder import identify
from cvpnd.server.predecessors import ask, end_predecessors, in_doubt
from cvpnd.server.token_login import keep_password, recognise, token_options, vouch_by_token
from cvpnd.server.user_method import unchanged, vouch
from cvpnd.store import StoreError
from cvpnd.wire.events import CredentialsReceived

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane
    from cvpnd.server.endpoint import ServedEndpoint

log = logging.getLogger(__name__)

RETRY_AFTER_S = (5, 15)
"""Chosen at random for each client, so that they do not all come back in the same second."""
ANSWER_TAKES_S = 1.0
"""Of the time for which the client waits: the way of our answer to it."""
MEANT_FOR_PROGRAMS = ("TEMP", "CRV1:", "SESSION:")
"""How a text begins that a client does not show but obey."""


async def log_in(control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> None:
    """Decide and carry the decision out. Runs as the connection's only task; cancelled when the connection ends."""
    by_token = looks_like_token(credentials.password)
    try:
        login = control.revoked_logins.begin(connection.endpoint.id, control.clock.now())
        connection.device_type = credentials.peer_info.platform
        identity = identify(connection, credentials)
        connection.common_name = identity.common_name
        account: Account | None = None
        if connection.endpoint.settings.user_method is not None:
            connection.username = credentials.username  # for the log; not proven yet
            if by_token:
                connection.method = connection.endpoint.method(token=True)
                account = await recognise(control, connection, credentials, identity)
            else:
                account = await vouch(control, connection, credentials, identity, login)
                await keep_password(control, connection, credentials, identity, account)
            identity = _as_of_now(control, connection, credentials, account, login)  # again: the user method took time
        if connection.endpoint.settings.handler is not None:
            connection.username = identity.username
            await _ask_handler(control, connection, credentials, identity)
            identity = _as_of_now(control, connection, credentials, account, login)  # again: the handler took its time
        before = in_doubt(control, connection, _device(connection, credentials, identity))
        if before is not None and not by_token:  # a token says by itself what it comes in place of
            await ask(control, before)
            identity = _as_of_now(control, connection, credentials, account, login)
        endpoint, holder = connection.endpoint, holder_of(identity, credentials.peer_info.device_id)
        if endpoint.leftovers is not None and endpoint.leases.waits_for(holder):
            await endpoint.leftovers.ready(holder)
            identity = _as_of_now(control, connection, credentials, account, login)
        _let_in(control, connection, credentials, identity, account)
        control.pump(connection, control.loop.time())
    except Denied as denied:
        _refuse(control, connection, denied)
    except StoreError as error:
        _refuse(control, connection, Denied(Refusal.DATABASE_UNAVAILABLE, str(error)))
    except Exception:
        log.exception("%s: login failed", connection.connection_id)
        control.refuse(connection, Refusal.INTERNAL_ERROR)
    finally:
        credentials.password.wipe()
        if connection.login is asyncio.current_task():
            connection.login = None


def takes_time(endpoint: ServedEndpoint) -> bool:
    """Somebody is asked, or an address has to be waited for."""
    return endpoint.asks_somebody or endpoint.leases.waits


def log_in_at_once(control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> None:
    """The same where the certificate decides alone and addresses are ready, before the answer to its key leaves: by the
    caller, who pumps the session. Unless a connection of before is ``in_doubt``."""
    try:
        connection.device_type = credentials.peer_info.platform
        identity = identify(connection, credentials)
        connection.common_name = identity.common_name
        if in_doubt(control, connection, _device(connection, credentials, identity)) is not None:
            connection.login = control.loop.create_task(log_in(control, connection, credentials))
            return
        _let_in(control, connection, credentials, identity, None)
    except Denied as denied:
        _refuse(control, connection, denied)
    except Exception:
        log.exception("%s: login failed", connection.connection_id)
        control.refuse(connection, Refusal.INTERNAL_ERROR)


def _let_in(
    control: ControlPlane,
    connection: Connection,
    credentials: CredentialsReceived,
    identity: Identity,
    account: Account | None,
) -> None:
    """All have said yes. Raises ``Denied`` where there is no room."""
    vouched_by, saml = connection.vouched_by, control.saml
    if vouched_by is not None and saml is not None and saml.replaced(vouched_by):  # as whoever is in was ended then
        raise Denied(Refusal.SAML_WRONG_ISSUER, f"{vouched_by.idp.entity_id} was replaced during the login")
    connection.identity = identity
    connection.username = identity.username
    connection.person = b"" if account is None else account.person
    end_predecessors(control, connection, _device(connection, credentials, identity))
    check_limits(control, connection, identity)
    connection.facts = client_facts(connection, credentials)
    grant = make_grant(connection.endpoint, identity, credentials.peer_info.device_id, connection.facts)
    connection.grant = grant
    token = token_options(control, connection, account, identity, credentials.username)
    control.admit(connection, peer_settings(connection, grant), grant.options, token)


def _device(connection: Connection, credentials: CredentialsReceived, identity: Identity) -> DeviceKey:
    device_id = credentials.peer_info.device_id
    return DeviceKey(connection.endpoint.index, identity.certificate_fingerprint, identity.username, device_id)


async def log_in_again(control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> None:
    """The same for a later key of a connection that is let in, whose certificate has been looked at: the password must
    still be right, and the account may have changed."""
    try:
        before = connection.identity
        assert before is not None  # noqa: S101 - it is established
        login = control.revoked_logins.begin(connection.endpoint.id, control.clock.now())
        account = await vouch(control, connection, credentials, before, login)
        _check_not_ended(connection, account.name, before.common_name, login)
        refused = connection.endpoint.still_trusted(connection)
        if refused is not None:
            raise Denied(refused.refusal, refused.detail)
        if (account.name, account.person) != (before.username, connection.person):
            raise Denied(Refusal.IDENTITY_CHANGED)
        connection.endpoint.set_account(control.plane, connection, account.groups)
        control.go_on(connection)
    except Denied as denied:
        _refuse(control, connection, denied)
    except StoreError as error:
        _refuse(control, connection, Denied(Refusal.DATABASE_UNAVAILABLE, str(error)))
    except Exception:
        log.exception("%s: login for a later key failed", connection.connection_id)
        control.refuse(connection, Refusal.INTERNAL_ERROR)
    finally:
        credentials.password.wipe()
        if connection.login is asyncio.current_task():
            connection.login = None


def go_on_by_token(control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> None:
    """The same for a client that shows its token: decided at once, before the answer to its key leaves. No person and
    no directory is asked."""
    try:
        before = connection.identity
        assert before is not None  # noqa: S101 - it is established
        account = vouch_by_token(control, connection, credentials, before)
        if account.name != before.username:
            raise Denied(Refusal.IDENTITY_CHANGED)
        connection.endpoint.set_account(control.plane, connection, account.groups)
        control.go_on(connection)
    except Denied as denied:
        _refuse(control, connection, denied)


def put_off(control: ControlPlane, connection: Connection, *, elsewhere: bool) -> bool:
    """What a login that is under way began with ends now: the client is told to come back, ``elsewhere`` if nobody
    listens any more where it is. False: none is."""
    if not is_under_way(connection):
        return False
    _refuse(control, connection, Denied(Refusal.SHUTTING_DOWN, "its login was under way"), elsewhere=elsewhere)
    return True


def is_under_way(connection: Connection) -> bool:
    return connection.login is not None and not connection.established


def _refuse(control: ControlPlane, connection: Connection, denied: Denied, *, elsewhere: bool = False) -> None:
    passing = CLIENT_TEXT.get(denied.refusal)
    text = denied.text or passing or FINAL_TEXT.get(denied.refusal, "")
    retry_after_s = random.randint(*RETRY_AFTER_S) if passing else None  # noqa: S311
    control.refuse(
        connection, denied.refusal, text, retry_after_s=retry_after_s, elsewhere=elsewhere, detail=denied.detail
    )


async def _ask_handler(
    control: ControlPlane, connection: Connection, credentials: CredentialsReceived, identity: Identity
) -> None:
    """Whether the endpoint's client connect handler lets this client in. Raises ``Denied``."""
    settings, info = connection.endpoint.settings, credentials.peer_info
    assert settings.handler is not None  # noqa: S101 - the caller's promise
    request = ConnectRequest(
        connection_id=connection.connection_id,
        endpoint_id=connection.endpoint.id,
        common_name=identity.common_name,
        username=identity.username,
        platform=info.platform,
        platform_version=info.values.get("IV_PLAT_VER", ""),
        client_openvpn_version=info.version,
        aws_client_version=info.gui_version if "aws" in info.gui_version.lower() else "",
        public_ip=connection.link.remote.host,
        groups=sorted(identity.groups),
    )
    left_s = connection.session.patience(asyncio.get_running_loop().time()) - ANSWER_TAKES_S
    try:
        answer = await control.handlers.ask(settings.handler, request, within_s=max(0.0, left_s))
    except HandlerFailed as failed:
        raise Denied(failed.refusal, failed.detail) from None
    connection.posture_statuses = answer.statuses
    if not answer.allow:
        raise Denied(Refusal.CLIENT_CONNECT_FAILED, answer.message, text=_to_be_shown(answer.message))


def _to_be_shown(message: str) -> str:
    """What it begins with once ``messages.auth_failed`` has taken away what cannot be shown is what counts."""
    seen = "".join(c for c in message if c.isprintable()).lstrip()
    return f"Denied: {message}" if seen.startswith(MEANT_FOR_PROGRAMS) else message


def _as_of_now(
    control: ControlPlane,
    connection: Connection,
    credentials: CredentialsReceived,
    account: Account | None,
    login: LoginUnderWay,
) -> Identity:
    """Who it is, if all that has been proven still holds. Raises ``Denied``."""
    certified, method = identify(connection, credentials), connection.endpoint.settings.user_method
    _check_not_ended(connection, "" if account is None else account.name, certified.common_name, login)
    if account is None or method is None:
        return certified
    if looks_like_token(credentials.password):
        account = vouch_by_token(control, connection, credentials, certified, account)
    elif not method.is_federated:  # whose identity provider is asked once
        account = unchanged(control, connection, account)
    return replace(certified, username=account.name, groups=account.groups)


def _check_not_ended(connection: Connection, username: str, common_name: str, login: LoginUnderWay) -> None:
    """Sessions of somebody whose logins are ended can be found, and this is none yet. Raises ``Denied``."""
    method = connection.endpoint.settings.user_method
    directory = "" if method is None else method.directory or ""
    if login.is_ended(directory, username, common_name):
        raise Denied(Refusal.TERMINATED, f"the logins of {username or common_name} were ended while it was under way")
