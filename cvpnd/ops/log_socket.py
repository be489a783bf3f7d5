"""What the destinations of the connection log that are a socket have in common."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from cvpnd.ops.log_writer import EntriesLost, Entry


def send_each(entries: Sequence[Entry], send: Callable[[Entry], None]) -> None:
    """Each by itself: one that cannot be sent takes no other with it. Raises ``EntriesLost`` after the last."""
    lost, why = 0, ""
    for entry in entries:
        try:
            send(entry)
        except OSError as error:
            lost, why = lost + 1, error.strerror or str(error)
    if lost:
        raise EntriesLost(lost, why)


def connected(
    family: socket.AddressFamily,
    kind: socket.SocketKind,
    address: str | tuple[str, int],
    timeout_s: float | None = None,
) -> socket.socket:
    """``timeout_s``: of connecting and of every call afterwards; None: they wait as long as it takes. Raises
    ``OSError``."""
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    made.settimeout(timeout_s)
    try:
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made
