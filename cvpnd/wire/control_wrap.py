"""The protection around control packets: one seam, four wrappings (openvpn-wire.md section 6).

``PlainWrap`` is the one without a pre-shared key. A wrapping belongs to one session (``tls-auth`` and ``tls-crypt``
count their packets), is told the wall clock's time when it is made, and raises ``PeerError`` for anything that is
not authentic. ``tls-crypt-v2`` finds its key in the packet itself: its ``unwrap`` strips what was appended.
"""

from __future__ import annotations

from typing import Protocol

from cvpnd.wire.packet import HEADER_BYTES, ControlPacket, parse_body, parse_header, serialise_body


class ControlWrap(Protocol):
    @property
    def overhead(self) -> int:
        """Bytes added to each packet, to be kept free below the packet size limit."""
        ...

    def wrap(self, packet: ControlPacket) -> bytes: ...

    def unwrap(self, packet: bytes) -> ControlPacket:
        """Raises ``PeerError``."""
        ...


class PlainWrap:
    """No protection: header and body as they are. Without state, so one serves all sessions."""

    __slots__ = ()
    overhead = 0

    def wrap(self, packet: ControlPacket) -> bytes:
        return packet.header.serialise() + serialise_body(packet)

    def unwrap(self, packet: bytes) -> ControlPacket:
        return parse_body(parse_header(packet), packet[HEADER_BYTES:])


PLAIN = PlainWrap()
