"""Control packets: opcodes, layout, parse and serialise (openvpn-wire.md sections 2.2 and 3).

A packet is a *header* (opcode, key id, sender's session id), which every wrapping leaves in clear, and a *body*
(acknowledgements, packet id, payload), which some encrypt. The wrappings (``wrap/``) work on the two parts;
``parse_packet`` and ``serialise_packet`` are for packets without one.
"""

from __future__ import annotations

import struct
from enum import IntEnum, StrEnum
from typing import NamedTuple

from cvpnd.wire.errors import DropReason, PeerError

SESSION_ID_BYTES = 8
NO_SESSION_ID = bytes(SESSION_ID_BYTES)
HEADER_BYTES = 1 + SESSION_ID_BYTES
MAX_ACKS_RECEIVED = 8
MAX_PAYLOAD_BYTES = 1600
"""The reference's receive buffer: 1500 and some 100 of head room. No implementation sends more."""


class Transport(StrEnum):
    UDP = "udp"
    TCP = "tcp"


class Opcode(IntEnum):
    """The upper five bits of a packet's first byte."""

    __hash__ = int.__hash__  # an enumeration's own is written in Python, and asked several times for each packet

    SOFT_RESET_V1 = 3
    CONTROL_V1 = 4
    ACK_V1 = 5
    DATA_V1 = 6
    HARD_RESET_CLIENT_V2 = 7
    HARD_RESET_SERVER_V2 = 8
    DATA_V2 = 9
    HARD_RESET_CLIENT_V3 = 10
    CONTROL_WKC_V1 = 11


CONTROL_OPCODES = frozenset(Opcode) - {Opcode.DATA_V1, Opcode.DATA_V2}
CLIENT_RESETS = frozenset({Opcode.HARD_RESET_CLIENT_V2, Opcode.HARD_RESET_CLIENT_V3})
HARD_RESETS = CLIENT_RESETS | {Opcode.HARD_RESET_SERVER_V2}
TLS_OPCODES = frozenset({Opcode.CONTROL_V1, Opcode.CONTROL_WKC_V1})
_BY_NUMBER = {int(opcode): opcode for opcode in Opcode}
_FIRST_BYTES = {
    opcode << 3 | key_id: (opcode, key_id)
    for opcode in CONTROL_OPCODES
    for key_id in range(1 if opcode in HARD_RESETS else 8)
}
"""Of control packets: opcode and key id."""
_U32 = struct.Struct(">I")
_ACKS = tuple(struct.Struct(f">{count}I") for count in range(MAX_ACKS_RECEIVED + 1))
_COUNTED_ACKS = tuple(struct.Struct(f">B{count}I") for count in range(MAX_ACKS_RECEIVED + 1))


_DATA_FIRST_BYTES = frozenset(
    opcode << 3 | key_id for opcode in (Opcode.DATA_V1, Opcode.DATA_V2) for key_id in range(8)
)


def is_data(packet: bytes) -> bool:
    return len(packet) > 0 and packet[0] in _DATA_FIRST_BYTES


class Reader:
    """Takes fields off the front of a buffer; overrunning its end is ``PeerError(TRUNCATED)``."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes | bytearray, position: int = 0) -> None:
        self._data = data
        self._position = position

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def take(self, count: int) -> bytes:
        """Of a ``bytearray``: another one, which the caller may wipe."""
        if count > self.left:
            raise PeerError(DropReason.TRUNCATED)
        start = self._position
        self._position = start + count
        return self._data[start : self._position]  # type: ignore[return-value]

    def rest(self) -> bytes:
        return self.take(self.left)

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")


class Header(NamedTuple):
    opcode: Opcode
    key_id: int
    session_id: bytes
    """The sender's."""

    def serialise(self) -> bytes:
        return bytes((self.opcode << 3 | self.key_id,)) + self.session_id


class ControlPacket(NamedTuple):
    opcode: Opcode
    key_id: int
    session_id: bytes
    """The sender's."""
    acks: tuple[int, ...] = ()
    remote_session_id: bytes = b""
    """The receiver's; only there when ``acks`` is not empty."""
    packet_id: int | None = None
    """None in ``ACK_V1`` only."""
    payload: bytes = b""

    @property
    def header(self) -> Header:
        return Header(self.opcode, self.key_id, self.session_id)


def parse_header(packet: bytes) -> Header:
    """The part in clear. Raises ``PeerError``."""
    if len(packet) < HEADER_BYTES:
        raise PeerError(DropReason.TRUNCATED)
    kind = _FIRST_BYTES.get(packet[0])
    session_id = packet[1:HEADER_BYTES]
    if kind is None or session_id == NO_SESSION_ID:
        raise _header_error(packet[0], session_id)
    opcode, key_id = kind
    return Header(opcode, key_id, session_id)


def _header_error(first: int, session_id: bytes) -> PeerError:
    opcode = _BY_NUMBER.get(first >> 3)
    if opcode is None:
        return PeerError(DropReason.BAD_OPCODE, str(first >> 3))
    if opcode not in CONTROL_OPCODES:
        return PeerError(DropReason.BAD_OPCODE, opcode.name)
    if session_id == NO_SESSION_ID:
        return PeerError(DropReason.BAD_SESSION_ID)
    return PeerError(DropReason.BAD_KEY_ID, f"{opcode.name} with key id {first & 7}")


def parse_body(header: Header, packet: bytes, start: int = 0) -> ControlPacket:
    """The part behind the header, already unwrapped: all of ``packet`` from ``start`` on. Raises ``PeerError``."""
    opcode, key_id, session_id = header
    size = len(packet)
    count = packet[start] if start < size else 0
    if count > MAX_ACKS_RECEIVED:
        raise PeerError(DropReason.TOO_MANY_ACKS, str(count))
    acks_at = start + 1
    behind_acks = acks_at + 4 * count
    id_at = behind_acks + SESSION_ID_BYTES if count else behind_acks
    end = id_at if opcode is Opcode.ACK_V1 else id_at + 4
    if end > size:
        raise PeerError(DropReason.TRUNCATED)
    acks = _ACKS[count].unpack_from(packet, acks_at)
    remote_session_id = packet[behind_acks:id_at]
    if opcode is Opcode.ACK_V1:  # what follows is nobody's
        return ControlPacket(opcode, key_id, session_id, acks, remote_session_id)
    if size - end > MAX_PAYLOAD_BYTES:
        raise PeerError(DropReason.TOO_LONG, f"{size - end} bytes of payload")
    (packet_id,) = _U32.unpack_from(packet, id_at)
    return ControlPacket(opcode, key_id, session_id, acks, remote_session_id, packet_id, packet[end:])


def parse_packet(packet: bytes) -> ControlPacket:
    """A packet without a wrapping. Raises ``PeerError``."""
    return parse_body(parse_header(packet), packet, HEADER_BYTES)


def serialise_packet(packet: ControlPacket) -> bytes:
    return bytes((packet.opcode << 3 | packet.key_id,)) + packet.session_id + serialise_body(packet)


def serialise_body(packet: ControlPacket) -> bytes:
    _, _, _, acks, remote_session_id, packet_id, payload = packet
    head = b"\0"
    if count := len(acks):
        layout = _COUNTED_ACKS[count] if count <= MAX_ACKS_RECEIVED else struct.Struct(f">B{count}I")
        head = layout.pack(count, *acks) + remote_session_id
    if packet_id is None:
        return head
    return head + _U32.pack(packet_id) + payload
