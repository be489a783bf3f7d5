"""Whoever sits at a stock client: its management interface, on a Unix socket that the client connects to."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType


class Management:
    def __init__(self, path: Path) -> None:
        self.options = ("--management", str(path), "unix", "--management-client")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._listening.setblocking(False)
        self._client: socket.socket | None = None
        self._heard = ""

    def __enter__(self) -> Management:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listening.close()
        if self._client is not None:
            self._client.close()

    def heard(self) -> str:
        """All that the client has said so far."""
        try:
            if self._client is None:
                self._client, _ = self._listening.accept()
                self._client.setblocking(False)
            while data := self._client.recv(65536):
                self._heard += data.decode()
        except BlockingIOError:
            pass
        return self._heard

    def say(self, line: str) -> None:
        assert self._client is not None, "not connected yet"
        self._client.sendall(f"{line}\n".encode())
