"""``[connection_log]``, and what an endpoint says about its own."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BeforeValidator, InstanceOf

from cvpnd.config.table import Table
from cvpnd.config.values import Printable, show, whole


class ConnectionLogConfig(Table):
    """A log stream that the endpoint's connections are also written to."""

    group: Printable
    stream: Printable


class SyslogTarget(NamedTuple):
    """Where a syslog daemon listens: ``local`` is /dev/log, the others have an address and a port."""

    transport: Literal["local", "udp", "tcp"]
    host: str = ""
    port: int = 514

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return "local" if self.transport == "local" else f"{self.transport}://{host}:{self.port}"


def _parse_syslog(value: object) -> SyslogTarget | None:
    if value is None or isinstance(value, SyslogTarget):
        return value
    if value == "off":
        return None
    if value == "local":
        return SyslogTarget("local")
    text = value if isinstance(value, str) else ""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        if host is not None:
            ip_address(host)  # a name would be asked for when the network is down
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("udp", "tcp") or host is None or parts.path or parts.query or parts.username:
        raise ValueError(f'{show(value)} is no syslog daemon; write "local", "off", or a URL like udp://10.20.0.5:514')
    return SyslogTarget("udp" if parts.scheme == "udp" else "tcp", host, port or 514)


Syslog = Annotated[InstanceOf[SyslogTarget] | None, BeforeValidator(_parse_syslog)]


class LogFilesConfig(Table):
    """How entries are kept, for all endpoints."""

    update_s: int = whole(300, 0, 86_400)
    """0: no entries between a connection's start and its end."""
    rotate_mib: int = whole(100, 0, 1_000_000)
    """0: however large; as the next."""
    rotate_hours: int = whole(0, 0, 24 * 366)
    keep_files: int = whole(10, 1, 10_000)
    journal: Literal["auto", "on", "off"] = "auto"
    syslog: Syslog = None
    """None: to none."""
