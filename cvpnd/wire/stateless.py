"""The first exchange over UDP, which keeps nothing of anyone (openvpn-wire.md section 5.2).

1. ``answer_reset``: a client's hard reset gets one reply, 12 bytes longer than the request at most, never repeated:
   the client repeats its reset.
2. ``check_echo``: the client's next packet must acknowledge that reply and so name the cookie. Only then does the
   caller make a ``Session`` with ``cookie_echoed=True`` and hands it this very packet.

Limits on their number (``connect-freq-initial``) are the caller's: they need a clock and a table of sources.
"""

from __future__ import annotations

from dataclasses import dataclass

from cvpnd.wire.control_wrap import PLAIN, ControlWrap
from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.packet import CLIENT_RESETS, ControlPacket, Opcode, parse_header
from cvpnd.wire.reset_cookie import ResetCookie

_ECHO_OPCODES = frozenset({Opcode.CONTROL_V1, Opcode.CONTROL_WKC_V1, Opcode.ACK_V1})
_LAST_FIRST_ID = 1
"""Higher ids belong to a session that is gone: its late packets must not open a ghost one."""

Address = tuple[str, int] | tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Established:
    """The client at this address received our reply to its reset."""

    remote_session_id: bytes
    local_session_id: bytes


def is_reset(packet: bytes) -> bool:
    """Whether ``answer_reset`` is the one to ask, by the opcode alone."""
    return len(packet) > 0 and packet[0] >> 3 in CLIENT_RESETS


def answer_reset(
    packet: bytes, address: Address, now: float, cookie: ResetCookie, wrap: ControlWrap = PLAIN
) -> bytes | DropReason:
    """The reply to a client's hard reset, or why it gets none."""
    try:
        reset = wrap.unwrap(packet)
    except PeerError as error:
        return error.reason
    if reset.opcode is not Opcode.HARD_RESET_CLIENT_V2:  # V3 carries a tls-crypt-v2 key, which needs that wrapping
        return DropReason.BAD_OPCODE
    if reset.packet_id != 0 or reset.acks:
        return DropReason.LATE_PACKET
    return wrap.wrap(
        ControlPacket(
            Opcode.HARD_RESET_SERVER_V2,
            key_id=0,
            session_id=cookie.session_id(address, reset.session_id, now),
            acks=(0,),
            remote_session_id=reset.session_id,
            packet_id=0,
        )
    )


def check_echo(
    packet: bytes, address: Address, now: float, cookie: ResetCookie, wrap: ControlWrap = PLAIN
) -> Established | DropReason:
    """Whether this packet of an unknown peer completes the exchange, or why it is dropped."""
    try:
        if parse_header(packet).opcode not in _ECHO_OPCODES:
            return DropReason.BAD_OPCODE
        echo = wrap.unwrap(packet)
    except PeerError as error:
        return error.reason
    if echo.key_id != 0:
        return DropReason.BAD_KEY_ID
    if not echo.acks:
        return DropReason.NO_ACK
    if max(echo.acks) > _LAST_FIRST_ID or (echo.packet_id or 0) > _LAST_FIRST_ID:
        return DropReason.LATE_PACKET
    if not cookie.verify(echo.remote_session_id, address, echo.session_id, now):
        return DropReason.BAD_COOKIE
    return Established(remote_session_id=echo.session_id, local_session_id=echo.remote_session_id)
