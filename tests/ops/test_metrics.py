"""The exposition: judged by promtool, complete from the first scrape, and equal to what the source says."""

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cvpnd.dataplane.api import Drop
from cvpnd.ops.metrics import EndpointMetrics, GatewayMetrics, build_registry, render_metrics
from cvpnd.reasons import Refusal


class Source:
    def __init__(self, now: GatewayMetrics) -> None:
        self.now = now

    def metrics(self) -> GatewayMetrics:
        return self.now


BUSY = GatewayMetrics(
    version="0.1.0",
    crypto_backend='OpenSSL "EVP"',
    workers=2,
    started_at=1700000000.0,
    endpoints=[
        EndpointMetrics(
            name="staff",
            active_connections=3,
            handshakes_in_progress=1,
            authentication_failures={Refusal.CERTIFICATE_REVOKED: 4, "a-later-reason": 1},
            handshakes={"completed": 10, "refused": 5},
            logins={("certificate", "accepted"): 10, ("certificate", "refused"): 5},
            renegotiations=7,
            ingress_bytes=2**53,
            egress_bytes=11,
            ingress_packets=12,
            egress_packets=13,
            denied={"rules": 14},
            lease_pool_size=1021,
            lease_pool_used=3,
            authorization_rules=2,
            crl_expires_at=1800000000.0,
            server_certificate_expires_at=1900000000.0,
        ),
        EndpointMetrics(name="guests"),
    ],
    data_drops={Drop.DENIED: 21},
    control_drops={"bad_hmac": 22},
    engine={"tun_packets_in": 31, "receive_calls": 32},
    reload_revision=4,
    last_reload_at=1700000100.0,
    last_reload_successful=False,
    connection_log_lost=6,
)


def samples(now: GatewayMetrics) -> dict[tuple[str, ...], float]:
    text = render_metrics(build_registry(Source(now))).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("cvpnd_")
    }


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.fail("promtool is missing: make test fetches it")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=render_metrics(build_registry(Source(BUSY))),
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_every_fact_of_the_source_is_a_sample() -> None:
    found = samples(BUSY)
    expected = {
        ("cvpnd_active_connections", "staff"): 3,
        ("cvpnd_handshakes_in_progress", "staff"): 1,
        ("cvpnd_authentication_failures_total", "staff", "certificate-revoked"): 4,
        ("cvpnd_authentication_failures_total", "staff", "a-later-reason"): 1,
        ("cvpnd_handshakes_total", "staff", "completed"): 10,
        ("cvpnd_handshakes_total", "staff", "refused"): 5,
        ("cvpnd_logins_total", "staff", "certificate", "accepted"): 10,
        ("cvpnd_logins_total", "staff", "certificate", "refused"): 5,
        ("cvpnd_renegotiations_total", "staff"): 7,
        ("cvpnd_ingress_bytes_total", "staff"): 2**53,
        ("cvpnd_egress_bytes_total", "staff"): 11,
        ("cvpnd_ingress_packets_total", "staff"): 12,
        ("cvpnd_egress_packets_total", "staff"): 13,
        ("cvpnd_denied_packets_total", "rules", "staff"): 14,
        ("cvpnd_denied_packets_total", "security-groups", "guests"): 0,
        ("cvpnd_lease_pool_size", "staff"): 1021,
        ("cvpnd_lease_pool_used", "staff"): 3,
        ("cvpnd_authorization_rules", "staff"): 2,
        ("cvpnd_crl_expiry_timestamp_seconds", "staff"): 1800000000,
        ("cvpnd_server_certificate_expiry_timestamp_seconds", "staff"): 1900000000,
        ("cvpnd_active_connections", "guests"): 0,
        ("cvpnd_dropped_packets_total", "data", "denied"): 21,
        ("cvpnd_dropped_packets_total", "control", "bad_hmac"): 22,
        ("cvpnd_engine_operations_total", "tun_packets_in"): 31,
        ("cvpnd_engine_operations_total", "receive_calls"): 32,
        ("cvpnd_workers",): 2,
        ("cvpnd_start_timestamp_seconds",): 1700000000,
        ("cvpnd_reload_revision",): 4,
        ("cvpnd_last_reload_successful",): 0,
        ("cvpnd_last_reload_timestamp_seconds",): 1700000100,
        ("cvpnd_connection_log_lost_total",): 6,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert any(key[0] == "cvpnd_build_info" and 'OpenSSL "EVP"' in key for key in found)
    assert ("cvpnd_crl_expiry_timestamp_seconds", "guests") not in found


def test_known_reasons_are_there_before_anything_happened() -> None:
    found = samples(BUSY)
    for reason in Refusal:
        assert ("cvpnd_authentication_failures_total", "guests", reason.value) in found
    for drop in Drop:
        assert ("cvpnd_dropped_packets_total", "data", drop.value) in found


def test_a_scrape_shows_the_source_as_it_is_then() -> None:
    source = Source(BUSY)
    registry = build_registry(source)
    render_metrics(registry)
    source.now = GatewayMetrics("0.1.0", "EVP", 1, 0.0, [EndpointMetrics("staff", active_connections=9)], {}, {}, {})
    assert b'cvpnd_active_connections{endpoint="staff"} 9.0' in render_metrics(registry)
