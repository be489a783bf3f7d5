"""tls-auth: an HMAC under a key that all clients share (openvpn-wire.md sections 3.2 and 6.2). Nothing is encrypted.

On the wire ``header | HMAC | replay id | body``; into the HMAC goes the replay id before the header.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Literal

from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.packet import HEADER_BYTES, ControlPacket, parse_body, parse_header, serialise_body
from cvpnd.wire.wrap.wrapping import HALF_BYTES, HMAC_OFFSET, KEY2_BYTES, Opened, ReplayId, refuse_client_key

if TYPE_CHECKING:
    from cvpnd._native import ControlKeys

REPLAY_ID_BYTES = 8
MIN_BODY_BYTES = 1

Digest = Literal["SHA1", "SHA256", "SHA384", "SHA512"]
Direction = Literal[0, 1]

DIGEST_BYTES: dict[Digest, int] = {"SHA1": 20, "SHA256": 32, "SHA384": 48, "SHA512": 64}


class TlsAuth:
    """One side's view of a static key. ``direction`` as in OpenVPN: 0 on one side (usually the server) and 1 on the
    other, or None on both."""

    __slots__ = (
        "_algorithm",
        "_digest_bytes",
        "_open_key",
        "_seal_key",
        "digest",
        "direction",
        "key2",
        "native",
        "overhead",
    )

    def __init__(self, key2: bytes, direction: Direction | None, digest: Digest = "SHA1") -> None:
        if len(key2) != KEY2_BYTES:
            raise UsageError(f"a tls-auth key has {KEY2_BYTES} bytes")
        self.key2, self.direction, self.digest = key2, direction, digest
        self.native: ControlKeys | None = None
        """The same in C, once a session needed it."""
        self._algorithm = digest.lower()
        self._digest_bytes = DIGEST_BYTES[digest]
        self.overhead = self._digest_bytes + REPLAY_ID_BYTES
        first, second = (key2[at : at + self._digest_bytes] for at in (HMAC_OFFSET, HALF_BYTES + HMAC_OFFSET))
        self._seal_key = second if direction == 1 else first
        self._open_key = second if direction == 0 else first

    def seal(self, packet: ControlPacket, replay_id: ReplayId) -> bytes:
        header, count, body = packet.header.serialise(), replay_id.serialise(), serialise_body(packet)
        return header + hmac.digest(self._seal_key, count + header + body, self._algorithm) + count + body

    def open(self, packet: bytes) -> Opened:
        header = parse_header(packet)
        refuse_client_key(header)
        if len(packet) < HEADER_BYTES + self.overhead + MIN_BODY_BYTES:
            raise PeerError(DropReason.NOT_AUTHENTIC, "too short")
        count_at = HEADER_BYTES + self._digest_bytes
        body_at = count_at + REPLAY_ID_BYTES
        count, body = packet[count_at:body_at], packet[body_at:]
        expected = hmac.digest(self._open_key, count + packet[:HEADER_BYTES] + body, self._algorithm)
        if not hmac.compare_digest(packet[HEADER_BYTES:count_at], expected):
            raise PeerError(DropReason.NOT_AUTHENTIC)
        return Opened(parse_body(header, body), ReplayId.parse(count))
