"""Prometheus metrics, read from the running gateway at the moment of the scrape.

Nothing is counted here: whoever causes a number keeps it, and ``GatewayCollector`` asks for all of them in one
``MetricsSource.metrics()`` call. So a metric can never disagree with what the daemon itself says, and a scrape is the
only time that costs anything. Every known reason is exposed from the start at 0, so that ``rate()`` sees the first one.

Labels are endpoints and words of ours, never users or addresses: the number of series does not grow with the clients.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cvpnd.dataplane.api import Drop
from cvpnd.ops.client_metrics import ClientSource, OpenVpnExporterCollector, UserCollector
from cvpnd.ops.histogram import Histogram
from cvpnd.ops.saml_metrics import SamlMetrics, saml_families
from cvpnd.ops.threads import ThreadCollector
from cvpnd.reasons import ApiRefusal, End, PortalRefusal, Refusal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

HANDSHAKE_RESULTS = ("completed", "refused", "abandoned")
LOGIN_RESULTS = ("accepted", "refused")
DENIED_BY = ("rules", "security-groups", "flows")
HANDSHAKE_STAGES = ("tls", "login", "keys")
"""See ``server/handshakes.py``."""


HOST_CHANGES = ("device", "routes", "rules", "forwarding", "firewall")


@dataclass(frozen=True, slots=True)
class EndpointMetrics:
    """One endpoint now. Counters run since the daemon's start, ended connections included."""

    name: str
    active_connections: int = 0
    handshakes_in_progress: int = 0
    waiting_logins: int = 0
    """That wait for the person at the client."""
    authentication_failures: Mapping[str, int] = field(default_factory=dict)
    """``Refusal`` word -> attempts refused for it."""
    handshakes: Mapping[str, int] = field(default_factory=dict)
    """Result (``HANDSHAKE_RESULTS``, or another word) -> how many first handshakes ended so."""
    logins: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Method (``directory+totp``, ``token`` …) and result (``LOGIN_RESULTS``) -> how many. Renegotiations are none."""
    stages: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(Stage, result) -> how many first handshakes left the stage so."""
    stage_seconds: Mapping[str, Histogram] = field(default_factory=dict)
    """By stage, of those that completed it."""
    ends: Mapping[str, int] = field(default_factory=dict)
    """``End`` word -> connections that ended for it."""
    renegotiations: int = 0
    ingress_bytes: int = 0
    """From clients, inner packets, as ``PeerStats`` counts; "egress" is towards clients."""
    egress_bytes: int = 0
    ingress_packets: int = 0
    egress_packets: int = 0
    denied: Mapping[str, int] = field(default_factory=dict)
    """``DENIED_BY`` -> packets of clients that went no further for it."""
    lease_pool_size: int = 0
    lease_pool_used: int = 0
    authorization_rules: int = 0
    crl_expires_at: float | None = None
    """Seconds since the epoch; None if the endpoint has no CRL."""
    server_certificate_expires_at: float | None = None
    client_ca_expires_at: float | None = None
    """Of the first authority to expire."""
    files_problem: str = ""
    """Why the certificates and the CRL on disk are not those in use: earlier ones are, or ``crl_problem`` says why
    nobody gets in."""
    crl_problem: str = ""
    crl_gap: str = ""
    """Whose certificates it cannot revoke, as no list of their authority is in it."""
    waiting_bytes: int = 0
    """In the kernel's buffers of its UDP sockets."""
    socket_drops: int = 0
    """What found no room there."""


