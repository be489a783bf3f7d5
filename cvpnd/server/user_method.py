"""What an endpoint's user method says of a login: a directory, with a second factor if one is asked, or an identity
provider."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from cvpnd.auth.challenge import QUESTION_LIFETIME_S, Asked, Asker, Challenged
from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.logins import SecondFactor
from cvpnd.auth.revoked_logins import LoginUnderWay
from cvpnd.policy.model import Identity
from cvpnd.reasons import Refusal
from cvpnd.server import federated
from cvpnd.server.admission import prefixes
from cvpnd.server.denied import Denied
from cvpnd.server.dialogue import ask_in_text, can_answer_in_text
from cvpnd.server.holder import check_name
from cvpnd.wire.events import CredentialsReceived

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane

LOGIN_SHARE = 0.5
"""Of the hand-window, in which the client wants to be done: how long the user method may take."""
RADIUS_ENDS_S = 0.2
"""How much sooner RADIUS servers are given up, so that the reason of a login that took too long is theirs."""


async def vouch(
    control: ControlPlane,
    connection: Connection,
    credentials: CredentialsReceived,
    identity: Identity,
    login: LoginUnderWay,
) -> Account:
    """What the user method says of the name and the password that the client sent. Raises ``Denied``."""
    settings = connection.endpoint.settings
    method = settings.user_method
    within_s = settings.hand_window_s * LOGIN_SHARE
    if method is not None and method.is_federated:
        return await _by_browser(control, connection, credentials, identity, within_s)
    assert method is not None and method.directory is not None  # noqa: S101 - the caller's promise, the model's check
    check_name(method, credentials.username, identity, typed=True)
    source, _ = prefixes(connection.link.remote.host)
    password = credentials.password
    while True:
        factor = None
        if method.mfa != "off":
            asker = Asker(connection.endpoint.id, method.directory, identity.certificate_fingerprint, login)
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
        typed = await ask_in_text(control, connection, answer.question, QUESTION_LIFETIME_S, echo=answer.echo)
        password = answer.answered(typed)
    if isinstance(answer, Refused):
        raise Denied(answer.refusal, answer.detail)
    check_name(method, answer.name, identity)
    return unchanged(control, connection, answer)


def unchanged(control: ControlPlane, connection: Connection, account: Account) -> Account:
    """Whoever changes a user goes through the sessions that are established, and this one is not yet."""
    method = connection.endpoint.settings.user_method
    assert method is not None and method.directory is not None  # noqa: S101 - the caller's promise, the model's check
    now = control.users.look_up(method.directory, account.name)
    if isinstance(now, Refused):
        raise Denied(now.refusal, now.detail)
    if now.stamp != account.stamp:
        raise Denied(Refusal.WRONG_PASSWORD, "it was changed while the login was under way")
    return now


async def _by_browser(
    control: ControlPlane, connection: Connection, credentials: CredentialsReceived, identity: Identity, within_s: float
) -> Account:
    if (before := connection.identity) is not None and federated.says_again(control, connection, credentials):
        return Account(before.username, before.groups)
    answer = await federated.ask_browser(control, connection, credentials, identity, within_s)
    if isinstance(answer, Challenged):
        raise Denied(answer.refusal, answer.detail, text=answer.text)
    if isinstance(answer, Refused):
        raise Denied(answer.refusal, answer.detail)
    method = connection.endpoint.settings.user_method
    assert method is not None  # noqa: S101 - it has been asked
    check_name(method, answer.name, identity)
    return answer


def second_factor(control: ControlPlane, mfa: str, asker: Asker, caller: str, within_s: float) -> SecondFactor:
    if mfa == "totp" and control.totp is not None:
        return SecondFactor(partial(control.totp.log_in, asker))
    if mfa in ("radius", "radius-challenge") and (codes := control.radius.get(asker.directory)) is not None:
        until = asyncio.get_running_loop().time() + within_s - RADIUS_ENDS_S
        return codes.second_factor(asker, challenge=mfa == "radius-challenge", caller=caller, until=until)
    raise Denied(Refusal.INTERNAL_ERROR, f"nobody judges {mfa} of directory {asker.directory}")
