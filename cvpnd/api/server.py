"""uvicorn as a guest in the daemon's event loop: no signal handlers, no lifespan, no access log.

The sockets are made here, so that a Unix socket has its mode before anybody can connect, a stale one is replaced and a
live one is not, and the kernel's word on who is at the other end (SO_PEERCRED) reaches the audit record.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
import ssl
import stat
import struct
import sys
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from cvpnd.api.listener import SharedListener
from cvpnd.config import SocketName
from cvpnd.ops.logs import RateLimited

log = logging.getLogger(__name__)
_warn = RateLimited(log, interval_s=10)

BACKLOG = 64
CONNECTIONS_PER_USER = 64
"""At a time over the Unix socket, of one user of this host: nobody shuts another one out."""
HEADER_LIMIT = 16 * 1024
HEADER_LINES = 100
"""Browsers behind two proxies send forty. Each is some microseconds of the event loop's time, and three bytes of who
sends it."""
MOST_ESCAPES = 1024
"""In a path, which is taken apart for everybody. Each is half a microsecond, a broken one more, and 16 kB of those are
17 ms; a name of 255 characters takes up to 1,020."""
MOST_COOKIES = 200
"""A browser has 180 for a site. Eight thousand, which fit into a head, take 6 ms to take apart."""
HEAD_S = 10
"""How long a connection may take for the head of a request."""
HANDSHAKE_S = 10
"""And before that for its TLS handshake: asyncio would wait a minute, in which it holds one of the source's places."""
DATE_S = 1.0
"""After which the header of that name has another second in it."""
GRACE_S = 3
"""How long ``stop`` lets running requests finish, and whoever is sent away may take to hear the end and say goodbye."""
READ_S = 30
"""How long whoever has asked may take to read on, ``UNREAD_BYTES`` at a time, and the last of an answer."""
UNREAD_BYTES = 64 * 1024
"""That wait here; TLS would let 512 kB wait."""
PIECE_BYTES = 32 * 1024
"""Of an answer: no more is made of it before most of what there is has been read."""
TLS_READ_BYTES = 32 * 1024
"""For what comes over each connection with TLS, from its first moment on: two records. asyncio would take 256 kB. A
handshake that fails leaves it to the garbage collector (its exception and the frame that raised it hold each other),
which comes once in some two thousand of them."""

SSLProtocol.max_size = TLS_READ_BYTES
logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what strangers make it warn of, we tell now and then
_BLANK_LINE = re.compile(rb"\n\r?\n")


class _Refused(h11.RemoteProtocolError):
    """Its text may be told: nothing in it is what a stranger sent."""


class _Reader(h11.Connection):
    """Takes nothing apart that is a thousand times more work for us than for who sends it."""

    asks_for_head = False
    """And nothing else: h11 raises for the words of an answer."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Raises ``RemoteProtocolError``. There are no chunks here: one of a byte is 15 us, and 250 kB of them, which
        are read at once, held all clients of the VPN for a second."""
        if self.their_state is h11.IDLE:
            self.asks_for_head = False
            self._measure_head()
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.asks_for_head = event.method == b"HEAD"
            if any(name == b"transfer-encoding" for name, _ in event.headers):
                raise _Refused("send Content-Length, and no Transfer-Encoding", error_status_hint=411)
        return event

    def _measure_head(self) -> None:
        received, _ = self.trailing_data
        end = _BLANK_LINE.search(received)
        length = len(received) if end is None else end.start()
        if length > HEADER_LIMIT:
            raise _Refused(f"the head of a request has at most {HEADER_LIMIT} bytes", error_status_hint=431)
        if received.count(b"\n", 0, length) > HEADER_LINES:
            raise _Refused(f"the head of a request has at most {HEADER_LINES} lines", error_status_hint=431)
        if received[:length].partition(b"\n")[0].partition(b"?")[0].count(b"%") > MOST_ESCAPES:
            raise _Refused(f"a path has at most {MOST_ESCAPES} escape sequences", error_status_hint=414)
        if received.count(b";", 0, length) > MOST_COOKIES:
            raise _Refused(f"the head of a request has at most {MOST_COOKIES} cookies", error_status_hint=431)


class PeerCredentials(NamedTuple):
    pid: int
    uid: int
    gid: int


class _PatientProtocol(H11Protocol):
    """Whoever has not said what they want within ``HEAD_S``, or does not read the answer within ``READ_S``, makes room
    for others, strangers or not."""

    conn: _Reader
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.conn = _Reader(h11.SERVER, HEADER_LIMIT)
        super().connection_made(transport)
        transport.set_write_buffer_limits(UNREAD_BYTES)
        self._wait_for_head()

    def send_400_response(self, msg: str) -> None:
        """In place of uvicorn's, which knows no reason and fails where a request has its answer already: what is wrong
        behind that gets none."""
        error = sys.exc_info()[1]
        status, told = (error.error_status_hint, str(error)) if isinstance(error, _Refused) else (400, msg)
        _warn.warning("malformed", "HTTP from %s: %s", self.client[0] if self.client else "a local user", told)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close")]
            for event in (
                h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]),
                h11.Data(data=b"" if self.conn.asks_for_head else told.encode()),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self._send_away()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not (self._has_answered() or self.flow.write_paused):
            self._stop_waiting()

    def eof_received(self) -> None:
        super().eof_received()
        self._wait(READ_S, self.transport.abort)  # it closes now, with what is still to be read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait(READ_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_waiting()
            if self._has_answered():
                self._wait_for_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self.flow.write_paused:
            self._wait(READ_S, self.transport.abort)
        elif self._has_answered():
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _has_answered(self) -> bool:
        """All that was asked."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._wait(HEAD_S, self._send_away)

    def _send_away(self) -> None:
        self.transport.close()
        self._wait(GRACE_S, self.transport.abort)

    def _wait(self, seconds: float, and_then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._deadline = asyncio.get_running_loop().call_later(seconds, and_then)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _in_pieces(app: ASGIApp) -> ASGIApp:
    """A long answer waits in the application until it is read, and not in a buffer that is given up with its rest."""

    async def cutting(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_pieces(message: Message) -> None:
            body = memoryview(message.get("body", b""))
            while len(body) > PIECE_BYTES:
                await send({"type": message["type"], "body": bytes(body[:PIECE_BYTES]), "more_body": True})
                body = body[PIECE_BYTES:]
            await send({**message, "body": bytes(body)} if message["type"] == "http.response.body" else message)

        await app(scope, receive, send_pieces)

    return cutting


class _AdminProtocol(_PatientProtocol):
    """Puts the peer's credentials into ``request.state.peer``."""

    _peer: PeerCredentials

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        connection = transport.get_extra_info("socket")
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self._peer = PeerCredentials(*struct.unpack("3i", credentials))
        beside = sum(isinstance(each, _AdminProtocol) and each._peer.uid == self._peer.uid for each in self.connections)
        super().connection_made(transport)
        self.app_state = {**self.app_state, "peer": self._peer}
        if beside >= CONNECTIONS_PER_USER:
            _warn.warning(
                "connections", "uid %d has %d connections to the admin socket: no more", self._peer.uid, beside
            )
            transport.close()


def _tls_context(certificate: Path, private_key: Path) -> ssl.SSLContext:
    """Python's defaults, with one curve that every client has. Before 3.5, OpenSSL takes finite field groups from
    whoever offers nothing else, without any work for that client: a handshake with ffdhe8192 kept the event loop busy
    for 244 ms, one with P-256 for 1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ecdh_curve("prime256v1")
    context.load_cert_chain(certificate, private_key)
    return context


class _Server(uvicorn.Server):
    """``listening`` is set once connections are taken."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self.tls = tls
        self.listening = asyncio.Event()
        self._due = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the daemon's

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Instead of uvicorn's, which has no word for the times of TLS."""
        assert sockets is not None  # noqa: S101 - HttpServer.start gives one
        config = self.config

        def protocol() -> asyncio.Protocol:
            return config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )

        tls, create = self.tls, asyncio.get_running_loop().create_server
        self.servers = [
            await create(
                protocol,
                sock=each,
                ssl=tls,
                backlog=config.backlog,
                ssl_handshake_timeout=None if tls is None else HANDSHAKE_S,
                ssl_shutdown_timeout=None if tls is None else READ_S,
            )
            for each in sockets
        ]
        self.started = True
        self.listening.set()

    async def main_loop(self) -> None:
        """Instead of uvicorn's, which wakes up ten times a second to see whether it has been stopped."""
        while not await self.on_tick(0):  # which renews the Date that answers have
            timer = asyncio.get_running_loop().call_later(DATE_S, self._due.set)
            await self._due.wait()
            self._due.clear()
            timer.cancel()

    def stop(self) -> None:
        self.should_exit = True
        self._due.set()


class HttpServer:
    """One application on one socket, between ``start()`` and ``stop()``. Owns the socket."""

    def __init__(self, app: ASGIApp, listener: socket.socket, *, tls: tuple[Path, Path] | None = None) -> None:
        """``listener`` is from ``bind_unix`` or ``bind_tcp``. ``tls``: files of a certificate and its private key."""
        self._tls = tls
        self._listener = listener
        self._unix_path, self._inode = _identity(listener)
        self._server = _Server(
            uvicorn.Config(
                _in_pieces(app),
                http=_AdminProtocol if self._unix_path else _PatientProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=GRACE_S,
            ),
            None if tls is None else _tls_context(*tls),
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """For the log: the path, or ``host:port``."""
        if self._unix_path is not None:
            return str(self._unix_path)
        host, port = self._listener.getsockname()[:2]
        return str(SocketName(host, port))

    async def start(self) -> None:
        """Returns once connections are taken. Raises what the server raised if it could not start."""
        self._task = asyncio.create_task(self._server.serve([self._listener]), name=f"http {self.address}")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._task, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._task.done():
            await self._task
            raise RuntimeError(f"the HTTP server on {self.address} ended at its start")

    def reload_certificate(self) -> None:
        """Show the one that is in its files now to whoever connects from here on. Raises ``OSError`` (``ssl.SSLError``
        is one) if it cannot be used; then the old one stays."""
        if self._tls is None or self._server.tls is None:
            return
        context = _tls_context(*self._tls)

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = context

        self._server.tls.sni_callback = choose  # asked without a name too

    async def stop(self) -> None:
        """Takes no more connections, lets running requests finish for ``GRACE_S`` and removes the Unix socket.

        Idempotent."""
        if self._unix_path is not None and _inode(self._unix_path) == self._inode:
            self._unix_path.unlink()  # ours; another process may have replaced it meanwhile
        if self._task is not None:
            self._server.stop()
            task, self._task = self._task, None
            await task
        self._listener.close()


def bind_unix(path: Path, mode: int = 0o660, group: int | None = None) -> socket.socket:
    """A Unix socket at ``path`` with its mode (and owning group, a gid) set before anybody can connect.

    A socket that a dead process left is replaced. Raises ``OSError``: EADDRINUSE when a live one answers there,
    EEXIST when something else than a socket is in the way."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _clear_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(path))
        if group is not None:
            os.chown(path, -1, group)
        path.chmod(mode)  # nobody gets in before: connecting is refused until uvicorn listens
    except OSError:
        listener.close()
        raise
    return listener


def bind_tcp(host: str, port: int, *connections: int) -> SharedListener:
    """A TCP socket on a literal address, with limits: ``connections`` in all and of one source, and the requests of one
    in a minute, if not the usual ones. Raises ``OSError`` naming the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = SharedListener(family, *connections)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener


def _clear_stale_socket(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "is in the way of the socket; remove it or choose another path", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # alive, with a full backlog
    raise OSError(errno.EADDRINUSE, "another cvpnd is listening here; stop it first", str(path))


def _identity(listener: socket.socket) -> tuple[Path | None, int | None]:
    if listener.family != socket.AF_UNIX:
        return None, None
    path = Path(listener.getsockname())
    return path, _inode(path)


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None
