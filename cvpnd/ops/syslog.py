"""The connection log at a syslog daemon: each entry one message with its JSON as text, facility authpriv.

To /dev/log in the form that the C library's syslog() sends and every daemon reads there; to another host by RFC 5424,
over UDP (RFC 5426) or TCP with octet counting (RFC 6587). The MSGID is the kind of entry."""

from __future__ import annotations

import json
import os
import platform
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from cvpnd.config import SyslogTarget
from cvpnd.ops.journal import kind, priority
from cvpnd.ops.log_socket import connected, send_each
from cvpnd.ops.log_writer import Entry

SOCKET = Path("/dev/log")
JOURNAL = Path("/run/systemd/journal")
AUTHPRIV = 10
CONNECT_S = 3.0
SEND_S = 60.0
"""For one entry: a full buffer is writable again only once a good part of it is gone, which takes a slow reader a while
(38 s of 6.8 MB at 107 kB/s)."""
RETRY_S = 5.0
"""After a daemon could not be reached, entries are lost at once for so long: waiting for each would fill the queue."""


def is_the_journal(target: SyslogTarget) -> bool:
    """Where systemd runs, the journal listens at /dev/log itself, and gives a syslog daemon what it has."""
    return target.transport == "local" and SOCKET.resolve().is_relative_to(JOURNAL)


class Syslog:
    """A ``Destination``."""

    def __init__(self, target: SyslogTarget, path: Path = SOCKET) -> None:
        self._target = target
        self._path = path
        self._host = platform.node() or "-"
        self._socket: socket.socket | None = None
        self._retry_at = 0.0

    def append(self, entries: Sequence[Entry]) -> None:
        send_each(entries, self._send)

    def _message(self, entry: Entry) -> bytes:
        value, text = AUTHPRIV * 8 + priority(entry), json.dumps(entry)
        if self._target.transport == "local":
            return f"<{value}>{time.strftime('%b %e %H:%M:%S')} cvpnd[{os.getpid()}]: {text}".encode()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        message = f"<{value}>1 {now} {self._host} cvpnd {os.getpid()} {kind(entry)} - {text}".encode()
        return message if self._target.transport == "udp" else b"%d %b" % (len(message), message)

    def _send(self, entry: Entry) -> None:
        message = self._message(entry)
        if self._socket is not None and self._is_over():
            self.close()
        if self._socket is None:
            self._connect()
        assert self._socket is not None  # noqa: S101 - made just now
        try:
            self._send_whole(message)
        except ConnectionError:  # it was restarted
            self._connect()
            self._send_whole(message)
            if self._target.transport == "udp":  # of one before, which nobody took
                raise

    def _send_whole(self, message: bytes) -> None:
        """Closes the socket if it cannot: half of it may be on its way, behind which no other could be read."""
        assert self._socket is not None  # noqa: S101 - the caller's promise
        try:
            self._socket.sendall(message)
        except OSError:
            self.close()
            raise

    def _is_over(self) -> bool:
        """The other side of a TCP connection has closed it: what is sent into that is lost without an error."""
        assert self._socket is not None  # noqa: S101 - the caller's promise
        if self._target.transport != "tcp":
            return False
        there = select.poll()  # a recv, also with MSG_DONTWAIT, waits for as long as the socket's timeout says
        there.register(self._socket, select.POLLIN)
        try:
            return bool(there.poll(0)) and self._socket.recv(4096) == b""
        except OSError:
            return True

    def _connect(self) -> None:
        if time.monotonic() < self._retry_at:
            raise OSError("it could not be reached just now")
        try:
            self._socket = self._connected()
        except OSError:
            self._retry_at = time.monotonic() + RETRY_S
            raise

    def _connected(self) -> socket.socket:
        target = self._target
        if target.transport == "local":
            return connected(socket.AF_UNIX, socket.SOCK_DGRAM, str(self._path), CONNECT_S)
        family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
        form = socket.SOCK_STREAM if target.transport == "tcp" else socket.SOCK_DGRAM
        made = connected(family, form, (target.host, target.port), CONNECT_S)
        made.settimeout(SEND_S)
        return made

    def reopen(self) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
