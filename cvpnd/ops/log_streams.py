"""Log streams: a file of JSON lines for each, below the log directory. connections.log beside them has everything."""

from __future__ import annotations

import calendar
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cvpnd.ops.connection_log import ConnectionLog
from cvpnd.ops.logs import RateLimited

LONGEST_NAME = 150
"""Of a file; a longer stream name ends in a digest."""
MAX_BYTES_READ = 16 * 1024 * 1024
"""The newest of a stream that are looked through."""

_log = logging.getLogger(__name__)
_warn = RateLimited(_log, interval_s=60)


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    """Counted in bytes from the beginning of the file: grows, and stays."""
    timestamp: float
    text: str


class LogStreams:
    """Opened when first written to. Owned by the daemon; used from the event loop, but for ``read``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[tuple[str, str], ConnectionLog] = {}

    def write(self, group: str, stream: str, entry: dict[str, str]) -> None:
        log = self._open.get((group, stream))
        if log is None:
            try:
                log = ConnectionLog(self.path(group, stream))
            except OSError as error:
                _warn.warning("open", "%s: cannot be written: %s", self.path(group, stream), error.strerror)
                return
            self._open[group, stream] = log
        log.write(entry)

    @property
    def lost(self) -> int:
        return sum(log.lost for log in self._open.values())

    def reopen(self) -> None:
        for log in self._open.values():
            log.reopen()

    def close(self) -> None:
        for log in self._open.values():
            log.close()
        self._open.clear()

    def path(self, group: str, stream: str) -> Path:
        return self._directory / _file_name(group) / f"{_file_name(stream)}.log"

    def read(self, group: str, stream: str) -> Iterator[Line]:
        """The newest lines, oldest first. Blocks: call it from a thread."""
        with contextlib.suppress(FileNotFoundError), self.path(group, stream).open("rb") as file:
            size = file.seek(0, 2)
            position = max(0, size - MAX_BYTES_READ)
            file.seek(position)
            if position:
                position += len(file.readline())  # the rest of one that began before
            for raw in file:
                if raw.endswith(b"\n"):
                    text = raw.decode(errors="replace").rstrip("\n")
                    yield Line(position, _timestamp(text), text)
                position += len(raw)


def _timestamp(text: str) -> float:
    """When it was written, to the second."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        moment = time.strptime(json.loads(text)["connection-last-update-time"], "%Y-%m-%d %H:%M:%S")
        return float(calendar.timegm(moment))
    return 0.0


def _file_name(name: str) -> str:
    """One that no slash and no dot can lead elsewhere."""
    plain = quote(name, safe="").replace(".", "%2E")
    if len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
