"""No protection: header and body as they are."""

from __future__ import annotations

from cvpnd.wire.packet import HEADER_BYTES, ControlPacket, parse_body, parse_header, serialise_packet
from cvpnd.wire.wrap.wrapping import Opened, ReplayId, refuse_client_key


class Plain:
    __slots__ = ()
    overhead = 0
    key2 = b""

    def seal(self, packet: ControlPacket, replay_id: ReplayId) -> bytes:  # noqa: ARG002 - nothing counts
        return serialise_packet(packet)

    def open(self, packet: bytes) -> Opened:
        header = parse_header(packet)
        refuse_client_key(header)
        return Opened(parse_body(header, packet, HEADER_BYTES), None)


PLAIN = Plain()
