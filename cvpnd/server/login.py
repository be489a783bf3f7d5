"""From credentials to an installed peer, read from top to bottom.

The TLS handshake has proven the certificate, if the endpoint asks for one (chain, validity, purpose, CRL, name). What
follows here is what the endpoint asks for on top, which is a user's password, then its client connect handler, then the
address, then the answer to the client. All methods of the endpoint and the handler must say yes before anything is
given or told. Everything that is not a clear yes is
a no: an unexpected error too, as ``internal-error``.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cvpnd.auth.challenge import QUESTION_LIFETIME_S, Asked, Asker, Challenged
from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused, common_name
from cvpnd.auth.logins import OWN_FAULT, SecondFactor, left_of_failure
from cvpnd.auth.tokens import LIFETIME_S, Token, TokenOwner, looks_like_token
from cvpnd.config import AuthenticationConfig
from cvpnd.dataplane.api import Framing, PeerSettings, host_address
from cvpnd.handlers.schema import ConnectRequest, HandlerFailed
from cvpnd.policy.compile import group_bits
from cvpnd.policy.leases import PoolFull
from cvpnd.policy.model import P_DATA_V2_AEAD, ClientFacts, DataOverhead, Grant, Identity
from cvpnd.policy.mtu import client_mtu
from cvpnd.policy.push import push_options
from cvpnd.reasons import End, Refusal
from cvpnd.server import federated
from cvpnd.server.admission import prefixes
from cvpnd.server.connection import DeviceKey
from cvpnd.server.denied import Denied
from cvpnd.server.dialogue import ask_in_text, can_answer_in_text
from cvpnd.wire.agreement import NO_NAME
from cvpnd.wire.events import CredentialsReceived
from cvpnd.wire.negotiation import Unsupported
from cvpnd.wire.tls import fingerprint

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane
    from cvpnd.server.endpoint import ServedEndpoint

log = logging.getLogger(__name__)

HANDLER_TEXT = "Error establishing connection. Please contact your administrator."
"""AWS's, where the client connect handler gave no valid answer."""
CLIENT_TEXT = {
    Refusal.ADDRESS_POOL_FULL: "No free address on the server, try again later",
    Refusal.SESSION_LIMIT: "Too many sessions, try again later",
    Refusal.IDENTITY_SESSION_LIMIT: "Too many sessions of this user, try again later",
    Refusal.TOO_MANY_LOGINS: "Too many logins at this moment, try again later",
    Refusal.DIRECTORY_TIMEOUT: "The login service does not answer, try again later",
    Refusal.DIRECTORY_UNAVAILABLE: "The login service does not answer, try again later",
    Refusal.SAML_UNAVAILABLE: "The login service does not answer, try again later",
    Refusal.CLIENT_CONNECT_HANDLER_TIMED_OUT: HANDLER_TEXT,
    Refusal.CLIENT_CONNECT_HANDLER_THROTTLED: HANDLER_TEXT,
    Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR: HANDLER_TEXT,
    Refusal.RADIUS_UNAVAILABLE: "The login service does not answer, try again later",
    Refusal.RADIUS_UNVERIFIED: "The login service does not answer, try again later",
    Refusal.SHUTTING_DOWN: "The server is restarting",
}
"""What a refused client is told beyond ``AUTH_FAILED``; for any other reason, nothing. These are also the ones that
pass: a client that can is told to try again by itself."""
FINAL_TEXT = {
    Refusal.LOGIN_THROTTLED: "Too many failed logins, try again later",
    Refusal.LOGIN_UNANSWERED: "Nobody completed the login in time",
    Refusal.LOGIN_DECLINED: "The login was declined in the browser",
    Refusal.SAML_TOO_LARGE: "The SAML response is larger than 128 kB, ask your administrator to have fewer groups sent",
    Refusal.SAML_REQUEST_EXPIRED: "The login took too long, connect again",
    Refusal.SAML_OTHER_ADDRESS: "The login began at another address, connect again",
    Refusal.CLIENT_CONNECT_HANDLER_OTHER_EXECUTION_ERROR: HANDLER_TEXT,
    Refusal.CLIENT_CONNECT_HANDLER_INVALID_RESPONSE: HANDLER_TEXT,
    Refusal.TOKEN_INVALID: "SESSION: token expired",
    Refusal.TOKEN_EXPIRED: "SESSION: token expired",
}
"""The same for those that wait for a person: a client that came back by itself would only fail again. One whose token
was refused forgets it and comes back with the password, or asks for it."""
REPLACED_TEXT = "A newer session of this user took the place of this one"
RETRY_AFTER_S = (5, 15)
"""Chosen at random for each client, so that they do not all come back in the same second."""


