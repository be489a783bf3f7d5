"""How control packets reach one client: over a listener's UDP socket, or over its own TCP connection.

A TCP connection is spoken to from here until the first data keys exist. Then the socket moves to a worker, with
the bytes already read, and control frames go both ways through the data plane.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Literal, Protocol

from cvpnd.dataplane.api import DataPlane, SocketAddress
from cvpnd.ops.logs import RateLimited
from cvpnd.server.sockets import ancillary_from_local
from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.stream import FrameReader, frame

_warn = RateLimited(logging.getLogger(__name__))

READ_BYTES = 4096
"""Two of the largest frames. All of it is cut at once: 16 kB of the smallest take 12 ms on a busy machine."""
FRAMES_PER_WAKE_UP = 16
"""Then the loop serves the others: 4 kB hold some two hundred of the smallest valid frames, 50 us of work each."""
MAX_UNSENT_BYTES = 256 * 1024
"""A client that completes no read for this much handshake output is gone or hostile."""


class Link(Protocol):
    @property
    def transport(self) -> Literal["udp", "tcp"]: ...

    remote: SocketAddress
    local: str

    @property
    def local_port(self) -> int: ...

    def send(self, packet: bytes) -> None: ...

    def close(self) -> None: ...


def _nobody_listens(_said: bytes | str) -> None:
    pass


class UdpLink:
    """The control socket is shared by all clients of the listener and is not ours to close."""

    __slots__ = ("_control", "listener", "local", "remote")
    transport: Final = "udp"

    def __init__(self, control: socket.socket, listener: int, remote: SocketAddress, local: str) -> None:
        self._control = control
        self.listener = listener
        self.remote = remote
        self.local = local

    @property
    def local_port(self) -> int:
        """While its listener is open."""
        port: int = self._control.getsockname()[1]
        return port

    def send(self, packet: bytes) -> None:
        """Best effort, as UDP is: the reliability layer repeats what a full buffer or an unreachable client lost."""
        host, port, scope_id = self.remote
        address = (host, port, 0, scope_id) if ":" in host else (host, port)
        try:
            self._control.sendmsg((packet,), ancillary_from_local(self.local), 0, address)
        except OSError:
            return

    def close(self) -> None:
        pass


class TcpLink:
    """Owns the connected socket until the hand-over. Reads nothing before ``serve``."""

    transport: Final = "tcp"

    def __init__(self, sock: socket.socket, remote: SocketAddress, drops: Counter[DropReason]) -> None:
        """``drops``: counts streams that lose their frames."""
        self._loop = asyncio.get_running_loop()
        self._drops = drops
        self._socket: socket.socket | None = sock
        self._reader = FrameReader()
        self._read: deque[bytes] = deque()  # frames of the last read that wait for their turn
        self._unsent = bytearray()
        self._taker: DataPlane | None = None  # who gets the socket once everything queued is out
        self._plane: DataPlane | None = None  # who has it
        self._peer_id = -1
        self._closing = False
        self.frames_lost = False
        """It ends because what came was no frame."""
        self._on_packet: Callable[[bytes], None]
        self._on_closed: Callable[[str], None]
        self.remote = remote
        host, self.local_port = sock.getsockname()[:2]
        self.local = host.partition("%")[0]
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self, on_packet: Callable[[bytes], None], on_closed: Callable[[str], None]) -> None:
        """``on_packet`` gets whole control frames; ``on_closed`` comes at most once, and not after ``close``.
        Called again, it replaces both."""
        self._on_packet, self._on_closed = on_packet, on_closed
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._readable)

    def send(self, packet: bytes) -> None:
        if self._plane is not None:
            self._plane.send_control(self._peer_id, packet)
        elif self._socket is not None and not self._closing:
            self._unsent += frame(packet)
            self._flush()

    def hand_over(self, plane: DataPlane, peer_id: int) -> None:
        """Give the socket to the peer's worker once all that was queued is out; nothing is read from now on."""
        if self._socket is None:
            return
        self._peer_id = peer_id
        self._taker = plane
        self._loop.remove_reader(self._socket)
        self._flush()

    def give_up_hand_over(self) -> None:
        """The peer is about to go, and with it a connection that a worker owns. Idempotent."""
        self._taker = self._plane = None

    def close(self) -> None:
        """Send what the kernel takes, then close. After ``hand_over`` the worker's side closes with the peer."""
        if self._socket is not None:
            self._closing = True
            self._flush()
            self._drop()
        self._forget_server()

    def _forget_server(self) -> None:
        """Nobody is told anything any more. Who was knows this link: see ``Agreement.close``."""
        self._on_packet = self._on_closed = _nobody_listens

    def _readable(self) -> None:
        sock = self._socket
        if sock is None:
            return
        if not self._read:
            try:
                data = sock.recv(READ_BYTES)
                self._read.extend(self._reader.feed(data))
            except BlockingIOError:
                return
            except PeerError as error:
                self.frames_lost = True
                self._drops[error.reason] += 1
                _warn.warning(error.reason, "closing the TCP connection of %s: %s", self.remote.host, error)
                self._fail(str(error))
                return
            except OSError as error:
                self._fail(str(error))
                return
            if not data:
                self._fail("closed by the client")
                return
        self._take_turn()

    def _take_turn(self) -> None:
        for _ in range(FRAMES_PER_WAKE_UP):
            if self._closing or not self._read:
                return  # what follows a packet that ended the connection is not looked at
            self._on_packet(self._read.popleft())
        if self._read and self._socket is not None and self._taker is None:
            self._loop.remove_reader(self._socket)  # it may never become readable again
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._socket is not None and self._taker is None and not self._closing:
            self._loop.add_reader(self._socket, self._readable)
            self._take_turn()

    def _flush(self) -> None:
        sock = self._socket
        if sock is None:
            return
        try:
            while self._unsent:
                del self._unsent[: sock.send(self._unsent)]
        except BlockingIOError:
            if len(self._unsent) > MAX_UNSENT_BYTES:
                self._fail("the client does not read")
            else:
                self._loop.add_writer(sock, self._flush)
            return
        except OSError as error:
            self._fail(str(error))
            return
        self._loop.remove_writer(sock)
        if self._taker is not None and not self._closing:
            self._hand_over_now(self._taker)

    def _hand_over_now(self, taker: DataPlane) -> None:
        sock, self._socket = self._socket, None
        if sock is None:
            return
        try:
            waiting = b"".join(map(frame, self._read)) + self._reader.rest()
            self._read.clear()
            taker.attach_tcp(self._peer_id, sock.detach(), waiting)
            self._plane = taker
        except (OSError, ValueError) as error:  # the plane has closed the descriptor
            self._closing = True
            self._on_closed(f"cannot be handed to a worker: {error}")

    def _fail(self, detail: str) -> None:
        if self._socket is None:
            return
        self._drop()
        if not self._closing:
            self._closing = True
            self._on_closed(detail)
            self._forget_server()

    def _drop(self) -> None:
        sock, self._socket = self._socket, None
        self._read.clear()  # the session stays in mind for a while: what it did not look at shall not
        if sock is not None:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            sock.close()
