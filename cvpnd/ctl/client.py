"""Requests to the daemon over its admin socket, with the standard library's HTTP: it starts in a tenth of the time."""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from cvpnd.ops.logs import escape_controls

DEFAULT_SOCKET = "/run/cvpnd/admin.sock"
TIMEOUT_S = 60
"""A reload with a large revocation list may take seconds."""

MOST_PAUSE_S = 2.0
"""Between two tries at a daemon that is away."""

T = TypeVar("T")


class Refused(Exception):
    """The daemon said no; the text is its reason and the fix."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{escape_controls(message)} ({escape_controls(code)})")


class Unreachable(Exception):
    """Nobody who could say yes or no answered."""


class Silent(Unreachable):
    """Somebody is there, and does not answer the request."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("cvpnd", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def listener(self) -> int:
        """The process at the other end, as the kernel says it is called here; 0: it has no name here."""
        credentials = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        try:
            is_ours = Path("/proc/self").readlink().name == str(os.getpid())
        except OSError:
            return 0
        return int(pid) if is_ours else 0


class Client:
    """One daemon. Every call raises ``Refused`` or ``Unreachable``."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self.daemon_pid = 0
        """Of who took the last request. In another PID namespace, as of a container, it says another number of itself;
        0: it cannot be seen from here, or took none."""

    def get(self, path: str, **query: object) -> dict[str, Any]:
        return self._request("GET", path, query)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        return self._request("POST", path, {}, body)

    def put(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        return self._request("PUT", path, {}, body)

    def patch(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        return self._request("PATCH", path, {}, body)

    def delete(self, path: str, **query: object) -> dict[str, Any]:
        return self._request("DELETE", path, query)

    def endpoint_names(self) -> dict[str, str]:
        """Endpoint id -> name."""
        return {endpoint["endpoint_id"]: endpoint["name"] for endpoint in self.get("/endpoints")["endpoints"]}

    def _request(
        self, method: str, path: str, query: Mapping[str, object], body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        given = {name: value for name, value in query.items() if value is not None}
        target = f"/v1{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        connection = _UnixConnection(self._path, self._timeout_s)
        try:
            if body is None:
                connection.request(method, target)
            else:
                connection.request(method, target, json.dumps(body), {"Content-Type": "application/json"})
            self.daemon_pid = connection.listener()
            response = connection.getresponse()
            document = json.loads(response.read())
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise Unreachable(
                f"no cvpnd is listening on {self._path}; start it with 'systemctl start cvpnd' or 'cvpnd run --config"
                " FILE', or name another socket with --socket"
            ) from None
        except PermissionError:
            raise Unreachable(
                f"{self._path}: no permission; run this with sudo, or join the group that owns the socket"
            ) from None
        except TimeoutError:
            raise Silent(
                f"cvpnd on {self._path} has not answered for {self._timeout_s:g} s; its log may say why"
            ) from None
        except BlockingIOError:  # of connect(2), at once
            raise Silent(f"cvpnd on {self._path} leaves many requests unanswered; its log may say why") from None
        except (ConnectionResetError, BrokenPipeError):  # which http.client.RemoteDisconnected is too
            raise Unreachable(f"cvpnd on {self._path} hung up without an answer; its log may say why") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"{self._path}: no sensible answer from cvpnd: {error or type(error).__name__}") from None
        finally:
            connection.close()
        if response.status >= 400:
            refusal = document.get("error", {})
            raise Refused(refusal.get("code", str(response.status)), refusal.get("message", response.reason))
        return dict(document)


def patiently(ask: Callable[[], T], pause_s: float) -> T:
    """What is answered, by a daemon that is restarted meanwhile too: that it is waited for is said once."""
    told = False
    while True:
        try:
            return ask()
        except Unreachable as failure:
            if not told:
                sys.stderr.write(f"cvpnctl: {failure}; waiting for it\n")
            told = True
        time.sleep(min(pause_s, MOST_PAUSE_S))


def segment(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="")
