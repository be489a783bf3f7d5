"""One session's use of a wrapping: what it has sent and received so far."""

from __future__ import annotations

import time
from collections.abc import Callable

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.packet import ControlPacket
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.replay import ReplayWindow, SendCounter
from cvpnd.wire.wrap.wrapping import Wrapping


class SessionWrap:
    """The dynamic tls-crypt of a session's renegotiations is a second one, with counters of its own."""

    __slots__ = ("_sent", "_window", "clock", "wrapping")

    def __init__(
        self, wrapping: Wrapping = PLAIN, clock: Callable[[], float] = time.time, *, first_id: int = 1
    ) -> None:
        """``first_id`` 2 goes on where a stateless reply was number 1."""
        self.wrapping = wrapping
        self.clock = clock
        self._sent = SendCounter(clock, first_id)
        self._window = ReplayWindow()

    @property
    def overhead(self) -> int:
        return self.wrapping.overhead

    def wrap(self, packet: ControlPacket) -> bytes:
        return self.wrapping.seal(packet, self._sent.next())

    def unwrap(self, packet: bytes, now: float) -> ControlPacket:
        """Raises ``PeerError``. Only a packet that is authentic moves the window."""
        opened = self.wrapping.open(packet)
        if opened.replay_id is not None and not self._window.accept(opened.replay_id, now):
            raise PeerError(DropReason.REPLAYED)
        return opened.packet
