"""The connection log: one JSON line for every attempt and every end, with AWS's keys and ours behind them.

AWS's rules are kept so that existing queries go on working: every value is a string, times are UTC as
``2026-11-20 19:03:41``, and what does not apply is ``NA``. Two things go further: failed mutual authentication is
logged too, and keys of our own follow AWS's (``authentication-method``, ``connection-end-reason`` …).

The event loop only queues; a thread writes. A full queue or a full disk loses lines, which is counted and warned about,
and never delays a login or a packet.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import queue
import stat
import threading
import time
from pathlib import Path

from cvpnd.endpoints.model import ConnectionView
from cvpnd.ops.logs import RateLimited

NOT_APPLICABLE = "NA"

QUEUE_LIMIT = 16384
"""Lines waiting for the disk, about 16 MB; ten seconds of the busiest login storm we have measured."""

BATCH_LIMIT = 256
"""Lines in one ``write``: enough to make the system call cheap, few enough to lose little when the disk is full."""

_log = logging.getLogger(__name__)
_warn = RateLimited(_log, interval_s=60)


def attempt_entry(
    connection: ConnectionView, now: float, *, failure: str | None = None, detail: str = ""
) -> dict[str, str]:
    """Somebody tried to connect. ``failure`` is the ``Refusal`` word, None when they were let in."""
    return _entry(
        connection,
        now,
        log_type="connection-attempt",
        attempt_status="failed" if failure else "successful",
        failure=failure or NOT_APPLICABLE,
        detail=detail,
    )


def waiting_entry(connection: ConnectionView, now: float) -> dict[str, str]:
    """The client was sent to its identity provider and the attempt waits for the assertion."""
    return _entry(connection, now, log_type="connection-attempt", attempt_status="waiting-for-assertion")


def reset_entry(connection: ConnectionView, now: float, *, successful: bool = True, detail: str = "") -> dict[str, str]:
    """An established connection ended; ``connection.end_reason`` says why."""
    return _entry(
        connection,
        now,
        log_type="connection-reset",
        reset_status="successful" if successful else "failed",
        detail=detail,
    )


def _entry(
    connection: ConnectionView,
    now: float,
    *,
    log_type: str,
    attempt_status: str = NOT_APPLICABLE,
    reset_status: str = NOT_APPLICABLE,
    failure: str = NOT_APPLICABLE,
    detail: str = "",
) -> dict[str, str]:
    ended = connection.ended_at
    return {
        "connection-log-type": log_type,
        "connection-attempt-status": attempt_status,
        "connection-reset-status": reset_status,
        "connection-attempt-failure-reason": failure,
        "connection-id": connection.connection_id,
        "client-vpn-endpoint-id": connection.endpoint_id,
        "transport-protocol": connection.transport,
        "connection-start-time": _utc(connection.connected_at),
        "connection-last-update-time": _utc(now),
        "client-ip": connection.client_ip or NOT_APPLICABLE,
        "common-name": connection.common_name or NOT_APPLICABLE,
        "device-type": connection.device_type or NOT_APPLICABLE,
        "device-ip": connection.device_ip,
        "port": str(connection.port),
        "ingress-bytes": str(connection.ingress_bytes),
        "egress-bytes": str(connection.egress_bytes),
        "ingress-packets": str(connection.ingress_packets),
        "egress-packets": str(connection.egress_packets),
        "connection-end-time": NOT_APPLICABLE if ended is None else _utc(ended),
        "connection-duration-seconds": "0" if ended is None else str(max(0, int(ended - connection.connected_at))),
        "username": connection.username or "N/A",
        # ours
        "authentication-method": connection.method or NOT_APPLICABLE,
        "connection-end-reason": connection.end_reason or NOT_APPLICABLE,
        "detail": detail or NOT_APPLICABLE,
        "cipher": connection.cipher or NOT_APPLICABLE,
        "endpoint-name": connection.endpoint_name,
        "server-name": _SERVER_NAME,
    }


_SERVER_NAME = platform.node() or "localhost"


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


class ConnectionLog:
    """Appends entries to one file, from a thread of its own.

    ``write`` and ``reopen`` may be called from any thread and never block. Only the writer thread touches the
    descriptor once the constructor is done."""

    def __init__(self, path: Path, *, queue_limit: int = QUEUE_LIMIT) -> None:
        """Opens the file (mode 0640, its directory 0750 if it has to be made) and starts the thread.

        Raises ``OSError`` when it cannot: a log that is asked for and cannot be written is a mistake to hear of at
        start, not later."""
        self.path = path
        self._queue: queue.Queue[dict[str, str] | None] = queue.Queue(maxsize=queue_limit)
        self._reopen_asked = threading.Event()
        self._closing = threading.Event()
        self._lost_lock = threading.Lock()
        self._lost = 0
        self._file, self._torn = _open_log(path)
        self._thread = threading.Thread(target=self._run, name="connection-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Entries that never reached the file, since the start."""
        return self._lost

    def write(self, entry: dict[str, str]) -> None:
        """Queue one entry; when the queue is full (or the log closed) it is lost and counted."""
        if self._closing.is_set():
            self._lose(1, "the log is closed")
            return
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self._lose(1, "the disk does not keep up")

    def reopen(self) -> None:
        """The file was moved away (logrotate): go on in a new one under the same name."""
        self._reopen_asked.set()
        self._wake()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write out what is queued and end the thread. What the disk does not take in ``timeout_s`` is lost."""
        self._closing.set()
        self._wake()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._lose(self._queue.qsize(), "the disk did not answer at the end")

    def _wake(self) -> None:
        with contextlib.suppress(queue.Full):  # then the thread is awake, and looks at the flags after every batch
            self._queue.put_nowait(None)

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < BATCH_LIMIT and not self._queue.empty():
                batch.append(self._queue.get())
            # before the batch: everything queued after the call of reopen() is in the new file
            if self._reopen_asked.is_set():
                self._reopen_asked.clear()
                self._reopen_now()
            self._append([entry for entry in batch if entry is not None])
            if self._closing.is_set() and self._queue.empty():
                os.close(self._file)
                return

    def _append(self, entries: list[dict[str, str]]) -> None:
        if not entries:
            return
        # ASCII only: a name with terminal controls or directional marks in it arrives escaped
        data = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        if self._torn:  # half a line is there: end it, so that the next one can be read
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
            self._torn = False
        except OSError as error:
            if written:
                self._torn = data[written - 1 : written] != b"\n"
            whole_lines = data[:written].count(b"\n") - (1 if written and data.startswith(b"\n") else 0)
            self._lose(len(entries) - whole_lines, error.strerror or str(error))

    def _reopen_now(self) -> None:
        try:
            file, torn = _open_log(self.path)
        except OSError as error:
            _warn.warning("reopen", "%s: cannot be reopened (%s); still writing to the old file", self.path, error)
            return
        os.close(self._file)
        self._file, self._torn = file, torn

    def _lose(self, entries: int, why: str) -> None:
        if not entries:
            return
        with self._lost_lock:
            self._lost += entries
        _warn.warning("lost", "%s: connection log entries are being lost: %s (%d so far)", self.path, why, self._lost)


def _open_log(path: Path) -> tuple[int, bool]:
    """The descriptor, and whether the file ends in the middle of a line (a crash or a full disk left it so)."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and not status.st_size:
            os.fchmod(file, 0o640)  # whatever the umask was
        torn = stat.S_ISREG(status.st_mode) and status.st_size > 0 and os.pread(file, 1, status.st_size - 1) != b"\n"
    except OSError:
        os.close(file)
        raise
    return file, torn
