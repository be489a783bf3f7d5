"""The latest entries of the connection log, in memory: for ``cvpnctl log follow``, wherever else they are written."""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from cvpnd.ops.log_writer import Entry

MOST = 4096
"""Some 6 MB."""


@dataclass(frozen=True, slots=True)
class LogFilter:
    """What is None or empty lets everything through."""

    endpoint: str | None = None
    """Name or id."""
    user: str | None = None
    """User name or common name."""
    reason: str | None = None
    """Of a refusal or of an end."""
    failed: bool = False
    """Refused attempts only."""

    def accepts(self, entry: Entry) -> bool:
        wanted = (
            (self.endpoint, ("endpoint-name", "client-vpn-endpoint-id")),
            (self.user, ("username", "common-name")),
            (self.reason, ("connection-attempt-failure-reason", "connection-end-reason")),
        )
        if self.failed and entry["connection-attempt-status"] != "failed":
            return False
        return all(value is None or any(entry.get(key) == value for key in keys) for value, keys in wanted)


class Recent(NamedTuple):
    log_id: str
    newest: int
    """The number to ask with the next time, while the log is the same."""
    entries: list[Entry]


class RecentLog:
    def __init__(self, most: int = MOST) -> None:
        self.id = secrets.token_hex(8)
        """The next daemon's is another, and counts anew."""
        self._entries: deque[tuple[int, Entry]] = deque(maxlen=most)
        self.newest = 0
        """Number of the newest entry; they count from 1."""

    def add(self, entry: Entry) -> None:
        self.newest += 1
        self._entries.append((self.newest, entry))

    def after(self, number: int, wanted: LogFilter, limit: int) -> list[Entry]:
        """The last ``limit`` of those that came after that number, oldest first."""
        found = [entry for at, entry in self._entries if at > number and wanted.accepts(entry)]
        return found[-limit:]
