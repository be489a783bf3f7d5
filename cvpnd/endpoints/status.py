"""How the gateway is: one look at everything, and what is wrong with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cvpnd.endpoints.operations import OperationsBase
from cvpnd.host.errors import HostError
from cvpnd.ops.endpoint_metrics import EndpointMetrics
from cvpnd.ops.metrics import GatewayMetrics
from cvpnd.ops.problems import Problem, find_problems
from cvpnd.ops.recent_log import LogFilter, Recent, RecentLog
from cvpnd.ops.threads import cpu_seconds


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    name: str
    listen: tuple[str, ...]
    interface: str
    connections: int
    handshakes: int
    """Under way."""
    leases_used: int
    leases: int
    ingress_bytes: int
    egress_bytes: int
    refused: int
    """Attempts since the start."""
    crl_expires_at: float | None
    server_certificate_expires_at: float | None


@dataclass(frozen=True, slots=True)
class StatusView:
    version: str
    pid: int
    config_path: str
    started_at: float
    now: float
    revision: int
    workers: int
    crypto: str
    endpoints: tuple[EndpointStatus, ...]
    problems: tuple[Problem, ...]
    thread_seconds: Mapping[str, float]
    """CPU time of each thread so far."""


class StatusOperations(OperationsBase):
    _metrics: Callable[[], GatewayMetrics]
    _recent: RecentLog
    """Both given by ``Operations``."""

    async def status(self) -> StatusView:
        metrics, now = self._metrics(), time.time()
        problems = find_problems(metrics, now)
        try:
            warnings = await self._gateway.host_changes.warnings()
        except HostError as error:
            warnings = [str(error)]
        problems += [Problem("warning", "host", warning, "cvpnctl doctor") for warning in warnings]
        served = {each.settings.name: each for each in self._gateway.endpoints}
        return StatusView(
            version=metrics.version,
            pid=os.getpid(),
            config_path=str(self._gateway.config.path),
            started_at=metrics.started_at,
            now=now,
            revision=metrics.reload_revision,
            workers=metrics.workers,
            crypto=metrics.crypto_backend,
            endpoints=tuple(
                _endpoint_status(each, served[each.name].interface, served[each.name].settings.listen)
                for each in metrics.endpoints
                if each.name in served
            ),
            problems=tuple(problems),
            thread_seconds=cpu_seconds(),
        )

    async def recent_log(self, after: int, wanted: LogFilter, limit: int) -> Recent:
        """There may be entries of an endpoint that is gone."""
        found = self._recent.after(after, wanted, limit)
        if not found and wanted.endpoint is not None:
            self._endpoint(wanted.endpoint)
        return Recent(self._recent.id, self._recent.newest, found)


def _endpoint_status(endpoint: EndpointMetrics, interface: str, listen: tuple[object, ...]) -> EndpointStatus:
    return EndpointStatus(
        name=endpoint.name,
        listen=tuple(map(str, listen)),
        interface=interface,
        connections=endpoint.active_connections,
        handshakes=endpoint.handshakes_in_progress,
        leases_used=endpoint.lease_pool_used,
        leases=endpoint.lease_pool_size,
        ingress_bytes=endpoint.ingress_bytes,
        egress_bytes=endpoint.egress_bytes,
        refused=sum(endpoint.authentication_failures.values()),
        crl_expires_at=endpoint.crl_expires_at,
        server_certificate_expires_at=endpoint.server_certificate_expires_at,
    )