@dataclass(frozen=True, slots=True)
class DirectoryMetrics:
    """What logins ask a directory."""

    name: str
    pending: int
    latency: Histogram
    """In seconds."""
    servers: Mapping[str, bool] = field(default_factory=dict)
    """URL -> whether it answered when it was asked last."""
    unchecked: int = 0
    """Accounts that cannot be looked at any more."""


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
    awaits_restart: tuple[str, ...] = ()
    """Tables and keys of the file that are read when the daemon starts, and stand otherwise now."""
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
    endings_unstored: tuple[str, ...] = ()
    """Users and connections whose logins were ended, of which the state database does not know yet."""
    clock_trouble: str = ""
    """What the wall clock has done lately."""
    connection_log_lost: int = 0
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
        for families in (_connections, _handshakes_and_ends, _traffic, _leases_and_rules, _trust, _sockets):
            yield from families(now.endpoints)
        yield from _directories(now.directories)
        yield from _radius(now.radius)
        yield from saml_families(now.saml)
        yield from _connect_handlers(now.connect_handlers, now.handler_troubles)
        yield from _data_path(now)
        yield from _daemon(now)
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


def _gauge(name: str, help_text: str, values: Iterable[tuple[str, float | None]]) -> Metric:
    """Of endpoints by name; None: that one has no such number."""
    family = GaugeMetricFamily(name, help_text, labels=["endpoint"])
    for endpoint, value in values:
        if value is not None:
            family.add_metric([endpoint], value)
    return family


def _counter(name: str, help_text: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=["endpoint"])
    for endpoint, value in values:
        family.add_metric([endpoint], value)
    return family


def _connections(endpoints: Sequence[EndpointMetrics]) -> Iterator[Metric]:
    yield _gauge(
        "cvpnd_active_connections",
        "Clients connected now.",
        ((e.name, e.active_connections) for e in endpoints),
    )
    yield _gauge(
        "cvpnd_handshakes_in_progress",
        "Clients between their first answered packet and being connected or refused.",
        ((e.name, e.handshakes_in_progress) for e in endpoints),
    )
    yield _gauge(
        "cvpnd_waiting_logins",
        "Logins that wait for the person at the client now.",
        ((e.name, e.waiting_logins) for e in endpoints),
    )


def _handshakes_and_ends(endpoints: Sequence[EndpointMetrics]) -> Iterator[Metric]:
    failures = CounterMetricFamily(
        "cvpnd_authentication_failures",
        "Connection attempts that were refused, by reason (the word that the connection log has).",
        labels=["endpoint", "reason"],
    )
    handshakes = CounterMetricFamily(
        "cvpnd_handshakes", "First handshakes by how they ended.", labels=["endpoint", "result"]
    )
    logins = CounterMetricFamily(
        "cvpnd_logins",
        "Logins by what they were made with (the method that the connection log has) and by how they ended.",
        labels=["endpoint", "method", "result"],
    )
    stages = CounterMetricFamily(
        "cvpnd_handshake_stages",
        'First handshakes by how they left a stage: "tls" until the credentials are here, "login" until the client '
        'is let in, "keys" until its first data key is in force.',
        labels=["endpoint", "stage", "result"],
    )
    stage_seconds = HistogramMetricFamily(
        "cvpnd_handshake_stage_seconds",
        "How long first handshakes took for a stage that they completed.",
        labels=["endpoint", "stage"],
    )
    ends = CounterMetricFamily(
        "cvpnd_connection_ends",
        "Connections that ended, by reason (the word that the connection log has).",
        labels=["endpoint", "reason"],
    )
    for endpoint in endpoints:
        for (method, result), count in endpoint.logins.items():
            logins.add_metric([endpoint.name, method, result], count)
        for reason, count in _with_zeroes(endpoint.authentication_failures, Refusal):
            failures.add_metric([endpoint.name, reason], count)
        for result, count in _with_zeroes(endpoint.handshakes, HANDSHAKE_RESULTS):
            handshakes.add_metric([endpoint.name, result], count)
        for stage, result in itertools.product(HANDSHAKE_STAGES, HANDSHAKE_RESULTS):
            stages.add_metric([endpoint.name, stage, result], endpoint.stages.get((stage, result), 0))
        for stage, histogram in sorted(endpoint.stage_seconds.items()):
            stage_seconds.add_metric([endpoint.name, stage], histogram.buckets(), histogram.sum)
        for reason, count in _with_zeroes(endpoint.ends, End):
            ends.add_metric([endpoint.name, reason], count)
    yield failures
    yield handshakes
    yield logins
    yield stages
    yield stage_seconds
    yield ends
    yield _counter(
        "cvpnd_renegotiations",
        "Data keys renewed by a new handshake within a connection.",
        ((e.name, e.renegotiations) for e in endpoints),
    )


