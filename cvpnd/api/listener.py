"""A listening TCP socket of which each source gets its share.

Connections are counted where they are accepted, so one that never gets through its TLS handshake, or says nothing
behind it, counts as well. Those beyond the share are closed at once; where all places are taken, the oldest of whoever
holds the most gives way (``server.strangers``). So are those that would take the last files: where there is none,
asyncio tries 64 times in a row for each listener, with a traceback each time, and does nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import Any

from cvpnd.ops.logs import RateLimited
from cvpnd.server.admission import PerMinute, prefixes
from cvpnd.server.sockets import FILES_KEPT_FREE, takes_one_of_the_last_files
from cvpnd.server.strangers import Strangers

log = logging.getLogger(__name__)
_warn = RateLimited(log, interval_s=10)

CONNECTIONS = 256
"""At a time, in all; administrators are few."""
CONNECTIONS_PER_SOURCE = 32
"""Of one IPv4 address or IPv6 /64: tools keep ten open for each service, and several people may share an address."""
CONNECTIONS_PER_SOURCE_PER_MIN = 1200
CONNECTIONS_PER_NETWORK_PER_MIN = 4800
"""Begun; each may cost us a TLS handshake, 1.5 ms in which nothing else is done, and a program that lies a hello."""
UNSENT_BYTES = 64 * 1024
"""That the kernel keeps of an answer, beside what is on its way: it would take 4 MB for whoever reads nothing."""
MOST_AT_ONCE = 64
"""Refused in a row before anything else gets its turn."""


class SharedListener(socket.socket):
    """For asyncio's own event loop, which calls ``accept``."""

    refused = 0
    """Connections, so far; with those that gave way."""
    files_kept_free = FILES_KEPT_FREE

    def __init__(
        self,
        family: socket.AddressFamily,
        most: int | None = None,
        most_of_source: int | None = None,
        requests_per_source_per_min: int = 0,
    ) -> None:
        """``requests_per_source_per_min``: that may be made; a proxy may begin a connection for each."""
        # with the protocol by name: only then asyncio sets TCP_NODELAY on what is accepted, without which an answer in
        # two pieces waits for the acknowledgement that its reader delays (40 ms for each request of boto3)
        super().__init__(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)  # what is accepted inherits it
        self._most = CONNECTIONS if most is None else most
        self._most_of_source = CONNECTIONS_PER_SOURCE if most_of_source is None else most_of_source
        self._open: Strangers[_Connection] = Strangers()
        self._making_room = False
        """One has just given way, and is closed when the event loop turns."""
        self._begun = PerMinute()
        self._per_source_per_min = max(CONNECTIONS_PER_SOURCE_PER_MIN, requests_per_source_per_min)
        self._per_network_per_min = max(CONNECTIONS_PER_NETWORK_PER_MIN, 4 * requests_per_source_per_min)

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises ``BlockingIOError`` while nobody waits who may come in, or whoever gave way has not left yet: asyncio
        takes 64 in a row, who would all be there beside those whose places they got."""
        if self._making_room:
            raise BlockingIOError
        for _ in range(MOST_AT_ONCE):
            accepted, address = super().accept()
            host = str(address[0])
            source, network = prefixes(host.partition("%")[0])
            if takes_one_of_the_last_files(accepted, self.files_kept_free):
                accepted.close()
                self.refused += 1
                _warn.warning(
                    "no-files", "no room for connections over HTTP: the limit of open files is reached (LimitNOFILE)"
                )
                continue
            if why := self._refusal(source, network):
                accepted.close()
                self.refused += 1
                _warn.warning("connections", "%s: no more connections, %s", host, why)
                continue
            connection = _Connection(accepted, self._open)
            self._open.enter(connection, source, network)
            return connection, address
        raise BlockingIOError

    def _refusal(self, source: str, network: str) -> str:
        """Empty: there is room for one from there."""
        has, now = self._open.of_source(source, network), time.monotonic()
        if has >= self._most_of_source:
            return f"it has {has} of {len(self._open)} that are open"
        if not (
            self._begun.take(source, self._per_source_per_min, now)
            and self._begun.take(network, self._per_network_per_min, now)
        ):
            return "it begins them too fast"
        if len(self._open) < self._most:
            return ""
        oldest = self._open.giving_way(source, network, self._most)
        if oldest is None:
            return f"all {self._most} are taken"
        oldest.give_way()
        self._making_room = True
        asyncio.get_running_loop().call_soon(self._room_is_made)
        self.refused += 1
        _warn.warning("gave-way", "all %d places for connections are taken: the oldest of many gave way", self._most)
        return ""

    def _room_is_made(self) -> None:
        self._making_room = False


class _Connection(socket.socket):
    """Leaves its place when it is closed."""

    def __init__(self, accepted: socket.socket, places: Strangers[_Connection]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._places = places

    def give_way(self) -> None:
        """Its transport reads or writes that it is over, and closes it."""
        self._places.leave(self)
        with contextlib.suppress(OSError):  # it has gone meanwhile
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        self._places.leave(self)
