"""What the process is, apart from its endpoints: the tables of which there is one each."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cvpnd.config.sockets import METRICS_LISTEN, ApiListenUrl, MetricsListen
from cvpnd.config.table import Table
from cvpnd.config.values import Address, FilePath, Flag, Remote, StateUrl, whole

MAX_WORKERS = 64
"""What the data plane takes."""


class StrangersConfig(Table):
    """How much is done for those who have no session, over all endpoints."""

    resets_per_s: int = whole(250_000, 10, 10_000_000)
    resets_per_source_per_s: int = whole(150_000, 1, 10_000_000)
    sessions_per_s: int = whole(1000, 1, 100_000)
    sessions_per_source_per_s: int = whole(500, 1, 100_000)
    unproven_sessions_per_s: int = whole(50, 0, 100_000)
    handshakes_per_source_per_min: int = whole(3000, 1, 1_000_000)
    handshakes_per_network_per_min: int = whole(12_000, 1, 1_000_000)
    failed_logins_per_source_per_min: int = whole(600, 1, 1_000_000)
    failed_logins_per_network_per_min: int = whole(2400, 1, 1_000_000)


class DaemonConfig(Table):
    state: StateUrl = "sqlite:////var/lib/cvpnd/state.db"
    state_key: FilePath | None = None
    """None: beside an SQLite file, with the ending .key; else /var/lib/cvpnd/state.key."""
    admin_socket: FilePath = Path("/run/cvpnd/admin.sock")
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_WORKERS, strict=True)] = "auto"
    packet_crypto: Literal["auto", "openssl", "ipsec-mb"] = "auto"
    packet_offload: Literal["auto", "tcp", "off"] = "auto"
    packet_pause_us: int = whole(600, 0, 10_000)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_directory: FilePath = Path("/var/log/cvpnd")
    shutdown_grace_s: int = whole(3, 0, 60)
    strangers: StrangersConfig = StrangersConfig()

    @field_validator("workers", mode="before")
    @classmethod
    def _check_workers(cls, value: object) -> object:
        if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_WORKERS):
            return value
        raise ValueError(f'{value!r} is no number of workers; write "auto" or a number from 1 to {MAX_WORKERS}')

    def worker_count(self) -> int:
        """Data plane threads: one for each core this process may use, unless the file says otherwise."""
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS) if self.workers == "auto" else self.workers


class MetricsConfig(Table):
    listen: MetricsListen = Field(default=METRICS_LISTEN, validate_default=True)
    """None: no metrics over HTTP."""
    per_user: Flag = False
    openvpn_exporter_names: Flag = False


class StatusFileConfig(Table):
    """OpenVPN's status file, for programs that read it."""

    path: FilePath | None = None
    """None: there is none."""
    version: Literal[2, 3] = 2
    interval_s: int = whole(60, 1, 3600)


class ApiConfig(Table):
    """The AWS-compatible API."""

    listen: ApiListenUrl = None
    """None: there is none."""
    certificate: FilePath | None = None
    private_key: FilePath | None = None

    @model_validator(mode="after")
    def _check_certificate(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together; add the other, or leave both away")
        return self


class AuditConfig(Table):
    """How much of who changed what is kept."""

    keep_days: int = whole(365, 0, 36_500)
    """0: for ever, as the next has it for no limit."""
    keep_entries: int = whole(1_000_000, 0, 1_000_000_000)


class ManagedConfig(Table):
    """What endpoints that are made at run time share."""

    listen: tuple[Address, ...] = Field(default=(IPv4Address("0.0.0.0"),), min_length=1)  # noqa: S104
    """Addresses of this host; an endpoint gets the first at which its port is free."""
    remote: Remote | None = None
    """The name in profiles; None: that of the server's certificate if it is a full name, else this host's address."""


class QuotasConfig(Table):
    """How many there may be of what is made at run time; AWS's numbers."""

    endpoints: int = whole(5, 0, 10_000)
    rules: int = whole(50, 0, 1_000_000)
    """Of one endpoint, as the next two."""
    routes: int = whole(10, 0, 100_000)
    crl_entries: int = whole(20_000, 0, 10_000_000)


class PkiConfig(Table):
    directory: FilePath | None = None
    """None: ``cvpnctl certificate`` cannot issue or revoke."""