def _traffic(endpoints: Sequence[EndpointMetrics]) -> Iterator[Metric]:
    for name, help_text, values in (
        ("ingress_bytes", "Bytes of inner packets from clients.", [(e.name, e.ingress_bytes) for e in endpoints]),
        ("egress_bytes", "Bytes of inner packets to clients.", [(e.name, e.egress_bytes) for e in endpoints]),
        ("ingress_packets", "Inner packets from clients.", [(e.name, e.ingress_packets) for e in endpoints]),
        ("egress_packets", "Inner packets to clients.", [(e.name, e.egress_packets) for e in endpoints]),
    ):
        yield _counter(f"cvpnd_{name}", help_text, values)
    denied = CounterMetricFamily(
        "cvpnd_denied_packets",
        "Packets of clients that went no further: by the authorization rules, the security groups, or as flows beyond "
        "flows_per_client.",
        labels=["endpoint", "by"],
    )
    for endpoint in endpoints:
        for by, count in _with_zeroes(endpoint.denied, DENIED_BY):
            denied.add_metric([endpoint.name, by], count)
    yield denied


def _leases_and_rules(endpoints: Sequence[EndpointMetrics]) -> Iterator[Metric]:
    yield _gauge(
        "cvpnd_lease_pool_size",
        "Addresses that the endpoint can lease to clients.",
        ((e.name, e.lease_pool_size) for e in endpoints),
    )
    yield _gauge(
        "cvpnd_lease_pool_used",
        "Addresses leased now.",
        ((e.name, e.lease_pool_used) for e in endpoints),
    )
    yield _gauge(
        "cvpnd_authorization_rules",
        "Authorization rules in force.",
        ((e.name, e.authorization_rules) for e in endpoints),
    )


def _trust(endpoints: Sequence[EndpointMetrics]) -> Iterator[Metric]:
    # the time itself and not what is left of it: alerts subtract time(), and promtool asks for seconds
    yield _gauge(
        "cvpnd_crl_expiry_timestamp_seconds",
        "When the revocation list expires and nobody can connect; days left: (this - time()) / 86400.",
        ((e.name, e.crl_expires_at) for e in endpoints),
    )
    yield _gauge(
        "cvpnd_server_certificate_expiry_timestamp_seconds",
        "When the server certificate expires; days left: (this - time()) / 86400.",
        ((e.name, e.server_certificate_expires_at) for e in endpoints),
    )
    yield _gauge(
        "cvpnd_client_ca_expiry_timestamp_seconds",
        "When the first authority of client certificates expires; days left: (this - time()) / 86400.",
        ((e.name, e.client_ca_expires_at) for e in endpoints),
    )
    yield _gauge(
        "cvpnd_certificate_files_usable",
        "1 if the certificates and the CRL on disk are in use, 0 if they cannot be used.",
        ((e.name, int(not e.files_problem)) for e in endpoints),
    )


def _sockets(endpoints: Sequence[EndpointMetrics]) -> Iterator[Metric]:
    yield _gauge(
        "cvpnd_socket_receive_queue_bytes",
        "What waits in the kernel for the endpoint's UDP sockets to be read.",
        ((e.name, e.waiting_bytes) for e in endpoints),
    )
    yield _counter(
        "cvpnd_socket_dropped_packets",
        "Packets that found the receive buffers of the endpoint's UDP sockets full.",
        ((e.name, e.socket_drops) for e in endpoints),
    )


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


