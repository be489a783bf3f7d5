"""Servers elsewhere: whether a connection to them comes about, from here, where the daemon's begin too."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from cvpnd.doctor.facts import Facts
from cvpnd.doctor.findings import Finding, problem
from cvpnd.ops.log_socket import connected
from cvpnd.ops.syslog import SOCKET

PATIENCE_S = 2.0
FIX = "look at its name, the firewall in between, and whether it runs"


def refused(host: str, port: int) -> str:
    """Why there is none; empty: there was one."""
    try:
        socket.create_connection((host, port), PATIENCE_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def syslog(facts: Facts) -> Iterator[Finding]:
    """Over UDP nobody says whether it is there, only whether a way leads there."""
    target = None if facts.config is None else facts.config.connection_log.syslog
    if target is None:
        return
    why = {"tcp": refused, "udp": no_way, "local": _not_here}[target.transport](target.host, target.port)
    if why:
        yield problem("syslog", f"{target} cannot be reached: {why}: it misses entries of the connection log", FIX)


def no_way(host: str, port: int) -> str:
    """Sends nothing."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as asking:
            asking.connect(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _not_here(_host: str, _port: int) -> str:
    try:
        connected(socket.AF_UNIX, socket.SOCK_DGRAM, str(SOCKET)).close()
    except OSError as error:
        return f"{SOCKET}: {error.strerror}"
    return ""
