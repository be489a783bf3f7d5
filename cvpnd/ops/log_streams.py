"""Log streams: a file of JSON lines for each, below the log directory. connections.log beside them has everything."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cvpnd.ops.log_file import LogFile, Rotation, rotated, seconds
from cvpnd.ops.log_writer import Entry, LogWriter, Loss, close_together, newest
from cvpnd.ops.logs import RateLimited

_warn = RateLimited(logging.getLogger(__name__), interval_s=60)

IDLE_S = 60.0
"""After which a stream is closed. Longer than a batch takes to be written, so that no two threads write to one file."""
LONGEST_NAME = 150
"""Of a file; a longer stream name ends in a digest."""
MAX_LAST_LINE = 64 * 1024
"""In which a stream's last line is looked for."""
MAX_BYTES_READ = 16 * 1024 * 1024
"""The newest of a stream that are looked through."""


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    """Counted in bytes from the beginning of the stream: grows, and stays when its file is rotated."""
    timestamp: float
    text: str


@dataclass(slots=True)
class _Open:
    file: LogFile
    writer: LogWriter
    written_at: float


class LogStreams:
    """A stream is open, which is a file and a thread, from when it is written to until it has not been for a while.
    Owned by the daemon; used from the event loop, but for ``read``."""

    def __init__(
        self,
        directory: Path,
        rotation: Rotation = Rotation(),  # noqa: B008 - it is frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._rotation = rotation
        self._clock = clock
        self._open: dict[tuple[str, str], _Open] = {}
        self._lost_before = 0
        """By those that are closed."""
        self._loss_before: Loss | None = None

    def write(self, group: str, stream: str, entry: Entry) -> None:
        opened = self._open.get((group, stream))
        if opened is None:
            file = LogFile(self.path(group, stream), self._rotation)
            try:
                writer = LogWriter(str(file.path), file)
            except RuntimeError as error:  # there is no thread to be had, which is nothing to refuse a client for
                self._lost_before += 1
                self._loss_before = Loss(time.time(), str(file.path), str(error))
                _warn.warning("thread", "%s: connection log entries are being lost: %s", file.path, error)
                return
            opened = self._open[group, stream] = _Open(file, writer, 0.0)
        opened.written_at = self._clock()
        opened.writer.write(entry)

    def close_idle(self) -> None:
        """Those of endpoints that are gone, or that nobody uses: there may be any number of them over the years."""
        now = self._clock()
        for key, opened in list(self._open.items()):
            if now >= opened.written_at + IDLE_S and opened.writer.is_idle:
                opened.writer.leave()
                self._lost_before += opened.writer.lost
                self._loss_before = newest((self._loss_before, opened.writer.last_loss))
                del self._open[key]

    def remove_unused(self, before: float, is_over: Callable[[str], bool]) -> None:
        """Files of streams that are over, by their names, and were written to before then last. Blocks: call it from a
        thread."""
        for path in self._directory.glob("*/*.log*"):
            stream, _, _ = path.name.partition(".log")
            with contextlib.suppress(OSError):
                if is_over(stream) and path.stat().st_mtime < before:
                    path.unlink()

    @property
    def waiting(self) -> int:
        return sum(opened.writer.waiting for opened in self._open.values())

    @property
    def lost(self) -> int:
        return self._lost_before + sum(opened.writer.lost for opened in self._open.values())

    @property
    def last_loss(self) -> Loss | None:
        return newest((self._loss_before, *(opened.writer.last_loss for opened in self._open.values())))

    def rotate(self, rotation: Rotation) -> None:
        """From now on so."""
        self._rotation = rotation
        for opened in self._open.values():
            opened.file.rotation = rotation

    def reopen(self) -> None:
        for opened in self._open.values():
            opened.writer.reopen()

    def close(self, others: Sequence[LogWriter] = ()) -> None:
        """And those of ``others``, all in the time of one."""
        close_together([*others, *(opened.writer for opened in self._open.values())])
        self._lost_before += sum(opened.writer.lost for opened in self._open.values())
        self._open.clear()

    def path(self, group: str, stream: str) -> Path:
        return self._directory / _file_name(group) / f"{_file_name(stream)}.log"

    def last(self, group: str, stream: str) -> float | None:
        """When it was written to last. Blocks: call it from a thread."""
        for path, begins, size in reversed(_files(self.path(group, stream))):
            if lines := list(_lines(path, begins, max(0, size - MAX_LAST_LINE))):
                return lines[-1].timestamp
        return None

    def end(self, group: str, stream: str) -> int:
        """Where in it the next line begins. Blocks: call it from a thread."""
        files = _files(self.path(group, stream))
        return files[-1][1] + files[-1][2] if files else 0

    def read(self, group: str, stream: str) -> Iterator[Line]:
        """The newest lines, oldest first. Blocks: call it from a thread."""
        skip, files = 0, _files(self.path(group, stream))
        newest = []
        for path, begins, size in reversed(files):
            newest.append((path, begins))
            skip += size
            if skip >= MAX_BYTES_READ:
                break
        for path, begins in reversed(newest):
            yield from _lines(path, begins, max(0, skip - MAX_BYTES_READ))
            skip = 0


def _files(path: Path) -> list[tuple[Path, int, int]]:
    """Of a stream, oldest first: where in it they begin, and their size. Looked at again if one was rotated away in
    between."""
    while True:
        before = rotated(path)
        found: list[tuple[Path, int, int]] = []
        with contextlib.suppress(FileNotFoundError):
            found = [(each, begins, each.stat().st_size) for begins, each in before]
            begins = found[-1][1] + found[-1][2] if found else 0
            found.append((path, begins, path.stat().st_size))
        if rotated(path) == before:
            return found


def _lines(path: Path, begins: int, skip: int) -> Iterator[Line]:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        position = file.seek(skip)
        if skip:
            position += len(file.readline())  # the rest of one that began before
        for raw in file:
            if raw.endswith(b"\n"):
                text = raw.decode(errors="replace").rstrip("\n")
                yield Line(begins + position, _timestamp(text), text)
            position += len(raw)


def _timestamp(text: str) -> float:
    """When it was written, to the second."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return seconds(json.loads(text)["connection-last-update-time"])
    return 0.0


def _file_name(name: str) -> str:
    """One that no slash and no dot can lead elsewhere."""
    plain = quote(name, safe="").replace(".", "%2E")
    if len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