NOBODY_YET = Identity("", "", frozenset(), "", "")
LOGIN_SHARE = 0.5
"""Of the hand-window, in which the client wants to be done: how long the user method may take."""
ANSWER_TAKES_S = 1.0
"""Of the time for which the client waits: the way of our answer to it."""
MEANT_FOR_PROGRAMS = ("TEMP", "CRV1:", "SESSION:")
"""How a text begins that a client does not show but obey."""
RADIUS_ENDS_S = 0.2
"""How much sooner RADIUS servers are given up, so that the reason of a login that took too long is theirs."""


async def log_in(control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> None:
    """Decide and carry the decision out. Runs as the connection's only task; cancelled when the connection ends."""
    try:
        connection.device_type = credentials.peer_info.platform
        identity = identify(credentials, connection.endpoint)
        connection.common_name = identity.common_name
        account: Account | None = None
        if connection.endpoint.settings.user_method is not None:
            connection.username = credentials.username  # for the log; not proven yet
            if looks_like_token(credentials.password):
                connection.method = connection.endpoint.method(token=True)
                account = await _recognise(control, connection, credentials, identity)
            else:
                account = await vouch(control, connection, credentials, identity)
            certified = identify(credentials, connection.endpoint)  # again: the user method took its time
            identity = replace(certified, username=account.name, groups=account.groups)
        if connection.endpoint.settings.handler is not None:
            connection.username = identity.username
            await _ask_handler(control, connection, credentials, identity)
            identity = _as_of_now(control, connection, credentials, account)  # again: the handler took its time
        _let_in(control, connection, credentials, identity, account)
    except Denied as denied:
        _refuse(control, connection, denied)
    except Exception:
        log.exception("%s: login failed", connection.connection_id)
        control.refuse(connection, Refusal.INTERNAL_ERROR)
    finally:
        if connection.login is asyncio.current_task():
            connection.login = None


def somebody_is_asked(endpoint: ServedEndpoint) -> bool:
    """Whether a login takes time: a user's password or a handler's word on top of the certificate."""
    return endpoint.settings.user_method is not None or endpoint.settings.handler is not None


def log_in_at_once(control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> None:
    """The same where the certificate decides alone, before the answer to its key leaves."""
    try:
        connection.device_type = credentials.peer_info.platform
        identity = identify(credentials, connection.endpoint)
        connection.common_name = identity.common_name
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
    connection.identity = identity
    connection.username = identity.username
    connection.certificate = credentials.certificate
    device_id = credentials.peer_info.device_id
    device = DeviceKey(connection.endpoint.index, identity.certificate_fingerprint, identity.username, device_id)
    control.end_predecessors(connection, device)
    _check_limits(control, connection, identity)
    connection.facts = _facts(connection, credentials)
    grant = _grant(connection.endpoint, identity, device_id, connection.facts)
    connection.grant = grant
    options = (*grant.options, *_token_options(control, connection, account, identity, credentials.username))
    control.admit(connection, _peer_settings(connection, grant), options)


async def log_in_again(control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> None:
    """The same for a later key of a connection that is let in, whose certificate has been looked at: the password must
    still be right, and the account may have changed."""
    try:
        before = connection.identity
        assert before is not None  # noqa: S101 - it is established
        account = await vouch(control, connection, credentials, before)
        refusal = connection.endpoint.still_trusted(connection)
        if refusal is not None or account.name != before.username:
            raise Denied(refusal or Refusal.IDENTITY_CHANGED)
        connection.endpoint.set_account(control.plane, connection, account.groups)
        control.go_on(connection)
    except Denied as denied:
        _refuse(control, connection, denied)
    except Exception:
        log.exception("%s: login for a later key failed", connection.connection_id)
        control.refuse(connection, Refusal.INTERNAL_ERROR)
    finally:
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


async def _recognise(
    control: ControlPlane, connection: Connection, credentials: CredentialsReceived, identity: Identity
) -> Account:
    """By the token of an earlier login. Raises ``Denied``, and late enough not to tell who is known here: the directory
    is asked about some and not about others."""
    begun = time.monotonic()
    try:
        known = await _recall(control, connection, credentials)
        return vouch_by_token(control, connection, credentials, identity, known)
    except Denied:
        await asyncio.sleep(left_of_failure(time.monotonic() - begun))
        raise


async def _recall(
    control: ControlPlane, connection: Connection, credentials: CredentialsReceived
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
    refused = await control.users.recall(method.directory, credentials.username, source=source, within_s=within_s)
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
        _check_name(method, credentials.username, identity, typed=True)
        account = control.users.look_up(method.directory, credentials.username)
    known = Account(credentials.username, frozenset()) if isinstance(account, Refused) else account
    token = control.token_key.read(credentials.password, _owner(connection, known, identity))
    if isinstance(account, Refused):  # told like a token that is not good: nobody learns who is known here
        raise Denied(account.refusal, account.detail, text=FINAL_TEXT[Refusal.TOKEN_INVALID])
    if token is None or (connection.token is not None and token.login_id != connection.token.login_id):
        raise Denied(Refusal.TOKEN_INVALID, "not written for this user, endpoint, certificate, password or session")
    _check_name(method, account.name, identity)
    if control.revocations.covers(token, account.name):
        raise Denied(Refusal.TOKEN_INVALID, "its login was ended by an administrator")
    ends_at = min(token.expires_at, token.logged_in_at + _lifetime_s(connection))
    if time.time() >= ends_at:
        raise Denied(Refusal.TOKEN_EXPIRED, f"{time.time() - ends_at:.0f} s ago")
    connection.token = token
    return account


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


def _token_options(
    control: ControlPlane, connection: Connection, account: Account | None, identity: Identity, username: str
) -> tuple[str, ...]:
    """The token of a first login, or again the one that the client came with; and a name for it if it has none."""
    if account is None or control.token_key is None:
        return ()
    if connection.token is None:
        connection.token = Token.new(time.time(), _lifetime_s(connection))
    token = f"auth-token {control.token_key.write(connection.token, _owner(connection, account, identity))}"
    return (token,) if username else (token, f"auth-token-user {base64.b64encode(NO_NAME.encode()).decode()}")


def _refuse(control: ControlPlane, connection: Connection, denied: Denied) -> None:
    passing = CLIENT_TEXT.get(denied.refusal)
    text = denied.text or passing or FINAL_TEXT.get(denied.refusal, "")
    retry_after_s = random.randint(*RETRY_AFTER_S) if passing else None  # noqa: S311
    control.refuse(connection, denied.refusal, text, retry_after_s=retry_after_s, detail=denied.detail)


async def vouch(
    control: ControlPlane, connection: Connection, credentials: CredentialsReceived, identity: Identity
) -> Account:
    """What the user method says of the name and the password that the client sent. Raises ``Denied``."""
    settings = connection.endpoint.settings
    method = settings.user_method
    within_s = settings.hand_window_s * LOGIN_SHARE
    if method is not None and method.is_federated:
        return await _vouch_by_browser(control, connection, credentials, identity, within_s)
    assert method is not None and method.directory is not None  # noqa: S101 - the caller's promise, the model's check
    _check_name(method, credentials.username, identity, typed=True)
    source, _ = prefixes(connection.link.remote.host)
    password = credentials.password
    while True:
        factor = None
        if method.mfa != "off":
            asker = Asker(connection.endpoint.id, method.directory, identity.certificate_fingerprint)
            factor = second_factor(control, method.mfa, asker, connection.link.remote.host, within_s)
        answer = await control.users.log_in(
            method.directory,
            credentials.username,
            password,
            source=source,
            within_s=within_s,
            second_factor=factor,
        )
        if not isinstance(answer, Asked):
            break
        if not can_answer_in_text(connection):  # it comes back with the answer in the password's place
            raise Denied(answer.refusal, answer.detail, text=answer.text)
        text = await ask_in_text(control, connection, answer.question, QUESTION_LIFETIME_S, echo=answer.echo)
        password = answer.answered(text)
    if isinstance(answer, Refused):
        raise Denied(answer.refusal, answer.detail)
    _check_name(method, answer.name, identity)
    return _unchanged(control, connection, answer)


def _unchanged(control: ControlPlane, connection: Connection, account: Account) -> Account:
    """Whoever changes a user goes through the sessions that are established, and this one is not yet."""
    method = connection.endpoint.settings.user_method
    assert method is not None and method.directory is not None  # noqa: S101 - the caller's promise, the model's check
    now = control.users.look_up(method.directory, account.name)
    if isinstance(now, Refused):
        raise Denied(now.refusal, now.detail)
    if now.stamp != account.stamp:
        raise Denied(Refusal.WRONG_PASSWORD, "it was changed while the login was under way")
    return now


async def _vouch_by_browser(
    control: ControlPlane, connection: Connection, credentials: CredentialsReceived, identity: Identity, within_s: float
) -> Account:
    if (before := connection.identity) is not None and federated.says_again(connection, credentials):
        return Account(before.username, before.groups)
    answer = await federated.ask_browser(control, connection, credentials, identity, within_s)
    if isinstance(answer, Challenged):
        raise Denied(answer.refusal, answer.detail, text=answer.text)
    if isinstance(answer, Refused):
        raise Denied(answer.refusal, answer.detail)
    method = connection.endpoint.settings.user_method
    assert method is not None  # noqa: S101 - it has been asked
    _check_name(method, answer.name, identity)
    return answer


def second_factor(control: ControlPlane, mfa: str, asker: Asker, caller: str, within_s: float) -> SecondFactor:
    if mfa == "totp" and control.totp is not None:
        return SecondFactor(partial(control.totp.log_in, asker))
    if mfa in ("radius", "radius-challenge") and (codes := control.radius.get(asker.directory)) is not None:
        until = asyncio.get_running_loop().time() + within_s - RADIUS_ENDS_S
        return codes.second_factor(asker, challenge=mfa == "radius-challenge", caller=caller, until=until)
    raise Denied(Refusal.INTERNAL_ERROR, f"nobody judges {mfa} of directory {asker.directory}")


def _check_name(method: AuthenticationConfig, username: str, identity: Identity, *, typed: bool = False) -> None:
    """``typed``: as people write it, with a domain perhaps. Nobody is asked about the password of another person; that
    the account is the holder's is for its own name to say, afterwards."""
    if not method.username_is_common_name or username == identity.common_name:
        return
    bare = (username, username.rpartition("\\")[2], username.rpartition("@")[0])
    if not typed or identity.common_name.casefold() not in (each.casefold() for each in bare):
        raise Denied(Refusal.USERNAME_NOT_COMMON_NAME, f"user name {username!r}")


def identify(credentials: CredentialsReceived, endpoint: ServedEndpoint) -> Identity:
    """Who the certificate says this is, if the endpoint asks for one. With certificates alone its name is the user's;
    what the client typed proves nothing and is not used."""
    if endpoint.settings.certificate_method is None:
        return NOBODY_YET
    certificate = credentials.certificate
    if certificate is None:
        raise Denied(Refusal.CERTIFICATE_MISSING)
    refused = endpoint.trust.check(
        certificate
    )  # revoked since its TLS handshake began, which the client may have drawn out
    if refused is not None:
        raise Denied(refused.refusal, refused.detail)
    name = common_name(certificate)
    if isinstance(name, Refused):
        raise Denied(name.refusal, name.detail)
    return Identity(
        common_name=name,
        username="",
        groups=frozenset(),
        certificate_serial=f"{certificate.serial_number:x}",
        certificate_fingerprint=fingerprint(certificate).hex(),
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
    control: ControlPlane, connection: Connection, credentials: CredentialsReceived, account: Account | None
) -> Identity:
    """Who it is, if all that has been proven still holds. Raises ``Denied``."""
    certified, method = identify(credentials, connection.endpoint), connection.endpoint.settings.user_method
    if account is None or method is None:
        return certified
    if looks_like_token(credentials.password):
        account = vouch_by_token(control, connection, credentials, certified, account)
    elif not method.is_federated:  # whose identity provider is asked once
        account = _unchanged(control, connection, account)
    return replace(certified, username=account.name, groups=account.groups)


def _check_limits(control: ControlPlane, connection: Connection, identity: Identity) -> None:
    endpoint = connection.endpoint
    if endpoint.closing:
        raise Denied(Refusal.SHUTTING_DOWN)
    if control.sessions_of(endpoint) >= endpoint.settings.limits.sessions:
        raise Denied(Refusal.SESSION_LIMIT)
    limits = endpoint.settings.limits
    sessions = control.table.sessions_of(endpoint.index, identity.user)
    too_many = len(sessions) + 1 - limits.sessions_per_identity
    if too_many > 0 and limits.too_many_of_identity == "refuse-new":
        raise Denied(Refusal.IDENTITY_SESSION_LIMIT, f"{len(sessions)} of {limits.sessions_per_identity}")
    for oldest in sessions[: max(0, too_many)]:
        control.halt(oldest, End.IDENTITY_SESSION_LIMIT, REPLACED_TEXT)


def _facts(connection: Connection, credentials: CredentialsReceived) -> ClientFacts:
    link, info = connection.link, credentials.peer_info
    address = host_address(link.remote.host)
    negotiated = connection.session.negotiate()
    overhead = P_DATA_V2_AEAD if isinstance(negotiated, Unsupported) else DataOverhead(*negotiated.overhead)
    return ClientFacts(
        proto=int(info.capabilities),
        iv_mtu=info.mtu,
        platform=info.platform,
        answers_occ=info.version.startswith("2."),
        transport=link.transport,
        address=address,
        server_address=host_address(link.local) if link.local else None,
        lan=connection.endpoint.lan_of(address),
        data_overhead=overhead,
    )


def _grant(endpoint: ServedEndpoint, identity: Identity, device_id: str, facts: ClientFacts) -> Grant:
    """Takes the lease: whoever gets the grant gives it back. Each device of a user has an address of its own that it
    comes back to."""
    holder = f"{identity.user} {device_id}" if device_id else identity.user
    try:
        lease = endpoint.leases.lease(endpoint.leases.acquire(holder))
    except PoolFull as error:
        raise Denied(Refusal.ADDRESS_POOL_FULL, str(error)) from None
    try:
        options = push_options(endpoint.settings, endpoint.routes, lease, facts)
    except BaseException:
        endpoint.leases.release(lease.v4)
        raise
    sizes = client_mtu(endpoint.settings.path_mtu, facts, discovery=endpoint.settings.path_discovery)
    return Grant(lease, identity.groups, tuple(options), sizes)


def _peer_settings(connection: Connection, grant: Grant) -> PeerSettings:
    """With what the client's packets will look like, if there will be any."""
    endpoint, session = connection.endpoint, connection.session
    negotiated = session.negotiate()
    data_v1, framing = False, Framing.NONE
    if not isinstance(negotiated, Unsupported):
        data_v1, framing = negotiated.data_v1, Framing[negotiated.framing.name]
    return PeerSettings(
        endpoint=endpoint.index,
        addresses=grant.lease.addresses,
        groups=group_bits(grant.groups, endpoint.groups),
        ping_interval_s=endpoint.settings.ping_s,
        timeout_s=endpoint.settings.server_timeout_s,
        mss_v4=grant.sizes.mss_v4,
        mss_v6=grant.sizes.mss_v6,
        tunnel_mtu=grant.sizes.tunnel,
        path_mtu=grant.sizes.path,
        data_header=grant.sizes.data_header,
        answers_occ=grant.sizes.answers_occ,
        remote_peer_id=session.remote_peer_id,
        data_v1=data_v1,
        framing=framing,
    )
