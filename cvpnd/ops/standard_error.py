"""Standard error, written by a thread: whoever logs does not wait for it.

A journal that hangs with its disk, or a pipe that nobody reads, would hold the event loop with the next line, and every
login and change with it, until the watchdog ends a daemon to which nothing is wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading

MOST_WAITING = 4 * 1024 * 1024
"""Bytes, besides what the kernel holds: minutes of the busiest daemon."""
PATIENCE_S = 2.0
"""At the end, with one that takes nothing."""
STANDARD_ERROR = 2


class StandardError(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._waiting: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        """What is to be written, and who wants to know when all before it is."""
        self._counting = threading.Lock()
        """Held for the next one."""
        self._bytes = 0
        """Not written yet."""
        self._lost = 0
        """Records for which there was no room, since the last one for which there was. Under the handler's lock."""
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._bytes >= MOST_WAITING:
            self._lost += 1
            return
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if self._lost:
            told = {"levelno": logging.WARNING, "levelname": "WARNING", "name": __name__, "args": (self._lost,)}
            told["msg"] = "%d records of this log are lost here: standard error did not take them in time"
            text = f"{self.format(logging.makeLogRecord(told))}\n{text}"
            self._lost = 0
        data = f"{text}\n".encode()
        with self._counting:
            self._bytes += len(data)
        self._waiting.put(data)

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
            left = memoryview(each)
            # not by sys.stderr, whose lock this thread would hold while it hangs, and the interpreter's end wants it
            with contextlib.suppress(OSError):
                while left:
                    left = left[os.write(STANDARD_ERROR, left) :]
            with self._counting:
                self._bytes -= len(each)
