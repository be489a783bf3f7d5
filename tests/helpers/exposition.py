"""A daemon's exposition in which everything occurs that may occur, from a source that is made up."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from cvpnd.dataplane.api import Drop
from cvpnd.ops.client_metrics import ClientMetrics, UserTraffic
from cvpnd.ops.directory_metrics import DirectoryMetrics
from cvpnd.ops.endpoint_metrics import EndpointMetrics
from cvpnd.ops.histogram import Histogram
from cvpnd.ops.metrics import GatewayMetrics, build_registry, render_metrics
from cvpnd.ops.saml_metrics import SamlMetrics
from cvpnd.reasons import End, Refusal

Sample = tuple[str, dict[str, str], float]


def histogram(*values: float) -> Histogram:
    made = Histogram((0.1, 1.0))
    for value in values:
        made.add(value)
    return made


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
            waiting_logins=8,
            authentication_failures={Refusal.CERTIFICATE_REVOKED: 4, "a-later-reason": 1},
            handshakes={"completed": 10, "refused": 5},
            logins={("certificate", "accepted"): 10, ("certificate", "refused"): 5},
            stages={("tls", "completed"): 12, ("login", "refused"): 2},
            stage_seconds={"tls": histogram(0.05, 0.5, 5.0)},
            ends={End.CLIENT_EXIT: 6},
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
            client_ca_expires_at=1950000000.0,
            files_problem="server.key: no key",
            crl_problem="nobody signed it",
            waiting_bytes=768,
            socket_drops=9,
        ),
        EndpointMetrics(name="guests"),
    ],
    data_drops={Drop.DENIED: 21},
    control_drops={"bad_hmac": 22},
    engine={"tun_packets_in": 31, "receive_calls": 32},
    door={"known_packets": 41},
    directories=[
        DirectoryMetrics("corp", 2, histogram(0.0625, 0.5, 0.5, 1.125, 1.125, 1.1875), {"ldaps://dc1": False})
    ],
    connect_handlers={"AWSClientVPN-posture": histogram(0.05, 2.0)},
    handler_troubles={"AWSClientVPN-posture": "", "AWSClientVPN-open": "others may write there"},
    radius=[DirectoryMetrics("corp", 1, histogram(0.05), {"radius://otp1": True})],
    saml=[
        SamlMetrics(
            "sso", histogram(0.05, 0.5), {"accepted": 1, "saml-expired": 1}, False, 3, 1850000000.0, 1860000000.0
        )
    ],
    reload_revision=4,
    last_reload_at=1700000100.0,
    last_reload_problem="cvpnd.toml: no TOML",
    host_changes={"firewall": 3},
    host_trouble="somebody changed net/ipv4/conf/lan/forwarding (sysctl), again and again",
    set_aside={"cvpn-endpoint-1": "its port is taken"},
    store_outage="state.db: the disk is full",
    store_outage_since=1700000200.0,
    connection_log_lost=6,
    queues={"connection_log": 51, "logins": 2},
    loop_lag=histogram(0.01, 0.2),
)


class Source:
    """Of gateway and clients."""

    def __init__(self, now: GatewayMetrics = BUSY) -> None:
        self.now = now
        self.user_traffic = UserTraffic(lambda _endpoint, user: user == "anna")

    def metrics(self) -> GatewayMetrics:
        return self.now

    def clients(self) -> list[ClientMetrics]:
        anna = ClientMetrics(
            "staff", "device-1", "anna", "10.100.0.2", "fd00::2", "192.0.2.7:5000", 100, 200, 1700000000.0, 2.0, 5,
            "AES-256-GCM",
        )  # fmt: skip
        eve = ClientMetrics(
            "staff", "Ёва,\nCLIENT_LIST\tx\u2028y\x85z", "", "10.100.0.3", "", "[2001:db8::7]:5001", 1, 2, 1700000001.0,
            0.0, 6, "AES-128-GCM",
        )  # fmt: skip
        return [anna, eve]

    def endpoint_names(self) -> list[str]:
        return ["staff", "guests"]


def exposition(source: Source) -> bytes:
    """With everything that can be switched on."""
    return render_metrics(build_registry(source, by_user=source, openvpn_names=source))


def everything(source: Source | None = None) -> list[Sample]:
    text = exposition(source or Source()).decode()
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
