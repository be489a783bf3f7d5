"""Sockets on which an answer is whole within a time and a size, however many pieces it comes in.

``ldap3`` reads until a message is complete and ``http.client`` until a line is, and both wait anew for each piece. A
server that sends a byte now and then, or whoever sits between before TLS is up, would keep a thread for ever, and the
next server would never be asked."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

MOST_ANSWER_BYTES = 16 << 20
"""To one request. Two hundred groups with long names are a hundredth of it."""


class _Timely:
    _within_s = 0.0
    _until = 0.0
    _left_bytes = 0

    def answer_within(self, within_s: float) -> None:
        """From each request on, and from now."""
        self._within_s = within_s
        self._begin()

    def _begin(self) -> None:
        self._until = time.monotonic() + self._within_s
        self._left_bytes = MOST_ANSWER_BYTES
        self.settimeout(self._within_s)  # type: ignore[attr-defined]

    def sendall(self, *arguments: Any) -> None:
        if self._within_s:
            self._begin()
        super().sendall(*arguments)  # type: ignore[misc]

    def recv(self, *arguments: Any) -> bytes:
        self._wait_no_longer()
        data = bytes(super().recv(*arguments))  # type: ignore[misc]
        self._left_bytes -= len(data)
        return data

    def recv_into(self, *arguments: Any) -> int:
        """As ``http.client`` reads, by way of ``makefile``."""
        self._wait_no_longer()
        received = int(super().recv_into(*arguments))  # type: ignore[misc]
        self._left_bytes -= received
        return received

    def _wait_no_longer(self) -> None:
        if not self._within_s:
            return
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"the answer is not complete within {self._within_s:g} s")
        if self._left_bytes <= 0:
            raise OSError(f"the answer is longer than {MOST_ANSWER_BYTES} bytes")
        self.settimeout(left_s)  # type: ignore[attr-defined]


class TimelySocket(_Timely, socket.socket):
    @classmethod
    def of(cls, plain: socket.socket, within_s: float) -> TimelySocket:
        """In the place of ``plain``, which is none any more."""
        timely = cls(plain.family, plain.type, plain.proto, fileno=plain.detach())
        timely.answer_within(within_s)
        return timely


class TimelyTls(_Timely, ssl.SSLSocket):
    """What a context makes whose ``sslsocket_class`` it is."""
