"""The doorman in plain Python, without thread and descriptors: what ``wire.stateless`` specifies, and no limits."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Mapping

from cvpnd.dataplane.api import SocketAddress
from cvpnd.server.doorman import ControlDatagram
from cvpnd.wire import stateless
from cvpnd.wire.errors import DropReason
from cvpnd.wire.packet import is_data
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.wrap.protection import ControlProtection

BUSY_S = 1.5
"""So long after its last packet a handshake is taken for under way."""


class InlineDoor:
    """One listener. ``send`` carries the replies to resets; ``known`` are the sessions it lets through."""

    def __init__(self, listener: int, send: Callable[[bytes, SocketAddress], None], clock: Callable[[], float]) -> None:
        self.known: dict[tuple[int, SocketAddress, bytes], bool] = {}
        self._heard: dict[tuple[int, SocketAddress, bytes], float] = {}
        self._proven: set[tuple[int, SocketAddress, bytes]] = set()
        self._listener = listener
        self._send = send
        self._clock = clock
        self._waiting: list[ControlDatagram] = []
        self._drops: Counter[DropReason] = Counter()
        self._readable, self._signal = socket.socketpair()

    def cookie(self, hand_window_s: float) -> ResetCookie:
        return ResetCookie(bytes(32), hand_window_s)

    def receive(self, packet: bytes, source: SocketAddress, cookie: ResetCookie, accepted: ControlProtection) -> None:
        """A datagram arrives; fetch what became of it."""
        if is_data(packet):
            if not self._is_occupied(source):
                self._drops[DropReason.BAD_OPCODE] += 1
                return
        elif (self._listener, source, packet[1:9]) not in self.known:
            if stateless.is_reset(packet):
                said = stateless.answer_reset(packet, source, self._clock(), cookie, accepted)
                if not isinstance(said, DropReason) and not self._is_occupied(source) and self._is_busy(source):
                    said = DropReason.LIVE_CLIENT
                if isinstance(said, bytes) and not self._is_occupied(source):
                    self._send(said, source)
                    return
            else:
                said = stateless.check_echo(packet, source, self._clock(), cookie, accepted)
            if isinstance(said, DropReason):
                self._drops[said] += 1
                return
            if not isinstance(said, bytes):
                self.known[self._listener, source, packet[1:9]] = False
                if not stateless.is_reset(packet):
                    self._proven.add((self._listener, source, packet[1:9]))
        self._heard[self._listener, source, packet[1:9]] = self._clock()
        self._waiting.append(ControlDatagram(self._listener, source, "", packet))

    def _is_occupied(self, source: SocketAddress) -> bool:
        return any(established and at == source for (_, at, _), established in self.known.items())

    def _is_busy(self, source: SocketAddress) -> bool:
        """A handshake is under way there, which began with a cookie."""
        return any(
            key[1] == source and key in self._proven and self._clock() - self._heard[key] < BUSY_S for key in self.known
        )

    def know(self, listener: int, source: SocketAddress, client_session_id: bytes, *, established: bool) -> None:
        self.known[listener, source, client_session_id] = established

    def forget(self, listener: int, source: SocketAddress, client_session_id: bytes) -> None:
        for forgotten in (self.known, self._heard):
            forgotten.pop((listener, source, client_session_id), None)
        self._proven.discard((listener, source, client_session_id))

    def event_fd(self) -> int:
        """Never readable: whoever calls ``receive`` fetches."""
        return self._readable.fileno()

    def fetch(self) -> list[ControlDatagram]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def drops(self) -> Mapping[DropReason, int]:
        return self._drops

    def close(self) -> None:
        self._readable.close()
        self._signal.close()
