"""Standard error, written by a thread: whoever logs does not wait for it.

A journal that hangs with its disk, or a pipe that nobody reads, would hold the event loop with the next line, and every
login and change with it, until the watchdog ends a daemon to which nothing is wrong."""

from __future__ import annotations

import logging
import os
import queue
import select
import threading

MOST_WAITING = 4 * 1024 * 1024
"""Bytes, besides what the kernel holds: minutes of the busiest daemon."""
PATIENCE_S = 2.0
"""At the end, with one that takes nothing."""
STANDARD_ERROR = 2
NEWLINE = ord("\n")


class StandardError(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._waiting: queue.SimpleQueue[tuple[bytes, int] | threading.Event] = queue.SimpleQueue()
        """What is to be written, and how many records are lost if it is not; who waits until all before it is."""
        # Each number has one writer, and no lock: a finaliser may log wherever this thread is, also within one
        self._put_bytes = 0
        """Under the handler's lock."""
        self._done_bytes = 0
        """Of these, by the thread."""
        self._refused = 0
        """Records that were not put, as there was no room. Under the handler's lock."""
        self._failed = 0
        """Records that were put, and that standard error did not take. By the thread."""
        self._told = 0
        """How many of both were put to be told. Under the handler's lock."""
        self._torn = False
        """It ends in the middle of a line. The thread's."""
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._put_bytes - self._done_bytes >= MOST_WAITING:
            self._refused += 1
            return
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        lost = self._refused + self._failed - self._told
        self._told += lost
        if lost:
            told = {"levelno": logging.WARNING, "levelname": "WARNING", "name": __name__, "args": (lost,)}
            told["msg"] = "%d records of this log are lost here: standard error did not take them"
            text = f"{self.format(logging.makeLogRecord(told))}\n{text}"
        data = f"{text}\n".encode()
        size = len(data)
        self._put_bytes += size
        self._waiting.put((data, lost + 1))

    def flush(self) -> None:
        """Called by ``logging`` at the end of the interpreter."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(PATIENCE_S)

    def _run(self) -> None:
        while True:
            each = self._waiting.get()
            if isinstance(each, threading.Event):
                each.set()
                continue
            data, records = each
            try:
                self._write(data)
            except OSError:  # as of a full disk
                self._failed += records
            self._done_bytes += len(data)

    def _write(self, data: bytes) -> None:
        """Raises ``OSError``."""
        left = memoryview(b"\n" + data if self._torn else data)
        # not by sys.stderr, whose lock this thread would hold while it hangs, and the interpreter's end wants it
        while left:
            try:
                written = os.write(STANDARD_ERROR, left)
            except BlockingIOError:  # a terminal, or a pipe, that somebody else has made so
                select.select([], [STANDARD_ERROR], [])
                continue
            self._torn = left[written - 1] != NEWLINE
            left = left[written:]
