"""Logins that wait for a person, while the client keeps its connection (openvpn-wire.md 15.3).

Only on the first key: later ones go by tokens. Whoever waits here has proven little or nothing yet, so how many may,
and how many from one source, is limited for each endpoint; and nobody waits for longer than the client does, or for one
that is gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from cvpnd.reasons import Refusal
from cvpnd.server.admission import prefixes
from cvpnd.server.denied import Denied
from cvpnd.wire import messages

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane

ASK_EVERY_S = 10.0
"""A client that waits is asked whether it is there, which costs it one acknowledgement."""
_T = TypeVar("_T")


class Dialogues:
    """How many wait now. On the event loop's thread only."""

    def __init__(self) -> None:
        self._of_endpoint: Counter[str] = Counter()
        self._from: Counter[tuple[str, str]] = Counter()

    def waiting(self, endpoint_id: str) -> int:
        return self._of_endpoint[endpoint_id]

    @contextmanager
    def place(self, connection: Connection) -> Iterator[None]:
        """Raises ``Denied`` if there is none."""
        endpoint_id, limits = connection.endpoint.id, connection.endpoint.settings.limits
        source = endpoint_id, prefixes(connection.link.remote.host)[0]
        if self._of_endpoint[endpoint_id] >= limits.waiting_logins:
            raise Denied(Refusal.TOO_MANY_LOGINS, f"{limits.waiting_logins} wait for people")
        if self._from[source] >= limits.waiting_logins_per_source:
            raise Denied(Refusal.TOO_MANY_LOGINS, f"{limits.waiting_logins_per_source} of {source[1]} wait for people")
        self._of_endpoint[endpoint_id] += 1
        self._from[source] += 1
        try:
            yield
        finally:
            self._of_endpoint[endpoint_id] -= 1
            self._from[source] -= 1
            if not self._from[source]:
                del self._from[source]


async def wait_for_person(
    control: ControlPlane, connection: Connection, question: str, outcome: asyncio.Future[_T], wait_s: float
) -> _T:
    """Tell the client ``question``, one of ``messages.web_auth``, ``open_url`` and ``cr_text``, and wait for
    ``outcome``, which somebody else sets. Raises ``Denied``."""
    with control.dialogues.place(connection):
        connection.asked_alive_at = None
        left_s = control.ask(connection, question, wait_s)
        try:
            async with asyncio.timeout(left_s):
                while not (await asyncio.wait({outcome}, timeout=ASK_EVERY_S))[0]:
                    _check_client(control, connection)
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
) -> str:
    """What the person at a client that ``can_answer_in_text`` says to ``question``; unproven, may be empty, may have
    any character. The client waits until login decides, and may be asked again. Raises ``Denied``."""
    answer = connection.answer = asyncio.get_running_loop().create_future()
    try:
        return await wait_for_person(control, connection, messages.cr_text(question, echo=echo), answer, wait_s)
    finally:
        connection.answer = None
