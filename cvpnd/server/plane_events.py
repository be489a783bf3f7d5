"""What the data plane tells of one peer, and what follows from it for its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from cvpnd.dataplane import api as dataplane
from cvpnd.reasons import End

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane


def plane_told(
    control: ControlPlane,
    connection: Connection,
    event: dataplane.TcpControl
    | dataplane.TcpClosed
    | dataplane.FloatSeen
    | dataplane.PeerTimeout
    | dataplane.PeerExit
    | dataplane.KeyUsed
    | dataplane.RekeyNeeded,
    now: float,
) -> None:
    match event:
        case dataplane.TcpControl():
            connection.session.receive_packet(event.packet, now)
        case dataplane.KeyUsed():
            connection.session.key_confirmed(event.key_id, now)
        case dataplane.RekeyNeeded():
            connection.session.renegotiate(now)
        case dataplane.FloatSeen():
            control.follow(connection, event)
        case dataplane.PeerTimeout():
            control.close(connection, End.CLIENT_TIMEOUT)
        case dataplane.PeerExit():
            control.close(connection, End.CLIENT_EXIT)
        case dataplane.TcpClosed():
            control.close(connection, End.TCP_CLOSED, event.detail)
        case _:
            assert_never(event)
