"""The exposition: judged by promtool, complete from the first scrape, and equal to what the source says."""

import shutil
import socket
import subprocess
import threading
from ipaddress import ip_address
from pathlib import Path

import pytest
from helpers.exposition import BUSY, Source, everything, exposition
from prometheus_client.parser import text_string_to_metric_families

from cvpnd.dataplane.api import Drop
from cvpnd.ops.client_metrics import render_status, write_status
from cvpnd.ops.endpoint_metrics import EndpointMetrics
from cvpnd.ops.metrics import GatewayMetrics, build_registry, render_metrics
from cvpnd.ops.threads import cpu_seconds
from cvpnd.ops.udp_sockets import read_udp_sockets
from cvpnd.reasons import End, Refusal


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
        input=exposition(Source()),
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
        ("cvpnd_handshake_stages_total", "staff", "completed", "tls"): 12,
        ("cvpnd_handshake_stages_total", "staff", "refused", "login"): 2,
        ("cvpnd_handshake_stages_total", "guests", "abandoned", "keys"): 0,
        ("cvpnd_handshake_stage_seconds_bucket", "staff", "0.1", "tls"): 1,
        ("cvpnd_handshake_stage_seconds_bucket", "staff", "1.0", "tls"): 2,
        ("cvpnd_handshake_stage_seconds_count", "staff", "tls"): 3,
        ("cvpnd_connection_ends_total", "staff", "client-exit"): 6,
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
        ("cvpnd_client_ca_expiry_timestamp_seconds", "staff"): 1950000000,
        ("cvpnd_certificate_files_usable", "staff"): 0,
        ("cvpnd_certificate_files_usable", "guests"): 1,
        ("cvpnd_crl_usable", "staff"): 0,
        ("cvpnd_crl_usable", "guests"): 1,
        ("cvpnd_socket_receive_queue_bytes", "staff"): 768,
        ("cvpnd_socket_dropped_packets_total", "staff"): 9,
        ("cvpnd_directory_logins_pending", "corp"): 2,
        ("cvpnd_directory_server_up", "corp", "ldaps://dc1"): 0,
        ("cvpnd_directory_unchecked_accounts", "corp"): 0,
        ("cvpnd_waiting_logins", "staff"): 8,
        ("cvpnd_connect_handler_usable", "AWSClientVPN-posture"): 1,
        ("cvpnd_connect_handler_usable", "AWSClientVPN-open"): 0,
        ("cvpnd_saml_seconds_count", "sso"): 2,
        ("cvpnd_saml_responses_total", "sso", "accepted"): 1,
        ("cvpnd_saml_responses_total", "sso", "saml-expired"): 1,
        ("cvpnd_saml_responses_total", "sso", "saml-replayed"): 0,
        ("cvpnd_saml_metadata_usable", "sso"): 0,
        ("cvpnd_saml_metadata_failures_total", "sso"): 3,
        ("cvpnd_saml_metadata_expiry_timestamp_seconds", "sso"): 1850000000,
        ("cvpnd_saml_certificate_expiry_timestamp_seconds", "sso"): 1860000000,
        ("cvpnd_queue_depth", "connection_log"): 51,
        ("cvpnd_event_loop_lag_seconds_count",): 2,
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
        ("cvpnd_host_changes_total", "firewall"): 3,
        ("cvpnd_host_changes_total", "device"): 0,
        ("cvpnd_host_in_order",): 0,
        ("cvpnd_endpoints_set_aside",): 1,
        ("cvpnd_store_up",): 0,
        ("cvpnd_store_outage_start_timestamp_seconds",): 1700000200,
        ("cvpnd_connection_log_lost_total",): 6,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert any(key[0] == "cvpnd_build_info" and 'OpenSSL "EVP"' in key for key in found)
    assert ("cvpnd_crl_expiry_timestamp_seconds", "guests") not in found


