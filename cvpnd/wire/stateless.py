"""The first exchange over UDP, which keeps nothing of anyone (openvpn-wire.md sections 5.2 and 5.3).

1. ``answer_reset``: a client's hard reset gets one reply, 12 bytes longer than the request at most, never repeated:
   the client repeats its reset.
2. ``check_echo``: the client's next packet must acknowledge that reply and so name the cookie. Only then does the
   caller make a ``Session`` with ``cookie_echoed=True`` and hands it this very packet.

A client with tls-crypt-v2 brings its key in both packets, if it understands that it should. OpenVPN 2.5 does not: then
``answer_reset`` says ``Opening``, and whoever wants to serve it makes its session at once. Over TCP, where the
kernel's handshake has proven the address, ``open_stream`` says the same for everybody.

No reply to what is not authentic. Limits on their number (``connect-freq-initial``) are the caller's: they need a clock
and a table of sources.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.packet import CLIENT_RESETS, ControlPacket, Opcode, parse_header
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.wrap.protection import UNPROTECTED, ControlProtection, FirstPacket
from cvpnd.wire.wrap.session_wrap import SessionWrap
from cvpnd.wire.wrap.tls_crypt_v2 import RESEND_WKC

_ECHO_OPCODES = frozenset({Opcode.CONTROL_V1, Opcode.CONTROL_WKC_V1, Opcode.ACK_V1})
_LAST_FIRST_ID = 1
"""Higher ids belong to a session that is gone: its late packets must not open a ghost one."""

Address = tuple[str, int] | tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Opening:
    """A client whose session begins with its reset: we have to send ours yet, with a session id of the caller's."""

    remote_session_id: bytes
    wrap: SessionWrap = field(compare=False)
    """Of the session to be made."""


@dataclass(frozen=True, slots=True)
class Established:
    """The client at this address received our reply to its reset."""

    remote_session_id: bytes
    local_session_id: bytes
    wrap: SessionWrap = field(compare=False)


def is_reset(packet: bytes) -> bool:
    """Whether ``answer_reset`` is the one to ask, by the opcode alone."""
    return len(packet) > 0 and packet[0] >> 3 in CLIENT_RESETS


def answer_reset(
    packet: bytes, address: Address, now: float, cookie: ResetCookie, protection: ControlProtection = UNPROTECTED
) -> bytes | Opening | DropReason:
    """The reply to a client's hard reset, or why it gets none. ``Opening``: no cookie will do for this client."""
    try:
        first = _open_reset(packet, protection)
    except PeerError as error:
        return error.reason
    reset = first.packet
    if reset.opcode is Opcode.HARD_RESET_CLIENT_V3 and not first.early_negotiation:
        return _opening(first, protection) if protection.allow_stateful else DropReason.STATE_NEEDED
    return protection.seal_first(
        first,
        ControlPacket(
            Opcode.HARD_RESET_SERVER_V2,
            key_id=0,
            session_id=cookie.session_id(address, reset.session_id, now),
            acks=(0,),
            remote_session_id=reset.session_id,
            packet_id=0,
            payload=RESEND_WKC if first.early_negotiation else b"",
        ),
    )


def check_echo(
    packet: bytes, address: Address, now: float, cookie: ResetCookie | None, protection: ControlProtection = UNPROTECTED
) -> Established | DropReason:
    """Whether this packet of an unknown peer completes the exchange, or why it is dropped. ``cookie`` None: that it
    echoes ours has been verified (the doorman does, and once takes as long as all else here)."""
    try:
        if parse_header(packet).opcode not in _ECHO_OPCODES:
            return DropReason.BAD_OPCODE
        first = protection.open(packet)
    except PeerError as error:
        return error.reason
    echo = first.packet
    if echo.key_id != 0:
        return DropReason.BAD_KEY_ID
    if not echo.acks:
        return DropReason.NO_ACK
    if max(echo.acks) > _LAST_FIRST_ID or (echo.packet_id or 0) > _LAST_FIRST_ID:
        return DropReason.LATE_PACKET
    if cookie is not None and not cookie.verify(echo.remote_session_id, address, echo.session_id, now):
        return DropReason.BAD_COOKIE
    refused = protection.judge(first)
    if refused is not None:
        return refused
    return Established(echo.session_id, echo.remote_session_id, protection.session_wrap(first, replied=True))


def open_stream(packet: bytes, protection: ControlProtection = UNPROTECTED) -> Opening | DropReason:
    """Whether a TCP connection's first packet begins a session."""
    try:
        return _opening(_open_reset(packet, protection), protection)
    except PeerError as error:
        return error.reason


def _open_reset(packet: bytes, protection: ControlProtection) -> FirstPacket:
    """Raises ``PeerError``."""
    if parse_header(packet).opcode not in CLIENT_RESETS:
        raise PeerError(DropReason.BAD_OPCODE)
    first = protection.open(packet)
    if first.packet.packet_id != 0 or first.packet.acks:
        raise PeerError(DropReason.LATE_PACKET)
    return first


def _opening(first: FirstPacket, protection: ControlProtection) -> Opening | DropReason:
    refused = protection.judge(first)
    if refused is not None:
        return refused
    return Opening(first.packet.session_id, protection.session_wrap(first, replied=False))
