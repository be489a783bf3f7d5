"""The connection log in systemd's journal: a sentence, a stable MESSAGE_ID for each kind of entry, and a field for each
key, so that ``journalctl CVPND_USERNAME=anna`` or ``journalctl MESSAGE_ID=…`` finds what is looked for.

journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram for each entry."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from cvpnd.ops.log_socket import connected, send_each
from cvpnd.ops.log_writer import Entry
from cvpnd.ops.logs import escape_controls

SOCKET = Path("/run/systemd/journal/socket")

MESSAGE_IDS = {
    "successful": "efa135c50e804963978fe47410e141bc",
    "failed": "830521e0ced648d2b5a3be39a996bd9d",
    "waiting-for-assertion": "77ac3dc129c443a3b9da4cc0d0a9c12e",
    "assertion-received": "c04fd5c4a0d34c7e9b1ef5d6cb4a8a37",
    "update": "83194ecefeb142c586a6b96a7f3244b1",
    "reset": "9eb32230671142328c818e24720c6dd2",
}
"""By ``kind``. They never change."""


def kind(entry: Entry) -> str:
    match entry["connection-log-type"]:
        case "connection-reset":
            return "reset" if entry["connection-reset-status"] == "NA" else str(entry["connection-reset-status"])
        case "connection-update":
            return "update"
        case _:
            return str(entry["connection-attempt-status"])


def sentence(entry: Entry) -> str:
    """For a person; without anything that a terminal obeys."""
    who = next((str(entry[key]) for key in ("username", "common-name") if entry[key] not in ("NA", "N/A")), "somebody")
    where = f"{entry['endpoint-name']} from {entry['device-ip']} port {entry['port']} ({entry['transport-protocol']})"
    traffic = f"{entry['ingress-bytes']} bytes in, {entry['egress-bytes']} out"
    match kind(entry):
        case "successful":
            text = f"{who} connected to {where} as {entry['client-ip']}"
        case "failed":
            text = f"{who} was not let in to {where}: {entry['connection-attempt-failure-reason']}"
            if entry["detail"] != "NA":
                text += f", {entry['detail']}"
        case "waiting-for-assertion":
            text = f"{who} is sent to the identity provider by {where}"
        case "assertion-received":
            text = f"{who} is back from the identity provider at {where}"
        case "update":
            text = f"{who} is connected to {where} as {entry['client-ip']}: {traffic}"
        case _:
            why = entry["connection-end-reason"]
            text = f"{who} left {where} after {entry['connection-duration-seconds']} s: {why}, {traffic}"
    return escape_controls(text)


def priority(entry: Entry) -> int:
    """syslog(3): notice for who was not let in, else informational."""
    return 5 if kind(entry) == "failed" else 6


class Journal:
    """A ``Destination``."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def append(self, entries: Sequence[Entry]) -> None:
        send_each(entries, self._send)

    def _send(self, entry: Entry) -> None:
        """Once more over a new socket if the old one leads nowhere, as after a restart of journald."""
        data = b"".join(_field(name, value) for name, value in _fields(entry))
        for fresh in (False, True):
            if fresh or self._socket is None:
                self.close()
                self._socket = connected(socket.AF_UNIX, socket.SOCK_DGRAM, str(self._path))
            try:
                self._socket.send(data)
            except ConnectionError:
                if fresh:
                    raise
            else:
                return

    def reopen(self) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _fields(entry: Entry) -> Iterator[tuple[str, str]]:
    yield "MESSAGE", sentence(entry)
    yield "MESSAGE_ID", MESSAGE_IDS[kind(entry)]
    yield "PRIORITY", str(priority(entry))
    yield "SYSLOG_IDENTIFIER", "cvpnd"
    for key, value in entry.items():
        name = "CVPND_" + key.upper().replace("-", "_")
        for each in [value] if isinstance(value, str) else value:
            yield name, each


def _field(name: str, value: str) -> bytes:
    data = value.encode(errors="backslashreplace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
