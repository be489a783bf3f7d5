"""Who was there before: at the address that a client has now, and on the device that it runs on."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from cvpnd.dataplane import api as dataplane
from cvpnd.reasons import End
from cvpnd.server.connection import Connection, DeviceKey, Phase
from cvpnd.server.link import UdpLink

if TYPE_CHECKING:
    from cvpnd.server.control import ControlPlane

log = logging.getLogger(__name__)

ASK_AGAIN_S = 5.0
"""An answer is good for this long, so that forged resets cost a client one small packet now and then."""
ANSWER_TIME_S = 1.5
"""Longer than the round trip of any path that is fit for use, shorter than a starting client's patience (2 s)."""
STARTS_OVER_S = 0.9
"""OpenVPN pauses for a second before it starts over: whoever was heard of since is another device."""
ANSWERS_TWICE_S = 2.5
"""For an answer when the question, or the first answer to it, is lost: it is repeated after ``tls_timeout_s``."""
LOOKS_EVERY_S = 0.02


def end_predecessors(control: ControlPlane, connection: Connection, device: DeviceKey) -> None:
    """End the connections that this client, which has just proven itself, comes in place of. Their leases are free
    again before the new one is chosen.

    One at the same address and port belongs to a process that is gone. One of the same certificate from elsewhere
    may as well be another device of the same person, which must not be thrown out (and would come back and throw
    out this one, for ever): it is replaced only if both say that they are the same device, or if it has been
    silent for so long that a client there would have given us up and connected anew. What a device says of itself
    is not proven, so it counts among holders of one certificate only. Those of the login whose token this client shows
    were its own, if nothing has been heard there since it may have started over."""
    link = connection.link
    if isinstance(link, UdpLink):
        for other in control.table.at_source(link.listener, link.remote):
            if other is not connection:
                control.close(other, End.CLIENT_RECONNECTED)
    if (token := connection.token) is not None:
        for other in control.table.sessions_of(device.endpoint, device.username):
            same = other.token is not None and other.token.login_id == token.login_id
            if same and _idle_s(control, other) > STARTS_OVER_S:
                control.close(other, End.CLIENT_RECONNECTED)
    before = control.table.identify_device(connection, device)
    if before is not None and (device.device_id or _given_up(control, before)):
        control.close(before, End.CLIENT_RECONNECTED)


def in_doubt(control: ControlPlane, connection: Connection, device: DeviceKey) -> Connection | None:
    """The connection of the same certificate and host that this client, who shows no token, may have had until a moment
    ago, as it does without a word when it starts over; or it is that of another device, behind the same router. Only
    the latest; and not one that owes an answer as it is, which says nothing of now."""
    before, link = control.table.latest_of(device), connection.link
    if before is None or device.device_id or not before.established or before.session.owes_answer:
        return None
    if not isinstance(before.link, UdpLink) or before.link.remote.host != link.remote.host:
        return None
    if isinstance(link, UdpLink) and (before.link.listener, before.link.remote) == (link.listener, link.remote):
        return None  # of a process that is gone, and asked when this one began
    return before if _idle_s(control, before) > STARTS_OVER_S and not _given_up(control, before) else None


async def ask(control: ControlPlane, before: Connection) -> None:
    """Until it is known whether a connection that is ``in_doubt`` still has a client. One that does not say so is told
    to come back, should it be there all the same: this client may get its address."""
    now = control.loop.time()
    before.session.ask_alive()
    control.pump(before, now)
    while before.established and before.session.owes_answer:
        if control.loop.time() - now >= ANSWERS_TWICE_S:
            control.restart(before, End.CLIENT_RECONNECTED)
            return
        await asyncio.sleep(LOOKS_EVERY_S)


def _given_up(control: ControlPlane, connection: Connection) -> bool:
    return _idle_s(control, connection) > connection.endpoint.settings.ping_restart_s


def _idle_s(control: ControlPlane, connection: Connection) -> float:
    """For how long it has been silent; 0 before it is let in."""
    return 0.0 if connection.peer_id is None else control.plane.peer_stats(connection.peer_id).idle_s


def follow(control: ControlPlane, connection: Connection, event: dataplane.FloatSeen) -> None:
    """An authentic packet came from elsewhere (openvpn-wire.md 2.4): follow, unless somebody else lives there."""
    link = connection.link
    if not isinstance(link, UdpLink) or not connection.established or link.listener != event.listener:
        return
    for other in control.table.at_source(event.listener, event.source):
        if other is connection:
            return
        if other.phase is Phase.ENDED:
            continue  # nobody lives there any more
        if other.identity != connection.identity:
            if connection.moves.take(control.loop.time()):
                log.warning(
                    "%s (%s) may not move to %s: that address belongs to %s",
                    connection.connection_id, connection.common_name, event.source, other.connection_id,
                )  # fmt: skip
            return
        control.close(other, End.CLIENT_RECONNECTED)
    assert connection.peer_id is not None  # noqa: S101 - found by it
    control.plane.set_remote(connection.peer_id, event.listener, event.source, event.local)
    if connection.moves.take(control.loop.time()):
        who = connection.connection_id, connection.common_name
        log.info("%s (%s) moved from %s to %s", *who, link.remote, event.source)
    control.table.move(connection, event.source, event.local)


def lives(control: ControlPlane, connection: Connection) -> bool:
    """Whether the client of an established connection is still there, as far as can be told now. It is asked when
    this is called, so the answer is yes until it had the time to acknowledge and did not."""
    now = control.loop.time()
    asked = connection.asked_alive_at
    if asked is None or (now - asked > ASK_AGAIN_S and not connection.session.owes_answer):
        connection.asked_alive_at = now
        connection.session.ask_alive()
        control.pump(connection, now)
        return True
    return not connection.session.owes_answer or now - asked < ANSWER_TIME_S
