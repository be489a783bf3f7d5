"""A listening TCP socket of which each source gets its share.

Connections are counted where they are accepted, so one that never gets through its TLS handshake, or says nothing
behind it, counts as well. Those beyond the share are closed at once, as are those that would take the last files: where
there is none, asyncio tries 64 times in a row for each listener, with a traceback each time, and does nothing else.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from typing import Any

from cvpnd.ops.logs import RateLimited
from cvpnd.server.admission import prefixes
from cvpnd.server.sockets import FILES_KEPT_FREE, takes_one_of_the_last_files

log = logging.getLogger(__name__)
_warn = RateLimited(log, interval_s=10)

CONNECTIONS = 256
"""At a time, in all; administrators are few."""
CONNECTIONS_PER_SOURCE = 32
"""Of one IPv4 address or IPv6 /64: tools keep ten open for each service, and several people may share an address."""
MOST_AT_ONCE = 64
"""Refused in a row before anything else gets its turn."""


class SharedListener(socket.socket):
    """For asyncio's own event loop, which calls ``accept``."""

    refused = 0
    """Connections, so far."""
    files_kept_free = FILES_KEPT_FREE

    def __init__(
        self, family: socket.AddressFamily, most: int | None = None, most_of_source: int | None = None
    ) -> None:
        # with the protocol by name: only then asyncio sets TCP_NODELAY on what is accepted, without which an answer in
        # two pieces waits for the acknowledgement that its reader delays (40 ms for each request of boto3)
        super().__init__(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
        self._most = CONNECTIONS if most is None else most
        self._most_of_source = CONNECTIONS_PER_SOURCE if most_of_source is None else most_of_source
        self._open: Counter[str] = Counter()

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises ``BlockingIOError`` while nobody waits who may come in."""
        for _ in range(MOST_AT_ONCE):
            accepted, address = super().accept()
            host = str(address[0])
            source, _ = prefixes(host.partition("%")[0])
            if takes_one_of_the_last_files(accepted, self.files_kept_free):
                accepted.close()
                self.refused += 1
                _warn.warning(
                    "no-files", "no room for connections over HTTP: the limit of open files is reached (LimitNOFILE)"
                )
                continue
            if self._open[source] < self._most_of_source and self._open.total() < self._most:
                self._open[source] += 1
                return _Connection(accepted, self, source), address
            accepted.close()
            self.refused += 1
            _warn.warning(
                "connections", "%s has %d of %d open connections: no more", host, self._open[source], self._open.total()
            )
        raise BlockingIOError

    def forget(self, source: str) -> None:
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]


class _Connection(socket.socket):
    """Tells its listener when it is closed."""

    def __init__(self, accepted: socket.socket, listener: SharedListener, source: str) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._listener: SharedListener | None = listener
        self._source = source

    def close(self) -> None:
        super().close()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.forget(self._source)
