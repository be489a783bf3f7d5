"""Whoever logs only queues; a thread for each destination writes.

A full queue, a full disk or a daemon that is gone loses entries, which is counted and warned about, and never delays a
login or a packet."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from cvpnd.ops.logs import RateLimited

Entry = Mapping[str, str | list[str]]

QUEUE_LIMIT = 16384
"""Entries waiting, about 16 MB; ten seconds of the busiest login storm we have measured."""

BATCH_LIMIT = 256
"""Entries in one ``write``: enough to make the system call cheap, few enough to lose little when the disk is full."""

GATHER_S = 0.05
"""Entries of one moment are written together: to wake the thread for each takes as long as to write it."""

_log = logging.getLogger(__name__)
_warn = RateLimited(_log, interval_s=60)


class EntriesLost(Exception):
    def __init__(self, count: int, why: str) -> None:
        super().__init__(why)
        self.count = count
        self.why = why


class Destination(Protocol):
    """Used by its writer's thread only, and by whoever makes it before that. May block."""

    def append(self, entries: Sequence[Entry]) -> None:
        """Raises ``EntriesLost``."""
        ...

    def reopen(self) -> None:
        """What it writes to was moved away."""
        ...

    def close(self) -> None: ...


class LogWriter:
    """``write`` and ``reopen`` may be called from any thread and never block."""

    def __init__(self, name: str, destination: Destination, *, queue_limit: int = QUEUE_LIMIT) -> None:
        self._name = name
        self._destination = destination
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        """Written in C: a login waits for its entry to be in it. So the limit is ours to keep."""
        self._queue_limit = queue_limit
        self._reopen_asked = threading.Event()
        self._closing = threading.Event()
        self._writing = False
        """By its thread, which may hang in there with its disk."""
        self._lost_lock = threading.Lock()
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="connection-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Entries that never arrived, since the start."""
        return self._lost

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    @property
    def is_idle(self) -> bool:
        return not self._writing and not self.waiting

    def write(self, entry: Entry) -> None:
        """Queue one entry; when the queue is full (or the log closed) it is lost and counted."""
        if self._closing.is_set():
            self._lose(1, "the log is closed")
            return
        if self._queue.qsize() >= self._queue_limit:
            self._lose(1, "they come faster than they are taken")
            return
        self._queue.put(entry)

    def reopen(self) -> None:
        """From the next entry on, go on where the name leads to now."""
        self._reopen_asked.set()
        self._wake()

    def leave(self) -> None:
        """Write out what is queued and end the thread, which nobody waits for."""
        self._closing.set()
        self._wake()

    def close(self, timeout_s: float = 5.0) -> None:
        """The same, waited for. What is not taken in ``timeout_s`` is lost."""
        self.leave()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._lose(self._drop_queued(), "nobody took them at the end")
            self._wake()  # it may be about to take one of those

    def _drop_queued(self) -> int:
        """So that none which is counted as lost arrives after all, once its disk or daemon goes on."""
        dropped = 0
        with contextlib.suppress(queue.Empty):
            while True:
                dropped += self._queue.get_nowait() is not None
        return dropped

    def _wake(self) -> None:
        if self._queue.qsize() < self._queue_limit:  # else it is awake, and looks at the flags after every batch
            self._queue.put(None)

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            self._writing = True
            self._closing.wait(GATHER_S)
            while len(batch) < BATCH_LIMIT and not self._queue.empty():
                batch.append(self._queue.get())
            # before the batch: everything queued after the call of reopen() is in the new file
            if self._reopen_asked.is_set():
                self._reopen_asked.clear()
                self._destination.reopen()
            self._append([entry for entry in batch if entry is not None])
            self._writing = False
            if self._closing.is_set() and self._queue.empty():
                self._destination.close()
                return

    def _append(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        try:
            self._destination.append(entries)
        except EntriesLost as lost:
            self._lose(lost.count, lost.why)
        except Exception as error:
            _log.exception("%s", self._name)
            self._lose(len(entries), type(error).__name__)

    def _lose(self, entries: int, why: str) -> None:
        if not entries:
            return
        with self._lost_lock:
            self._lost += entries
        _warn.warning("lost", "%s: connection log entries are being lost: %s (%d so far)", self._name, why, self._lost)
