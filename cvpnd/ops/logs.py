"""Where log records go: standard error, in the form that the reader there wants.

Under systemd every line carries its priority (``<6>``, sd-daemon(3)) and no time, which the journal has; elsewhere a
person reads time and level; ``json`` is for collectors. Text from outside (names, peer info, error texts of others) is
part of many messages, so control characters never reach the terminal or forge a second line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal

from cvpnd.ops.standard_error import StandardError

Format = Literal["auto", "text", "journal", "json"]

# syslog priorities by logging level, highest first (sd-daemon(3))
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_ESCAPES |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
# line separators and directional marks: harmless in a file, misleading on a screen
_ESCAPES |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x200E, 0x2010), *range(0x202A, 0x202F))}
_ESCAPES |= {code: f"\\u{code:04x}" for code in range(0x2066, 0x206A)}


def escape_controls(text: str) -> str:
    """``text`` on one line and without anything a terminal would obey."""
    return text.translate(_ESCAPES).encode("utf-8", "backslashreplace").decode()


def set_up_logging(level: str = "info", form: Format = "auto") -> None:
    """Send all records to standard error. ``auto`` is ``journal`` when that is the journal's, else ``text``.

    May be called again (reload with another level). Raises ``ValueError`` for an unknown level."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    if form == "auto":
        form = "journal" if stderr_is_the_journal() else "text"
    handler = next((each for each in root.handlers if isinstance(each, StandardError)), None)
    if handler is None:
        handler = StandardError()
        root.addHandler(handler)
    handler.setFormatter({"text": TextFormatter, "journal": JournalFormatter, "json": JsonFormatter}[form]())
    # these narrate every step at info
    for chatty in ("uvicorn", "alembic", "sqlalchemy", "asyncio", "pyroute2", "xmlschema"):
        logging.getLogger(chatty).setLevel(max(root.level, logging.WARNING))


def stderr_is_the_journal() -> bool:
    """systemd names the stream's device and inode in JOURNAL_STREAM, so a redirected stderr is told apart."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Formatter(logging.Formatter):
    def message_lines(self, record: logging.LogRecord) -> list[str]:
        """The message on one line, then the traceback's lines if there is one."""
        lines = [escape_controls(record.getMessage())]
        if record.exc_info:
            lines += [escape_controls(line) for line in self.formatException(record.exc_info).splitlines()]
        return lines


class TextFormatter(_Formatter):
    """For a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        head = time.strftime("%H:%M:%S", time.localtime(record.created)) + f" {record.levelname.lower():8}"
        first, *rest = self.message_lines(record)
        return "\n".join([f"{head} {first}", *(" " * 4 + line for line in rest)])


class JournalFormatter(_Formatter):
    """For the journal: a priority on every line."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in self.message_lines(record))


class JsonFormatter(_Formatter):
    """For log collectors: an object on each line."""

    def format(self, record: logging.LogRecord) -> str:
        first, *rest = self.message_lines(record)
        entry = {"time": record.created, "level": record.levelname.lower(), "logger": record.name, "message": first}
        if rest:
            entry["traceback"] = "\n".join(rest)
        return json.dumps(entry)


class RateLimited:
    """Warnings that outsiders can cause, one of a kind in an interval, with the number of those held back.

    ``key`` is the kind: a word of ours, never text from outside, so the memory is bounded by the code."""

    def __init__(
        self, logger: logging.Logger, *, interval_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._next: dict[str, tuple[float, int]] = {}
        """Key -> (when the next one may be written, how many were held back)."""

    def warning(self, key: str, message: str, *arguments: object, exc_info: bool = False) -> None:
        now = self._clock()
        with self._lock:
            due, held_back = self._next.get(key, (now, 0))
            if now < due:
                self._next[key] = (due, held_back + 1)
                return
            self._next[key] = (now + self._interval_s, 0)
        if held_back:
            message += " (and %d more like it)"
            arguments += (held_back,)
        self._logger.warning(message, *arguments, exc_info=exc_info)