def test_known_reasons_are_there_before_anything_happened() -> None:
    found = samples(BUSY)
    for reason in Refusal:
        assert ("cvpnd_authentication_failures_total", "guests", reason.value) in found
    for end in End:
        assert ("cvpnd_connection_ends_total", "guests", end.value) in found
    for drop in Drop:
        assert ("cvpnd_dropped_packets_total", "data", drop.value) in found


def test_a_scrape_shows_the_source_as_it_is_then() -> None:
    source = Source(BUSY)
    registry = build_registry(source)
    render_metrics(registry)
    source.now = GatewayMetrics("0.1.0", "EVP", 1, 0.0, [EndpointMetrics("staff", active_connections=9)], {}, {}, {})
    assert b'cvpnd_active_connections{endpoint="staff"} 9.0' in render_metrics(registry)


def test_no_series_names_a_user_unless_that_is_asked_for() -> None:
    quiet = render_metrics(build_registry(Source())).decode()
    assert "anna" not in quiet and "openvpn_" not in quiet
    source = Source()
    source.user_traffic.add("staff", "anna", 1000, 2000)
    found = {(name, *labels.values()): value for name, labels, value in everything(source)}
    assert found["cvpnd_user_connections", "staff", "anna"] == 1
    assert found["cvpnd_user_ingress_bytes_total", "staff", "anna"] == 1100
    assert found["cvpnd_user_egress_bytes_total", "staff", "anna"] == 2200
    assert found["openvpn_server_connected_clients", "staff"] == 2
    assert found["openvpn_up", "guests"] == 1
    assert found["openvpn_server_client_received_bytes_total", "device-1", "staff", "anna", "10.100.0.2"] == 100


def test_a_process_sees_its_threads_and_what_its_sockets_dropped() -> None:
    before = cpu_seconds()["main"]
    assert before > 0
    while cpu_seconds()["main"] <= before:
        pass
    other = cpu_seconds()["other"]
    for _ in range(20):  # as of log streams that come and go
        thread = threading.Thread(target=lambda: sum(range(200_000)))
        thread.start()
        thread.join()
        now = cpu_seconds()["other"]
        assert now >= other, "a counter does not forget threads that are over"
        other = now
    assert other > 0.02
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        receiver.bind(("127.0.0.1", 0))
        for _ in range(100):
            sender.sendto(bytes(500), receiver.getsockname())
        seen = read_udp_sockets()[ip_address("127.0.0.1"), receiver.getsockname()[1]]
        assert seen.waiting_bytes > 0 and 0 < seen.dropped < 100
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("::1", 0))
        assert read_udp_sockets()[ip_address("::1"), receiver.getsockname()[1]].dropped == 0


@pytest.mark.parametrize(("version", "separator"), [(2, ","), (3, "\t")])
def test_a_status_file_has_openvpns_columns_whatever_clients_call_themselves(
    version: int, separator: str, tmp_path: Path
) -> None:
    path = tmp_path / "status.log"
    write_status(path, render_status(Source().clients(), title="cvpnd 0", version=version, now=1700000010.0))
    assert path.stat().st_mode & 0o777 & ~0o640 == 0
    lines = [line.split(separator) for line in path.read_text("utf-8").splitlines()]
    assert lines[0] == ["TITLE", "cvpnd 0"] and lines[-1] == ["END"]
    assert lines[1][0] == "TIME" and lines[1][2] == "1700000010"
    columns = {line[1]: line[2:] for line in lines if line[0] == "HEADER"}
    for kind, rows in (("CLIENT_LIST", 2), ("ROUTING_TABLE", 3)):
        found = [dict(zip(columns[kind], line[1:], strict=True)) for line in lines if line[0] == kind]
        assert len(found) == rows
        assert found[0]["Common Name"] == "device-1" and found[0]["Real Address"] == "192.0.2.7:5000"
    assert [line[1:] for line in lines if line[0] == "GLOBAL_STATS"] == [
        ["Max bcast/mcast queue length", "0"], ["dco_enabled", "0"],
    ]  # fmt: skip
    assert [line[1] for line in lines if line[0] == "CLIENT_LIST"] == ["device-1", "Ёва__CLIENT_LIST_x_y_z"]
