"""A login for which the person goes to a browser while the client waits (openvpn-wire.md 15.3)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.model import Assertion
from cvpnd.auth.web_logins import Stage, Waiting, WebLogin
from cvpnd.reasons import Refusal
from cvpnd.server.denied import Denied
from cvpnd.server.dialogue import wait_for_person
from cvpnd.server.places import Engagement
from cvpnd.wire import messages
from cvpnd.wire.key_method import PeerInfo

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane

BROWSER_TEXT = (
    "This VPN logs in with a browser. Use OpenVPN Connect, OpenVPN GUI, Tunnelblick or another client that can open "
    "one, the program cvpn-connect, or the AWS VPN Client"
)
_PLATFORMS = {"win": "Windows", "mac": "macOS", "linux": "Linux", "android": "Android", "ios": "iOS"}

_VISITED = Engagement.VISITED
_ENGAGEMENT = {Stage.OFFERED: Engagement.NONE, Stage.PROVEN: Engagement.PROVEN}


def can_open_browser(connection: Connection) -> bool:
    return not connection.session.peer_info.sso_methods.isdisjoint(("webauth", "openurl"))


async def log_in_by_browser(control: ControlPlane, connection: Connection, provider: str) -> Assertion:
    """What the identity provider asserts of the person who consented. Raises ``Denied``."""
    if connection.established:
        raise Denied(Refusal.TOKEN_INVALID, "a later key without the token of the login")
    logins = control.web_logins
    if logins is None or not can_open_browser(connection):
        why = "the client announces neither webauth nor openurl" if logins is not None else "there is no [portal]"
        raise Denied(Refusal.SAML_CLIENT_UNSUITED, why, text=BROWSER_TEXT)
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Assertion | Refused] = loop.create_future()
    waiting = Waiting(
        endpoint=connection.endpoint.settings.name,
        device=describe_device(connection.session.peer_info),
        address=connection.link.remote.host,
        certificate=connection.common_name,
    )
    login = WebLogin(
        provider,
        connection.connection_id,
        waiting,
        loop.time() + logins.login_s,
        outcome,
        on_proven=lambda: control.on_assertion(connection),
    )
    logins.offer(login)
    try:
        link = logins.link(login)
        by_web_auth = "webauth" in connection.session.peer_info.sso_methods
        question = messages.web_auth(link) if by_web_auth else messages.open_url(link)
        control.told_to_wait(connection)
        found = await wait_for_person(
            control, connection, question, outcome, logins.login_s, lambda: _ENGAGEMENT.get(login.stage, _VISITED)
        )
    finally:
        logins.withdraw(login)
    if isinstance(found, Refused):
        raise Denied(found.refusal, found.detail)
    return found


def describe_device(peer_info: PeerInfo) -> str:
    """As the device says of itself, which proves nothing, but a person knows what they have."""
    platform = _PLATFORMS.get(peer_info.platform, peer_info.platform)
    program = peer_info.gui_version.replace("_", " ") or (f"OpenVPN {peer_info.version}" if peer_info.version else "")
    return ", ".join(filter(None, (platform, program))) or "unknown"
