"""Whoever logs only queues; a thread for each destination writes.

A full queue, a full disk or a daemon that is gone loses entries, which is counted and warned about, and never delays a
login or a packet."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cvpnd.ops.logs import RateLimited

Entry = Mapping[str, str | list[str]]

QUEUE_LIMIT = 16384
"""Entries waiting, about 16 MB; ten seconds of the busiest login storm we have measured."""

BATCH_LIMIT = 256
"""Entries in one ``write``: enough to make the system call cheap, few enough to lose little when the disk is full."""

GATHER_S = 0.2
"""Entries of one moment are written together: to wake the thread for each takes as long as to write it. At 80 logins a
second it took 0.07 ms for each login with 0.05 s, and 0.04 with 0.25."""

PATIENCE_S, AT_MOST_S = 5.0, 10.0
"""At the end of the daemon, which systemd allows half a minute: with a destination that takes nothing, and with a slow
one."""

_log = logging.getLogger(__name__)
_warn = RateLimited(_log, interval_s=60)


class EntriesLost(Exception):
    def __init__(self, count: int, why: str) -> None:
        super().__init__(why)
        self.count = count
        self.why = why


@dataclass(frozen=True, slots=True)
class Loss:
    """Of entries, the last that there was."""

    at: float
    """Wall clock."""
    where: str
    why: str


def newest(losses: Iterable[Loss | None]) -> Loss | None:
    return max(filter(None, losses), key=lambda loss: loss.at, default=None)


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
        self._counting = threading.Lock()
        """Held for the next five. An entry waits, has arrived or is lost: one of them at any time."""
        self._waiting = 0
        """In the queue, or in the hand of the thread, which may hang with its disk."""
        self._lost = 0
        self._given_up = False
        """What the thread has in its hand counts as lost until it arrives after all."""
        self._progress_at = time.monotonic()
        self.last_loss: Loss | None = None
        """Set with ``_lost``: whoever sees that nothing waits sees it too."""
        self._thread = threading.Thread(target=self._run, name="connection-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Entries that never arrived, since the start."""
        return self._lost

    @property
    def waiting(self) -> int:
        return self._waiting

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    @property
    def is_over(self) -> bool:
        """After ``leave`` or ``close``: ``lost`` is final."""
        return not self._thread.is_alive()

    def write(self, entry: Entry) -> None:
        """Queue one entry; when the queue is full (or the log closed) it is lost and counted."""
        with self._counting:
            why = "the log is closed" if self._closing.is_set() else ""
            if not why and self._queue.qsize() >= self._queue_limit:
                why = "they come faster than they are taken"
            if not why:
                self._waiting += 1
                self._queue.put(entry)
                return
            self._count_lost(1, why)
        self._tell_lost(1, why)

    def reopen(self) -> None:
        """From the next entry on, go on where the name leads to now."""
        self._reopen_asked.set()
        self._wake()

    def leave(self) -> None:
        """Write out what is queued and end the thread, which nobody waits for."""
        with self._counting:
            if self._closing.is_set():
                return
            self._progress_at = time.monotonic()
            self._closing.set()
        self._wake()

    def close(self, timeout_s: float = PATIENCE_S, at_most_s: float = AT_MOST_S) -> None:
        """The same, waited for: while entries are taken, but no longer than ``at_most_s``. What is left once
        ``timeout_s`` have passed in which none was is lost."""
        self.leave()
        until = time.monotonic() + at_most_s
        while self._thread.is_alive():
            left_s = min(until, self._progress_at + timeout_s) - time.monotonic()
            if left_s <= 0:
                self._give_up(at_the_end=True)
                return
            self._thread.join(left_s)

    def give_up_if_hung(self, timeout_s: float) -> None:
        """One that is leaving: the same without waiting for it. What it has in its hand may yet arrive."""
        if self.waiting and not self.is_over and time.monotonic() >= self._progress_at + timeout_s:
            self._give_up(at_the_end=False)

    def _give_up(self, *, at_the_end: bool) -> None:
        why = "nobody took them at the end"
        with self._counting:
            dropped = self._drop_queued()
            self._waiting -= dropped
            if at_the_end:
                self._given_up = True
                dropped, self._waiting = dropped + self._waiting, 0
            self._count_lost(dropped, why)
        self._tell_lost(dropped, why)
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
            if self._queue.qsize() < BATCH_LIMIT:
                self._closing.wait(GATHER_S)
            while len(batch) < BATCH_LIMIT and not self._queue.empty():
                batch.append(self._queue.get())
            # before the batch: everything queued after the call of reopen() is in the new file
            if self._reopen_asked.is_set():
                self._reopen_asked.clear()
                self._destination.reopen()
            self._append([entry for entry in batch if entry is not None])
            if self._closing.is_set() and self._queue.empty():
                self._destination.close()
                return

    def _append(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        lost, why = 0, ""
        try:
            self._destination.append(entries)
        except EntriesLost as error:
            lost, why = error.count, error.why
        except Exception as error:
            _log.exception("%s", self._name)
            lost, why = len(entries), type(error).__name__
        with self._counting:
            self._progress_at = time.monotonic()
            if self._given_up:
                self._lost -= len(entries) - lost
                return
            self._waiting -= len(entries)
            self._count_lost(lost, why)
        self._tell_lost(lost, why)

    def _count_lost(self, entries: int, why: str) -> None:
        """With ``_counting`` held."""
        if entries:
            self._lost += entries
            self.last_loss = Loss(time.time(), self._name, why)

    def _tell_lost(self, entries: int, why: str) -> None:
        if entries:
            _warn.warning(
                "lost", "%s: connection log entries are being lost: %s (%d so far)", self._name, why, self._lost
            )


def close_together(writers: Sequence[LogWriter]) -> None:
    """In the time of one."""
    until = time.monotonic() + AT_MOST_S
    for writer in writers:
        writer.leave()
    for writer in writers:
        writer.close(at_most_s=until - time.monotonic())
