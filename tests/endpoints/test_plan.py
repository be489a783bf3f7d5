"""What the host is told of the configuration."""

from pathlib import Path

from cvpnd.config import load
from cvpnd.endpoints.plan import host_plan

TOML = """
[metrics]
listen = "0.0.0.0:9176"
[api]
listen = "https://0.0.0.0:8443"
[portal]
listen = "0.0.0.0:8444"
url = "https://vpn.example.com:8444"
certificate = "c"
private_key = "k"
[[endpoint]]
name = "staff"
client_cidr = "10.100.0.0/22"
listen = ["udp://0.0.0.0:1194", "tcp://0.0.0.0:443"]
server_certificate = { certificate = "c", private_key = "k" }
authentication = [{ type = "certificate-authentication", client_ca = "ca" }]
"""


def test_nat_keeps_clients_off_every_port_that_this_daemon_listens_on(tmp_path: Path) -> None:
    """Of the portal and the API too: from there, answers to such a port would go to a client (CVE-2021-3773)."""
    (tmp_path / "cvpnd.toml").write_text(TOML)
    config = load(tmp_path / "cvpnd.toml")
    plan = host_plan(config, {config.endpoints[0].id: "cvpn0"}, 1)
    assert plan.listening_ports == {443, 1194, 8443, 8444, 9176}
