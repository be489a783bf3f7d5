"""What waits in the kernel for us to read, and what it had no room for: /proc/net/udp, proc(5)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

TABLES = (Path("/proc/self/net/udp"), Path("/proc/self/net/udp6"))
Name = tuple[IPv4Address | IPv6Address, int]


@dataclass(slots=True)
class UdpSockets:
    """All sockets of one address and port together: a listener has one for control and one for each worker."""

    waiting_bytes: int = 0
    dropped: int = 0


def read_udp_sockets(tables: tuple[Path, ...] = TABLES) -> dict[Name, UdpSockets]:
    """By local address and port. Empty where the kernel does not say."""
    found: dict[Name, UdpSockets] = {}
    for path in tables:
        with contextlib.suppress(OSError):
            for name, waiting, dropped in _rows(path.read_text()):
                sockets = found.setdefault(name, UdpSockets())
                sockets.waiting_bytes += waiting
                sockets.dropped += dropped
    return found


def _rows(text: str) -> Iterator[tuple[Name, int, int]]:
    for line in text.splitlines()[1:]:
        fields = line.split()
        host, _, port = fields[1].partition(":")
        _, _, receive_queue = fields[4].partition(":")
        yield (_address(host), int(port, 16)), int(receive_queue, 16), int(fields[12])


def _address(digits: str) -> IPv4Address | IPv6Address:
    """Words of the network order, each printed as a number of this machine."""
    words = (int(digits[at : at + 8], 16) for at in range(0, len(digits), 8))
    return ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
