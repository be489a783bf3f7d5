"""What the data plane tells, and what follows from it for the connection that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from cvpnd.dataplane import api as dataplane
from cvpnd.reasons import End
from cvpnd.server import predecessors
from cvpnd.wire.errors import DropReason
from cvpnd.wire.packet import is_data

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane


def plane_told(
    control: ControlPlane,
    connection: Connection,
    event: dataplane.TcpClosed
    | dataplane.FloatSeen
    | dataplane.PeerTimeout
    | dataplane.PeerExit
    | dataplane.KeyUsed
    | dataplane.RekeyNeeded,
    now: float,
) -> None:
    match event:
        case dataplane.KeyUsed():
            connection.session.key_confirmed(event.key_id, now)
        case dataplane.RekeyNeeded():
            connection.session.renew(now)
        case dataplane.FloatSeen():
            predecessors.follow(control, connection, event)
        case dataplane.PeerTimeout():
            control.close(connection, End.CLIENT_TIMEOUT)
        case dataplane.PeerExit():
            control.close(connection, End.CLIENT_EXIT)
        case dataplane.TcpClosed():
            control.close(connection, End.TCP_CLOSED, event.detail)
        case _:
            assert_never(event)


def stray_told(control: ControlPlane, event: dataplane.StrayControl) -> None:
    """A packet without a peer's number that came along with data. A stranger's has no business there: only the
    doorman admits."""
    if is_data(event.packet):
        control.data_received(event.listener, event.source, event.packet)
        return
    connection = control.table.find(event.listener, event.source, event.packet[1:9])
    if connection is None:
        control.drops[DropReason.UNROUTABLE] += 1
    else:
        control.packet_received(connection, event.packet)
