"""What a gateway answers, whoever asks and however: kept in a file of the lab, in which ``canaries`` looks."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

from helpers.netns import Namespace


class Answers:
    """Everything that is asked, and what came of it, in ``directory``."""

    def __init__(self, namespace: Namespace, admin: Path, directory: Path) -> None:
        self._namespace = namespace
        self._admin = admin
        self._file = (directory / "answers").open("wb")

    def ask(
        self, to: tuple[str, int] | None, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, bytes]:
        """``to`` None: the admin socket. A body of bytes goes as it is, any other as JSON."""
        connection = http.client.HTTPConnection(*(to or ("admin", 0)), timeout=10)
        if to is None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self._admin))
        else:
            connection.sock = self._namespace.connect(to)
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, raw, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        said = response.read()
        connection.close()
        self.keep(f"{method}: {response.status}\n{response.headers}".encode() + said)
        return response.status, said

    def keep(self, said: bytes) -> None:
        self._file.write(said + b"\n")
        self._file.flush()
