"""What Prometheus is told of each endpoint."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from cvpnd.ops.histogram import Histogram
from cvpnd.ops.words import with_zeroes
from cvpnd.reasons import End, Refusal

HANDSHAKE_RESULTS = ("completed", "refused", "abandoned")
LOGIN_RESULTS = ("accepted", "refused")
DENIED_BY = ("rules", "security-groups", "flows")
HANDSHAKE_STAGES = ("tls", "login", "keys")
"""See ``server/handshakes.py``."""


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
    rules_in_force: bool = True
    """All of them; else ``ServedEndpoint.narrowed_to``."""
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


def endpoint_families(endpoints: Sequence[EndpointMetrics]) -> Iterator[Metric]:
    for families in (_connections, _handshakes_and_ends, _traffic, _leases_and_rules, _trust, _sockets):
        yield from families(endpoints)


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
        for reason, count in with_zeroes(endpoint.authentication_failures, Refusal):
            failures.add_metric([endpoint.name, reason], count)
        for result, count in with_zeroes(endpoint.handshakes, HANDSHAKE_RESULTS):
            handshakes.add_metric([endpoint.name, result], count)
        for stage, result in itertools.product(HANDSHAKE_STAGES, HANDSHAKE_RESULTS):
            stages.add_metric([endpoint.name, stage, result], endpoint.stages.get((stage, result), 0))
        for stage, histogram in sorted(endpoint.stage_seconds.items()):
            stage_seconds.add_metric([endpoint.name, stage], histogram.buckets(), histogram.sum)
        for reason, count in with_zeroes(endpoint.ends, End):
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
        for by, count in with_zeroes(endpoint.denied, DENIED_BY):
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
        "Authorization rules.",
        ((e.name, e.authorization_rules) for e in endpoints),
    )
    yield _gauge(
        "cvpnd_authorization_rules_in_force",
        "1 if all authorization rules are in force, 0 if only what they say before and after a change that could be "
        "neither made nor taken back.",
        ((e.name, int(e.rules_in_force)) for e in endpoints),
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
    yield _gauge(
        "cvpnd_crl_usable",
        "0 if nobody gets in by a certificate, as the revocation list is not to be relied upon, else 1.",
        ((e.name, int(not e.crl_problem)) for e in endpoints),
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
