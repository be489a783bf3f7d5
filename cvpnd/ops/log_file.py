"""A file of JSON lines, rotated by size and age.

What is rotated away is called like the file, a dot, and the number of bytes that were written before its first one, in
fifteen digits. So every line of a log keeps its position for as long as there is anything of it, and names sort by
age. The program that has the name for itself may also be ``logrotate``, which then sends SIGHUP."""

from __future__ import annotations

import calendar
import contextlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvpnd.ops.log_writer import EntriesLost, Entry
from cvpnd.ops.logs import RateLimited

_log = logging.getLogger(__name__)
_warn = RateLimited(_log, interval_s=60)

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
POSITION_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Rotation:
    """0 = never, for the first two."""

    bytes: int = 0
    age_s: float = 0
    keep: int = 10


class LogFile:
    """A ``Destination``. Mode 0640, its directory 0750 if it has to be made."""

    def __init__(self, path: Path, rotation: Rotation = Rotation()) -> None:
        """Opened when first written to, or by ``open``."""
        self.path = path
        self.rotation = rotation
        """May be replaced at any time, from any thread."""
        self._file: int | None = None
        self._torn = False
        """It ends in the middle of a line: a crash or a full disk left it so."""
        self._begun_at = 0.0

    def open(self) -> None:
        """Raises ``OSError``."""
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._use(_open(self.path))

    def _use(self, file: int) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = file
        self._torn = _is_torn(file)
        self._begun_at = _begun_at(file)

    def append(self, entries: Sequence[Entry]) -> None:
        # ASCII only: a name with terminal controls or directional marks in it arrives escaped
        data = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        try:
            if self._file is None or not os.fstat(self._file).st_nlink:  # somebody has removed it, or its directory
                self.open()
            self._rotate_if_due(len(data))
        except OSError as error:
            raise EntriesLost(len(entries), error.strerror or str(error)) from error
        if self._torn:  # half a line is there: end it, so that the next one can be read
            data = b"\n" + data
        self._write(data, len(entries))

    def _write(self, data: bytes, entries: int) -> None:
        assert self._file is not None  # noqa: S101 - opened by the caller
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
            self._torn = False
        except OSError as error:
            if written:
                self._torn = data[written - 1 : written] != b"\n"
            whole_lines = data[:written].count(b"\n") - (1 if written and data.startswith(b"\n") else 0)
            raise EntriesLost(entries - whole_lines, error.strerror or str(error)) from error

    def reopen(self) -> None:
        try:
            self.open()
        except OSError as error:
            _warn.warning("reopen", "%s: cannot be reopened (%s); still writing to the old file", self.path, error)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _rotate_if_due(self, coming: int) -> None:
        assert self._file is not None  # noqa: S101 - opened by the caller
        status, rotation = os.fstat(self._file), self.rotation
        if not stat.S_ISREG(status.st_mode):
            return
        if not status.st_size:  # somebody may have emptied it (copytruncate)
            self._begun_at, self._torn = time.time(), False
            return
        too_large = rotation.bytes and status.st_size + coming > rotation.bytes
        too_old = rotation.age_s and time.time() - self._begun_at >= rotation.age_s
        if too_large or too_old:
            try:
                self._rotate(rotation.keep)
            except OSError as error:
                _warn.warning("rotate", "%s: cannot be rotated (%s); it grows on", self.path, error)

    def _rotate(self, keep: int) -> None:
        """The new file is made first: if the disk has no room for it, nothing has changed."""
        fresh = self.path.with_name(f"{self.path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        file = _open(fresh)
        try:
            position = next_position(self.path)
            self.path.rename(self.path.with_name(f"{self.path.name}.{position:0{POSITION_DIGITS}}"))
            fresh.rename(self.path)
        except OSError:
            os.close(file)
            raise
        self._use(file)
        for _, old in rotated(self.path)[:-keep]:
            old.unlink(missing_ok=True)


def rotated(path: Path) -> list[tuple[int, Path]]:
    """What was rotated away and is still there, oldest first, with the position of its first byte."""
    name = re.compile(re.escape(path.name) + rf"\.(\d{{{POSITION_DIGITS}}})")
    found = []
    with contextlib.suppress(FileNotFoundError):
        for each in path.parent.iterdir():
            if match := name.fullmatch(each.name):
                found.append((int(match[1]), each))
    return sorted(found)


def next_position(path: Path) -> int:
    """Of the first byte in the file itself."""
    for position, last in reversed(rotated(path)):
        with contextlib.suppress(FileNotFoundError):
            return position + last.stat().st_size
    return 0


def _open(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and not status.st_size:
            os.fchmod(file, 0o640)  # whatever the umask was
    except OSError:
        os.close(file)
        raise
    return file


def _is_torn(file: int) -> bool:
    status = os.fstat(file)
    return stat.S_ISREG(status.st_mode) and status.st_size > 0 and os.pread(file, 1, status.st_size - 1) != b"\n"


def _begun_at(file: int) -> float:
    """When its first line was written, as that says; else now."""
    if stat.S_ISREG(os.fstat(file).st_mode):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            line = os.pread(file, 65536, 0).partition(b"\n")[0]
            written = json.loads(line)["connection-last-update-time"]
            return seconds(written)
    return time.time()


def seconds(utc: str) -> float:
    """Since the epoch. Raises ``ValueError`` or ``TypeError``."""
    return float(calendar.timegm(time.strptime(utc, TIME_FORMAT)))
