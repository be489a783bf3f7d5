"""The connection log: an entry for every attempt, every end, and now and then for who is connected, with AWS's keys and
ours behind them; and where entries go.

AWS's rules are kept so that existing queries go on working: every value is text, but for lists; times are UTC as
``2026-11-20 19:03:41``, and what does not apply is ``NA``. Three things go further: failed mutual authentication is
logged too, keys of our own follow AWS's (``authentication-method``, ``connection-end-reason`` …), and what the guide
calls periodic updates are entries of a type of their own, ``connection-update``, which nobody counts as attempts.
"""

from __future__ import annotations

import logging
import platform
import time
from functools import lru_cache
from pathlib import Path
from typing import Literal

from cvpnd.config import LogFilesConfig, SyslogTarget
from cvpnd.endpoints.model import ConnectionView
from cvpnd.ops.journal import Journal
from cvpnd.ops.log_file import TIME_FORMAT, LogFile, Rotation
from cvpnd.ops.log_streams import LogStreams
from cvpnd.ops.log_writer import Entry, LogWriter, Loss, newest
from cvpnd.ops.logs import stderr_is_the_journal
from cvpnd.ops.syslog import SOCKET, Syslog, is_the_journal

_log = logging.getLogger(__name__)

NOT_APPLICABLE = "NA"
MIB = 1024 * 1024
HOUR_S = 3600
HUNG_S = 60.0
"""After which a destination that is no longer configured, and has taken nothing since, gets nothing more."""

UPDATE = "connection-update"
"""The type of entries about connections that go on."""


def attempt_entry(
    connection: ConnectionView, now: float, *, failure: str | None = None, detail: str = ""
) -> dict[str, str | list[str]]:
    """Somebody tried to connect. ``failure`` is the ``Refusal`` word, None when they were let in."""
    entry = _entry(connection, now, "connection-attempt", detail)
    entry["connection-attempt-status"] = "failed" if failure else "successful"
    if failure:
        never = {key: NOT_APPLICABLE for key in _NEVER_CONNECTED}
        entry |= {"connection-attempt-failure-reason": failure, **never}
    return entry


def waiting_entry(connection: ConnectionView, now: float) -> dict[str, str | list[str]]:
    """The client was sent to its identity provider and the attempt waits for the assertion."""
    return _entry(connection, now, "connection-attempt") | {"connection-attempt-status": "waiting-for-assertion"}


def update_entry(connection: ConnectionView, now: float) -> dict[str, str | list[str]]:
    """It is connected, and so much has passed by now."""
    return _entry(connection, now, UPDATE)


def assertion_entry(connection: ConnectionView, now: float) -> dict[str, str | list[str]]:
    """The identity provider's answer is here and in order: for AWS an end of the waiting. What becomes of the attempt
    is another entry."""
    return _entry(connection, now, "connection-reset") | {"connection-reset-status": "assertion-received"}


def reset_entry(connection: ConnectionView, now: float, *, detail: str = "") -> dict[str, str | list[str]]:
    """An established connection ended; ``connection.end_reason`` says why."""
    return _entry(connection, now, "connection-reset", detail)


_NEVER_CONNECTED = ("connection-start-time", "connection-end-time", "connection-duration-seconds")


