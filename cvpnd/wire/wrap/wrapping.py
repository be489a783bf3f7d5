"""What every wrapping can do, and what comes out of a packet that was opened."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.packet import ControlPacket, Header, Opcode

KEY2_BYTES = 256
"""A whole pre-shared key: two halves of 64 bytes for a cipher and 64 for an HMAC (openvpn-wire.md section 1)."""
HALF_BYTES = 128
HMAC_OFFSET = 64

WITH_CLIENT_KEY = frozenset({Opcode.HARD_RESET_CLIENT_V3, Opcode.CONTROL_WKC_V1})
"""These carry the sender's own key (tls-crypt-v2); no other wrapping knows them."""


class ReplayId(NamedTuple):
    """Counts the packets of one sender; ``time`` tells its runs apart."""

    id: int
    time: int

    def serialise(self) -> bytes:
        return self.id.to_bytes(4, "big") + self.time.to_bytes(4, "big")

    @classmethod
    def parse(cls, field: bytes) -> ReplayId:
        return cls(int.from_bytes(field[:4], "big"), int.from_bytes(field[4:8], "big"))


class Opened(NamedTuple):
    packet: ControlPacket
    replay_id: ReplayId | None
    """None: this wrapping does not count."""


class Wrapping(Protocol):
    @property
    def overhead(self) -> int:
        """Bytes added to each packet, to be kept free below the packet size limit."""
        ...

    @property
    def key2(self) -> bytes:
        """The whole pre-shared key, which dynamic tls-crypt mixes in; empty without one."""
        ...

    def seal(self, packet: ControlPacket, replay_id: ReplayId) -> bytes: ...

    def open(self, packet: bytes) -> Opened:
        """Raises ``PeerError``. The replay id is authentic, and nobody has looked at it yet."""
        ...


def refuse_client_key(header: Header) -> None:
    """Raises ``PeerError`` for packets that only tls-crypt-v2 understands."""
    if header.opcode in WITH_CLIENT_KEY:
        raise PeerError(DropReason.BAD_OPCODE, header.opcode.name)
