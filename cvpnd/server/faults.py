"""Mistakes of ours, and what the kernel refuses us: each ends the one connection that it is about. Packets, timers and
events of all others are handled by the same callbacks of the event loop and must not get lost with it.

All of it is called from within the handler of an exception.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cvpnd.ops.logs import RateLimited
from cvpnd.reasons import End, Refusal
from cvpnd.server.connection import Connection, Phase
from cvpnd.server.texts import why_sent_back
from cvpnd.wire.errors import DropReason

if TYPE_CHECKING:
    from cvpnd.server.control import ControlPlane

log = logging.getLogger(__name__)
_warn = RateLimited(log)


def cannot_go_on(control: ControlPlane, connection: Connection) -> None:
    """Its client is told to come back, if the session can still do that."""
    if connection.phase is Phase.ENDED:  # it has happened before, and what there was to say is said
        connection.session.close(Refusal.INTERNAL_ERROR)
        return
    log.exception("%s (%s) cannot go on", connection.connection_id, connection.common_name)
    session, now = connection.session, control.loop.time()
    decided = session.ending.begun  # then it says that, and restart() adds nothing
    reason = Refusal.INTERNAL_ERROR if decided is None else decided.reason
    try:
        session.restart(why_sent_back(Refusal.INTERNAL_ERROR), now, reason)
        for packet in session.packets_to_send(now):
            connection.link.send(packet)
    except Exception:
        session.close(reason)
    finally:  # behind the words: it closes a TCP connection
        control.end(connection, reason, "" if decided is None else decided.detail)


def cannot_be_told(connection: Connection, reason: Refusal | End, detail: str = "") -> None:
    """The same where what was decided cannot be said: it stands, and is what the log has. To come back, which is what
    is said else, would be the wrong word to somebody who is not to."""
    log.exception(
        "%s (%s) cannot be told that it is over: %s", connection.connection_id, connection.common_name, reason
    )
    connection.session.close(reason, detail)


def stranger_failed(control: ControlPlane) -> None:
    """The same where there is no connection yet: the packets of others that came with this one go on."""
    control.drops[DropReason.INTERNAL_ERROR] += 1
    _warn.warning("stranger", "a stranger's packet cannot be handled", exc_info=True)
