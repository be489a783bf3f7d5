"""What goes on coming from a target network by itself, asked for once: a video, a log, a game."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType

from helpers.netns import Namespace

INTERVAL_S = 0.01
QUIET_S = 0.5
"""So long without a packet is an end of the stream."""


class Stream:
    """UDP from ``source``, an address of the namespace ``target``, to the namespace ``client``, which asks for it."""

    def __init__(self, client: Namespace, target: Namespace, source: str, port: int = 5004) -> None:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        self._at = (source, port)
        self._sender = target.socket(family, socket.SOCK_DGRAM)
        self._sender.bind(self._at)
        self._sender.settimeout(5)
        self._receiver = client.socket(family, socket.SOCK_DGRAM)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.asked_from = ""
        """Who asks, as the target sees it."""

    def __enter__(self) -> Stream:
        self.ask()
        to = self._sender.recvfrom(100)[1]
        self.asked_from, self._to = to[0], to
        self._thread.start()
        return self

    def ask(self) -> None:
        self._receiver.sendto(b"play", self._at)

    def _send(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            with contextlib.suppress(OSError):  # that the client cannot be reached is what it is told then
                self._sender.sendto(b"frame", self._to)

    def comes(self) -> bool:
        """Whether anything does that is not on its way already."""
        time.sleep(0.05)
        self._receiver.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._receiver.recv(100)
        self._receiver.settimeout(QUIET_S)
        try:
            return self._receiver.recv(100) == b"frame"
        except TimeoutError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._sender.close()
        self._receiver.close()
