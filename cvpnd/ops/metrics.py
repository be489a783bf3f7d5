"""Prometheus metrics, read from the running gateway at the moment of the scrape.

Nothing is counted here: whoever causes a number keeps it, and ``GatewayCollector`` asks for all of them in one
``MetricsSource.metrics()`` call. So a metric can never disagree with what the daemon itself says, and a scrape is the
only time that costs anything. Every known reason is exposed from the start at 0, so that ``rate()`` sees the first one.

Labels are endpoints and words of ours, never users or addresses: the number of series does not grow with the clients.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cvpnd.dataplane.api import Drop
from cvpnd.ops.client_metrics import ClientSource, OpenVpnExporterCollector, UserCollector
from cvpnd.ops.directory_metrics import DirectoryMetrics, directory_families, radius_families
from cvpnd.ops.endpoint_metrics import EndpointMetrics, endpoint_families
from cvpnd.ops.histogram import Histogram
from cvpnd.ops.log_writer import Loss
from cvpnd.ops.saml_metrics import SamlMetrics, saml_families
from cvpnd.ops.threads import ThreadCollector
from cvpnd.ops.words import with_zeroes
from cvpnd.reasons import ApiRefusal, PortalRefusal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HOST_CHANGES = ("device", "routes", "rules", "forwarding", "firewall")


@dataclass(frozen=True, slots=True)
class GatewayMetrics:
    """The whole daemon now."""

    version: str
    crypto_backend: str
    workers: int
    started_at: float
    endpoints: Sequence[EndpointMetrics]
    data_drops: Mapping[str, int]
    """``DataPlane.drops()``."""
    control_drops: Mapping[str, int]
    """Control packets by the word of the drop."""
    engine: Mapping[str, int]
    """``DataPlane.totals()``."""
    door: Mapping[str, int] = field(default_factory=dict)
    """``Doorman.totals()``."""
    reload_revision: int = 0
    """Counts configurations applied since the start."""
    last_reload_at: float | None = None
    last_reload_problem: str = ""
    """Why the latest one was refused, a line for each reason."""
    is_astray: bool = False
    """``Gateway.is_astray``."""
    awaits_restart: tuple[str, ...] = ()
    """Tables and keys of the file that are read when the daemon starts, and stand otherwise now."""
    https_troubles: Mapping[str, str] = field(default_factory=dict)
    """Portal and API -> why a renewed certificate of theirs is not shown."""
    api_certificate_replaced_at: float | None = None
    """When the one that signs itself was, lately."""
    changed_files: Mapping[str, float | None] = field(default_factory=dict)
    """Of the configuration, since they were read: when they were written last; None: they cannot be read any more."""
    host_changes: Mapping[str, int] = field(default_factory=dict)
    """Of ``HOST_CHANGES`` -> how often somebody else changed it."""
    host_trouble: str = ""
    """What of that could not be put right."""
    set_aside: Mapping[str, str] = field(default_factory=dict)
    """``Gateway.set_aside``."""
    store_outage: str = ""
    """Why the state database cannot be used."""
    store_outage_since: float | None = None
    store_is_corrupt: bool = False
    """Then the daemon asks it no more before the next start."""
    store_other_schema: str = ""
    """To which another gateway, of another version, has brought it."""
    endings_unstored: tuple[str, ...] = ()
    """Users and connections whose logins were ended, of which the state database does not know yet."""
    clock_trouble: str = ""
    """What the wall clock has done lately."""
    connection_log_lost: int = 0
    connection_log_loss: Loss | None = None
    queues: Mapping[str, int] = field(default_factory=dict)
    """Name -> what waits in it."""
    loop_lag: Histogram | None = None
    """How late the event loop is, looked at once a second."""
    directories: Sequence[DirectoryMetrics] = ()
    radius: Sequence[DirectoryMetrics] = ()
    """The same of the RADIUS servers of each directory."""
    saml: Sequence[SamlMetrics] = ()
    connect_handlers: Mapping[str, Histogram] = field(default_factory=dict)
    """By name: how long clients waited for them."""
    handler_troubles: Mapping[str, str] = field(default_factory=dict)
    """``Handlers.troubles()``."""
    api_refusals: Mapping[str, int] = field(default_factory=dict)
    """``ApiRefusal`` word -> requests refused for it."""
    portal_refusals: Mapping[str, int] = field(default_factory=dict)
    """``PortalRefusal`` word -> pages refused for it."""
    self_service_downloads: Mapping[str, int] = field(default_factory=dict)
    """Name of an endpoint -> profiles that people took from the portal."""


class MetricsSource(Protocol):
    def metrics(self) -> GatewayMetrics:
        """Called in the event loop at every scrape."""
        ...


class GatewayCollector(Collector):
    """Turns what the source says into metric families."""

    def __init__(self, source: MetricsSource) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        now = self._source.metrics()
        yield from endpoint_families(now.endpoints)
        yield from directory_families(now.directories)
        yield from radius_families(now.radius)
        yield from saml_families(now.saml)
        yield from _connect_handlers(now.connect_handlers, now.handler_troubles)
        yield from _data_path(now)
        yield from _daemon(now)
        yield from _store_and_host(now)
        yield from _http(now)


def build_registry(
    source: MetricsSource, *, by_user: ClientSource | None = None, openvpn_names: ClientSource | None = None
) -> CollectorRegistry:
    """A registry of our own (the library's global one would keep sources of earlier tests alive)."""
    registry = CollectorRegistry()
    registry.register(GatewayCollector(source))
    registry.register(ThreadCollector())
    if by_user is not None:
        registry.register(UserCollector(by_user))
    if openvpn_names is not None:
        registry.register(OpenVpnExporterCollector(openvpn_names))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def render_metrics(registry: CollectorRegistry) -> bytes:
    """The text exposition, served as ``CONTENT_TYPE``."""
    return generate_latest(registry)


def _connect_handlers(handlers: Mapping[str, Histogram], troubles: Mapping[str, str]) -> Iterator[Metric]:
    seconds = HistogramMetricFamily(
        "cvpnd_connect_handler_seconds",
        "How long clients waited for a client connect handler, their turn included, whatever came of it.",
        labels=["handler"],
    )
    for name, histogram in sorted(handlers.items()):
        seconds.add_metric([name], histogram.buckets(), histogram.sum)
    yield seconds
    usable = GaugeMetricFamily(
        "cvpnd_connect_handler_usable",
        "1 unless a client connect handler lets nobody in, as others could put something else in its place.",
        labels=["handler"],
    )
    for name, trouble in sorted(troubles.items()):
        usable.add_metric([name], not trouble)
    yield usable


def _data_path(now: GatewayMetrics) -> Iterator[Metric]:
    drops = CounterMetricFamily(
        "cvpnd_dropped_packets",
        "Packets that went no further, by the plane that dropped them and the reason.",
        labels=["plane", "reason"],
    )
    for reason, count in with_zeroes(now.data_drops, Drop):
        drops.add_metric(["data", reason], count)
    for reason, count in sorted(now.control_drops.items()):
        drops.add_metric(["control", str(reason)], count)
    yield drops
    engine = CounterMetricFamily(
        "cvpnd_engine_operations",
        "Running totals of the data plane's workers; packets over calls is the batch size.",
        labels=["kind"],
    )
    for kind, count in sorted(now.engine.items()):
        engine.add_metric([kind], count)
    yield engine
    door = CounterMetricFamily(
        "cvpnd_door_packets",
        "Control packets over UDP before Python sees them: of known sessions, of strangers, and what those got.",
        labels=["kind"],
    )
    for kind, count in sorted(now.door.items()):
        door.add_metric([kind], count)
    yield door
    yield GaugeMetricFamily("cvpnd_workers", "Data plane worker threads.", value=now.workers)


def _daemon(now: GatewayMetrics) -> Iterator[Metric]:
    build = GaugeMetricFamily(
        "cvpnd_build_info", "Always 1; the labels say what runs.", labels=["version", "python", "crypto"]
    )
    build.add_metric([now.version, platform.python_version(), now.crypto_backend], 1)
    yield build
    yield GaugeMetricFamily(
        "cvpnd_start_timestamp_seconds", "When the daemon was started, since the epoch.", value=now.started_at
    )
    yield GaugeMetricFamily(
        "cvpnd_reload_revision", "Configurations applied since the start.", value=now.reload_revision
    )
    yield GaugeMetricFamily(
        "cvpnd_last_reload_successful",
        "1 if the last reload was applied, 0 if it was refused and the old configuration runs on.",
        value=int(not now.last_reload_problem),
    )
    yield GaugeMetricFamily(
        "cvpnd_configuration_files_changed",
        "Files of the configuration that were changed since they were read: a reload is missing.",
        value=len(now.changed_files),
    )
    if now.last_reload_at is not None:
        yield GaugeMetricFamily(
            "cvpnd_last_reload_timestamp_seconds", "When a reload was last tried, since the epoch.", now.last_reload_at
        )
    yield CounterMetricFamily(
        "cvpnd_connection_log_lost",
        "Connection log entries that could not be written.",
        value=now.connection_log_lost,
    )
    queues = GaugeMetricFamily("cvpnd_queue_depth", "What waits in a queue of the daemon.", labels=["queue"])
    for queue, depth in sorted(now.queues.items()):
        queues.add_metric([queue], depth)
    yield queues
    if now.loop_lag is not None:
        lag = HistogramMetricFamily(
            "cvpnd_event_loop_lag_seconds", "How late the event loop was, looked at once a second."
        )
        lag.add_metric([], now.loop_lag.buckets(), now.loop_lag.sum)
        yield lag


def _store_and_host(now: GatewayMetrics) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "cvpnd_store_up",
        "1 if the state database can be used; 0: nothing is changed, and who needs it cannot log in.",
        value=int(now.store_outage_since is None),
    )
    yield GaugeMetricFamily(
        "cvpnd_endpoints_set_aside",
        "Endpoints that cannot be served here as another gateway, or the file, has them.",
        value=len(now.set_aside),
    )
    if now.store_outage_since is not None:
        yield GaugeMetricFamily(
            "cvpnd_store_outage_start_timestamp_seconds",
            "Since when the state database cannot be used.",
            now.store_outage_since,
        )
    yield GaugeMetricFamily(
        "cvpnd_host_in_order",
        "1 if the host is set up as the endpoints need it; 0: others keep changing it, or it cannot be put right.",
        value=int(not now.host_trouble),
    )
    changes = CounterMetricFamily(
        "cvpnd_host_changes", "Times that somebody else changed what the gateway set up on its host.", labels=["what"]
    )
    for what, count in with_zeroes(now.host_changes, HOST_CHANGES):
        changes.add_metric([what], count)
    yield changes


def _http(now: GatewayMetrics) -> Iterator[Metric]:
    refusals = CounterMetricFamily(
        "cvpnd_portal_refusals", "Pages of the portal that were refused, by reason.", labels=["reason"]
    )
    for reason, count in with_zeroes(now.portal_refusals, PortalRefusal):
        refusals.add_metric([reason], count)
    yield refusals
    downloads = CounterMetricFamily(
        "cvpnd_self_service_portal_client_configuration_downloads",
        "Profiles that people took from the portal.",
        labels=["endpoint"],
    )
    for name, count in with_zeroes(now.self_service_downloads, (each.name for each in now.endpoints)):
        downloads.add_metric([name], count)
    yield downloads
    refusals = CounterMetricFamily(
        "cvpnd_api_refusals", "Requests to the AWS-compatible API that were refused, by reason.", labels=["reason"]
    )
    for reason, count in with_zeroes(now.api_refusals, ApiRefusal):
        refusals.add_metric([reason], count)
    yield refusals
