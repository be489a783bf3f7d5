"""Packets on a TCP stream: a 16-bit length in front of each (openvpn-wire.md section 2.1)."""

from __future__ import annotations

from cvpnd.wire.errors import DropReason, PeerError

LENGTH_BYTES = 2
MAX_FRAME_BYTES = 2048
"""The reference's link buffer is 1768 bytes at tun-mtu 1500; a larger tun-mtu is never pushed."""


def frame(packet: bytes) -> bytes:
    return len(packet).to_bytes(LENGTH_BYTES, "big") + packet


class FrameReader:
    """Cuts a stream into packets, however it was segmented. Holds at most one incomplete frame between calls."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the packets that are complete now. Raises ``PeerError(BAD_FRAME)``: the stream has lost its
        framing for good and the connection must be closed."""
        buffer = self._buffer
        buffer += data
        packets = []
        position = 0
        while len(buffer) - position >= LENGTH_BYTES:
            length = int.from_bytes(buffer[position : position + LENGTH_BYTES], "big")
            if not 1 <= length <= MAX_FRAME_BYTES:
                raise PeerError(DropReason.BAD_FRAME, f"length {length}")
            end = position + LENGTH_BYTES + length
            if end > len(buffer):
                break
            packets.append(bytes(buffer[position + LENGTH_BYTES : end]))
            position = end
        del buffer[:position]
        return packets

    def rest(self) -> bytes:
        """What was read and is no complete frame yet, for whoever reads the connection from now on."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest
