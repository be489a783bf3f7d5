"""One netlink socket that tells of changes, read a little at a time: whoever changes thousands of things in a second
holds neither the event loop nor the daemon's memory. Of what is more than it reads only that it was is told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Collection
from types import TracebackType

SETTLE_S = 0.3
"""What changes does so several times in a row."""
MOST_SETTLE_S = 5.0
"""Between two looks at everything while it goes on."""
AT_ONCE = 64
"""Datagrams in one turn of the loop: a millisecond."""
BETWEEN_LOOKS = 2048
"""Datagrams, after which no more are read: a look at everything is cheaper."""
_BUFFER = 1 << 20
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1


class Notices:
    """On the event loop's thread, as a context manager."""

    def __init__(
        self,
        protocol: int,
        groups: Collection[int],
        note: Callable[[bytes], bool],
        settle_s: tuple[float, float] = (SETTLE_S, MOST_SETTLE_S),
    ) -> None:
        """``note`` gets each datagram and says whether it matters; it never raises. ``settle_s``: least and most."""
        self._protocol, self._groups, self._note = protocol, groups, note
        self._least_settle_s, self._most_settle_s = settle_s
        self._settle_s = self._least_settle_s
        self._told = asyncio.Event()
        self._lost = False
        self._read_since = 0
        self._socket: socket.socket | None = None

    def __enter__(self) -> Notices:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Until something that matters was told and has settled, or for ``timeout_s``. True: more has happened than was
        told, so that everything has to be looked at."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._told.wait()
        if self._told.is_set():
            await asyncio.sleep(self._settle_s)
        self._told.clear()
        lost, self._lost, self._read_since = self._lost, False, 0
        settled_s, self._settle_s = self._settle_s, self._least_settle_s
        if lost:
            self._settle_s = min(max(SETTLE_S, 2 * settled_s), self._most_settle_s)
            self._close()
            self._open()  # without what still waits in it: from here on all is told that comes after the look
        return lost

    def _open(self) -> None:
        """Where that cannot be (files are short), everything has to be looked at until it can."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, self._protocol)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((0, 0))
            for group in self._groups:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)  # bind() knows the first 32 alone
            asyncio.get_running_loop().add_reader(self._socket, self._read)
        except OSError:
            self._close()
            self._lost = True
            self._told.set()

    def _close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        assert self._socket is not None  # noqa: S101 - it is its reader
        try:
            for _ in range(AT_ONCE):
                notice = self._socket.recv(1 << 16)
                self._read_since += 1
                if self._note(notice):
                    self._told.set()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._give_up_reading()
        if self._read_since >= BETWEEN_LOOKS:
            self._give_up_reading()

    def _give_up_reading(self) -> None:
        """Until the next look."""
        assert self._socket is not None  # noqa: S101 - it is its reader
        asyncio.get_running_loop().remove_reader(self._socket)
        self._lost = True
        self._told.set()
