"""Our session id of the first exchange over UDP, made from what we are told and kept nowhere (section 5.2).
This is the specification; ``native/reset_cookie.c`` makes the same bytes.

A client must echo it before any memory is spent on it, which proves that it receives at its source address. The
key is random for each process and shared by all that may receive the echo.
"""

from __future__ import annotations

import hmac
import socket
from typing import NamedTuple

from cvpnd.wire.errors import UsageError
from cvpnd.wire.packet import NO_SESSION_ID, SESSION_ID_BYTES

SECRET_BYTES = 32
ACCEPTED_SLOTS = 3
"""This slot and the two before: with slots of half a hand-window, a cookie lives 60 to 90 s by default."""


class PeerAddress(NamedTuple):
    """What a cookie is bound to. ``host`` is canonical text; IPv4-mapped IPv6 is folded to IPv4 by the caller."""

    host: str
    port: int
    scope_id: int = 0


class ResetCookie:
    """A keyed MAC over explicit bytes. ``now`` must come from the same clock in both calls."""

    __slots__ = ("_secret", "slot_s")

    def __init__(self, secret: bytes, hand_window_s: float = 60.0) -> None:
        if len(secret) < SECRET_BYTES:
            raise UsageError(f"a cookie secret has {SECRET_BYTES} bytes or more")
        self._secret = secret
        self.slot_s = max(1, (int(hand_window_s) + 1) // 2)

    def session_id(self, address: tuple[str, int] | tuple[str, int, int], client_sid: bytes, now: float) -> bytes:
        return self._for_slot(_place(PeerAddress(*address), client_sid), self._slot(now))

    def verify(
        self, session_id: bytes, address: tuple[str, int] | tuple[str, int, int], client_sid: bytes, now: float
    ) -> bool:
        """Constant time in the bytes compared. How old a right one is, which the time taken tells, is no secret."""
        place = _place(PeerAddress(*address), client_sid)
        slot = self._slot(now)
        return any(hmac.compare_digest(session_id, self._for_slot(place, slot - age)) for age in range(ACCEPTED_SLOTS))

    def _slot(self, now: float) -> int:
        return int(now // self.slot_s)

    def _for_slot(self, place: bytes, slot: int) -> bytes:
        while True:
            message = place + slot.to_bytes(8, "big", signed=True)
            cookie = hmac.digest(self._secret, message, "sha256")[:SESSION_ID_BYTES]
            if cookie != NO_SESSION_ID:
                return cookie
            slot -= 1


def _place(peer: PeerAddress, client_sid: bytes) -> bytes:
    """What the cookie is bound to, but for the time."""
    version, family = (6, socket.AF_INET6) if ":" in peer.host else (4, socket.AF_INET)
    return b"%c%b%b%b%b" % (
        version,
        socket.inet_pton(family, peer.host),
        peer.scope_id.to_bytes(4, "big"),
        peer.port.to_bytes(2, "big"),
        client_sid,
    )
