"""One session's use of its wrappings: what it has sent and received so far."""

from __future__ import annotations

import time
from collections.abc import Callable

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.packet import ControlPacket
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.replay import ReplayWindow, SendCounter
from cvpnd.wire.wrap.tls_crypt import TlsCrypt
from cvpnd.wire.wrap.wrapping import Wrapping


class SessionWrap:
    """One wrapping with its counters."""

    __slots__ = ("_sent", "_window", "clock", "first_id", "wrapping")

    def __init__(
        self, wrapping: Wrapping = PLAIN, clock: Callable[[], float] = time.time, *, first_id: int = 1
    ) -> None:
        """``first_id`` 2 goes on where a stateless reply was number 1."""
        self.wrapping = wrapping
        self.clock = clock
        self.first_id = first_id
        self._sent = SendCounter(clock, first_id)
        self._window = ReplayWindow()

    @property
    def overhead(self) -> int:
        return self.wrapping.overhead

    def wrap(self, packet: ControlPacket) -> bytes:
        return self.wrapping.seal(packet, self._sent.next())

    def unwrap(self, packet: bytes, now: float) -> ControlPacket:
        """Raises ``PeerError``. Only a packet that is authentic moves the window."""
        opened, replay_id = self.wrapping.open(packet)
        if replay_id is not None and not self._window.accept(replay_id, now):
            raise PeerError(DropReason.REPLAYED)
        return opened

    def inspect(self) -> tuple[int, int, int]:
        """For tests: our next id, the highest one seen and its time."""
        return self._sent.next_id, *self._window.latest


class SessionWraps:
    """The wrapping of key id 0 and, where dynamic tls-crypt was negotiated, that of all later keys.

    OpenVPN 3 has one wrapping at a time: once it has used the later one it wraps key id 0 in it too, and expects the
    answers so."""

    __slots__ = ("_first", "_later", "_of_zero")

    def __init__(self, first: SessionWrap) -> None:
        self._first = first
        self._later = first
        self._of_zero = first

    def of(self, key_id: int) -> SessionWrap:
        return self._of_zero if key_id == 0 else self._later

    def unwrap(self, packet: bytes, key_id: int, now: float) -> ControlPacket:
        """Raises ``PeerError``."""
        wrap = self.of(key_id)
        if wrap is self._later:
            return wrap.unwrap(packet, now)
        try:
            opened = self._later.unwrap(packet, now)
        except PeerError as error:
            if error.reason is DropReason.REPLAYED:
                raise  # it is authentic
            return wrap.unwrap(packet, now)
        self._of_zero = self._later
        return opened

    def go_dynamic(self, key2: bytes, wall_s: int) -> None:
        """``key2``: see ``dynamic_key2``."""
        if self._later is not self._first:
            raise ValueError("a second key for later packets")
        self._later = SessionWrap(TlsCrypt(key2, server=True), lambda: wall_s)