def _directories(directories: Sequence[DirectoryMetrics]) -> Iterator[Metric]:
    pending = GaugeMetricFamily(
        "cvpnd_directory_logins_pending", "Logins that wait for the directory now.", labels=["directory"]
    )
    latency = HistogramMetricFamily(
        "cvpnd_directory_seconds",
        "How long the directory took to answer, for a login or a look at an account.",
        labels=["directory"],
    )
    up = GaugeMetricFamily(
        "cvpnd_directory_server_up",
        "1 unless the server of a directory failed when it was asked last.",
        labels=["directory", "server"],
    )
    unchecked = GaugeMetricFamily(
        "cvpnd_directory_unchecked_accounts",
        "Accounts that bound themselves, whose connection is lost: their sessions end after unchecked_s.",
        labels=["directory"],
    )
    for directory in directories:
        unchecked.add_metric([directory.name], directory.unchecked)
    _fill(directories, pending, latency, up)
    yield pending
    yield latency
    yield up
    yield unchecked


def _radius(directories: Sequence[DirectoryMetrics]) -> Iterator[Metric]:
    pending = GaugeMetricFamily(
        "cvpnd_radius_pending", "Questions that RADIUS servers have not answered yet.", labels=["directory"]
    )
    latency = HistogramMetricFamily(
        "cvpnd_radius_seconds",
        "How long a second factor took at RADIUS servers, answered or not.",
        labels=["directory"],
    )
    up = GaugeMetricFamily(
        "cvpnd_radius_server_up",
        "1 unless the RADIUS server failed when it was asked last.",
        labels=["directory", "server"],
    )
    _fill(directories, pending, latency, up)
    yield pending
    yield latency
    yield up


def _fill(
    directories: Sequence[DirectoryMetrics],
    pending: GaugeMetricFamily,
    latency: HistogramMetricFamily,
    up: GaugeMetricFamily,
) -> None:
    for directory in directories:
        for server, well in directory.servers.items():
            up.add_metric([directory.name, server], int(well))
        pending.add_metric([directory.name], directory.pending)
        latency.add_metric([directory.name], directory.latency.buckets(), directory.latency.sum)


def _data_path(now: GatewayMetrics) -> Iterator[Metric]:
    drops = CounterMetricFamily(
        "cvpnd_dropped_packets",
        "Packets that went no further, by the plane that dropped them and the reason.",
        labels=["plane", "reason"],
    )
    for reason, count in _with_zeroes(now.data_drops, Drop):
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
    if now.last_reload_at is not None:
        yield GaugeMetricFamily(
            "cvpnd_last_reload_timestamp_seconds", "When a reload was last tried, since the epoch.", now.last_reload_at
        )
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
    for what, count in _with_zeroes(now.host_changes, HOST_CHANGES):
        changes.add_metric([what], count)
    yield changes
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


def _http(now: GatewayMetrics) -> Iterator[Metric]:
    refusals = CounterMetricFamily(
        "cvpnd_portal_refusals", "Pages of the portal that were refused, by reason.", labels=["reason"]
    )
    for reason, count in _with_zeroes(now.portal_refusals, PortalRefusal):
        refusals.add_metric([reason], count)
    yield refusals
    downloads = CounterMetricFamily(
        "cvpnd_self_service_portal_client_configuration_downloads",
        "Profiles that people took from the portal.",
        labels=["endpoint"],
    )
    for name, count in _with_zeroes(now.self_service_downloads, (each.name for each in now.endpoints)):
        downloads.add_metric([name], count)
    yield downloads
    refusals = CounterMetricFamily(
        "cvpnd_api_refusals", "Requests to the AWS-compatible API that were refused, by reason.", labels=["reason"]
    )
    for reason, count in _with_zeroes(now.api_refusals, ApiRefusal):
        refusals.add_metric([reason], count)
    yield refusals


def _with_zeroes(counts: Mapping[str, int], known: Iterable[str]) -> list[tuple[str, int]]:
    """Every known word, counted or not, and then any other that was counted."""
    words = dict.fromkeys(str(word) for word in known) | dict.fromkeys(sorted(str(word) for word in counts))
    return [(word, counts.get(word, 0)) for word in words]
