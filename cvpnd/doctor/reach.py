"""Servers elsewhere: whether a connection to them comes about, from here, where the daemon's begin too."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from cvpnd.doctor.facts import Facts
from cvpnd.doctor.findings import Finding, problem

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
    """Over UDP nobody says whether it is there."""
    target = None if facts.config is None else facts.config.connection_log.syslog
    if target is not None and target.transport == "tcp" and (why := refused(target.host, target.port)):
        yield problem("syslog", f"{target} cannot be reached: {why}: it misses entries of the connection log", FIX)
