"""Logins that wait for a person, while the client keeps its connection (openvpn-wire.md 15.3).

Only on the first key: later ones go by tokens. Whoever waits here has proven little or nothing yet, so each takes one
of the endpoint's places (``places.py``); and nobody waits for longer than the client does, or for one that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from cvpnd.reasons import Refusal
from cvpnd.secret import Secret
from cvpnd.server.denied import Denied
from cvpnd.server.places import Engagement, proven
from cvpnd.wire import messages

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane

ASK_EVERY_S = 10.0
"""A client that waits is asked whether it is there, which costs it one acknowledgement."""
_T = TypeVar("_T")


async def wait_for_person(
    control: ControlPlane,
    connection: Connection,
    question: str,
    outcome: asyncio.Future[_T],
    wait_s: float,
    engagement: Callable[[], Engagement] = proven,
) -> _T:
    """Tell the client ``question``, one of ``messages.web_auth``, ``open_url`` and ``cr_text``, and wait for
    ``outcome``, which somebody else sets. Raises ``Denied``."""
    with control.places.place(connection, engagement) as place:
        connection.asked_alive_at = None
        left_s = control.ask(connection, question, wait_s)
        try:
            async with asyncio.timeout(left_s):
                either: set[asyncio.Future[Any]] = {outcome, place.lost}
                first = asyncio.FIRST_COMPLETED
                while not (await asyncio.wait(either, timeout=ASK_EVERY_S, return_when=first))[0]:
                    _check_client(control, connection)
                if not outcome.done():
                    raise Denied(Refusal.TOO_MANY_LOGINS, "its place went to a source that has fewer")
                return outcome.result()
        except TimeoutError:
            raise Denied(Refusal.LOGIN_UNANSWERED, f"not within {left_s:.0f} s") from None


def _check_client(control: ControlPlane, connection: Connection) -> None:
    """Whoever stopped the client, or started it anew, is not waited for: the place is free for others, and nobody is
    told that a device goes on which does not."""
    session, now = connection.session, asyncio.get_running_loop().time()
    if not session.owes_answer:
        connection.asked_alive_at = now
        session.ask_alive()
        control.pump(connection, now)
    elif connection.asked_alive_at is None:
        connection.asked_alive_at = now
    elif now - connection.asked_alive_at >= connection.endpoint.settings.hand_window_s:
        raise Denied(Refusal.HANDSHAKE_ABANDONED, "the client has stopped answering while its person was waited for")


def can_answer_in_text(connection: Connection) -> bool:
    return not connection.established and "crtext" in connection.session.peer_info.sso_methods


async def ask_in_text(
    control: ControlPlane, connection: Connection, question: str, wait_s: float, *, echo: bool = True
) -> Secret:
    """What the person at a client that ``can_answer_in_text`` says to ``question``; unproven, may be empty, may have
    any character. The client waits until login decides, and may be asked again. Raises ``Denied``."""
    answer = connection.answer = asyncio.get_running_loop().create_future()
    try:
        return await wait_for_person(control, connection, messages.cr_text(question, echo=echo), answer, wait_s)
    finally:
        connection.answer = None