def _entry(connection: ConnectionView, now: float, log_type: str, detail: str = "") -> dict[str, str | list[str]]:
    ended, statuses = connection.ended_at, connection.posture_compliance_statuses
    return {
        "connection-log-type": log_type,
        "connection-attempt-status": NOT_APPLICABLE,
        "connection-reset-status": NOT_APPLICABLE,
        "connection-attempt-failure-reason": NOT_APPLICABLE,
        "connection-id": connection.connection_id,
        "client-vpn-endpoint-id": connection.endpoint_id,
        "transport-protocol": connection.transport,
        "connection-start-time": _utc(connection.connected_at),
        "connection-last-update-time": _utc(now),
        "client-ip": connection.client_ip or NOT_APPLICABLE,
        "client-ip-v6": connection.client_ip_v6 or NOT_APPLICABLE,
        "common-name": connection.common_name or NOT_APPLICABLE,
        "device-type": connection.device_type or NOT_APPLICABLE,
        "device-ip": connection.device_ip,
        "port": str(connection.port),
        "ingress-bytes": str(connection.ingress_bytes),
        "egress-bytes": str(connection.egress_bytes),
        "ingress-packets": str(connection.ingress_packets),
        "egress-packets": str(connection.egress_packets),
        "connection-end-time": NOT_APPLICABLE if ended is None else _utc(ended),
        "connection-duration-seconds": str(max(0, int((ended or now) - connection.connected_at))),
        "username": connection.username or "N/A",
        **({} if statuses is None else {"posture-compliance-statuses": list(statuses)}),
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
    return _utc_second(int(seconds))


@lru_cache(maxsize=64)
def _utc_second(seconds: int) -> str:
    """Two or more of an entry, and of all entries of a second."""
    return time.strftime(TIME_FORMAT, time.gmtime(seconds))


class ConnectionLog:
    """Every destination of entries: the file for all of them, the streams of endpoints, the journal, a syslog daemon.
    It closes them all.

    Owned by the daemon and used from the event loop, which it never holds up."""

    def __init__(self, path: Path, settings: LogFilesConfig, streams: LogStreams) -> None:
        """Raises ``OSError`` when the file cannot be written: a mistake to hear of at start, not later."""
        self._file = LogFile(path)
        self._file.open()
        self._writer = LogWriter(str(path), self._file)
        self._streams = streams
        self._journal: LogWriter | None = None
        self._syslog: tuple[SyslogTarget, LogWriter] | None = None
        self._leaving: list[LogWriter] = []
        """Given up by the configuration: what they have is written out, however slowly."""
        self._lost_before = 0
        """By those that have left."""
        self._loss_before: Loss | None = None
        self.configure(settings)

    def configure(self, settings: LogFilesConfig) -> None:
        """From now on so. What is given up still gets what it was to get."""
        rotation = Rotation(settings.rotate_mib * MIB, settings.rotate_hours * HOUR_S, settings.keep_files)
        self._file.rotation = rotation
        self._streams.rotate(rotation)
        wanted, journal = _wants_journal(settings.journal), self._journal
        if wanted != (journal is not None):
            self._journal = LogWriter("journal", Journal()) if wanted else None
            self._let_go(journal)
        target, syslog = settings.syslog, self._syslog
        if target != (syslog[0] if syslog else None):
            self._syslog = None if target is None else (target, LogWriter(f"syslog {target}", Syslog(target)))
            self._let_go(syslog[1] if syslog else None)
        if self._journal is not None and target is not None and is_the_journal(target):
            _log.warning(
                'connection_log.syslog = "local": %s is the journal on this host, so entries are in the journal twice; '
                'write journal = "off" beside it, a syslog daemon here has them from the journal anyway',
                SOCKET,
            )

    def _let_go(self, writer: LogWriter | None) -> None:
        if writer is not None:
            self._leaving.append(writer)
            writer.leave()

    def close_idle(self) -> None:
        """Called now and then."""
        self._streams.close_idle()
        for writer in list(self._leaving):
            writer.give_up_if_hung(HUNG_S)
            if writer.is_over:
                self._leaving.remove(writer)
                self._lost_before += writer.lost
                self._loss_before = newest((self._loss_before, writer.last_loss))

    def _writers(self) -> list[LogWriter]:
        others = (self._journal, self._syslog[1] if self._syslog else None)
        return [self._writer, *(writer for writer in others if writer is not None)]

    @property
    def waiting(self) -> int:
        """Entries that somebody has not taken yet."""
        return self._streams.waiting + sum(writer.waiting for writer in (*self._writers(), *self._leaving))

    @property
    def lost(self) -> int:
        """Entries that did not arrive somewhere, since the start."""
        now = sum(writer.lost for writer in (*self._writers(), *self._leaving))
        return self._streams.lost + self._lost_before + now

    @property
    def last_loss(self) -> Loss | None:
        writers = (*self._writers(), *self._leaving)
        return newest((self._loss_before, self._streams.last_loss, *(writer.last_loss for writer in writers)))

    def write(self, entry: Entry, stream: tuple[str, str] | None = None) -> None:
        """``stream``: group and name of the endpoint's own."""
        for writer in self._writers():
            writer.write(entry)
        if stream is not None:
            self._streams.write(*stream, entry)

    def reopen(self) -> None:
        """Files were moved away (logrotate): go on in new ones under the same names."""
        for writer in self._writers():
            writer.reopen()
        self._streams.reopen()

    def close(self) -> None:
        """The streams too, at once: at the end of the daemon, for which systemd has a limit."""
        self._streams.close([*self._writers(), *self._leaving])


def _wants_journal(setting: Literal["auto", "on", "off"]) -> bool:
    return setting == "on" or (setting == "auto" and stderr_is_the_journal())
