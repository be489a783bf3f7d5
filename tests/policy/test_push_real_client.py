"""The installed ``openvpn`` reads every option we may push, and complains about none."""

import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from helpers.openvpn_client import OPENVPN, needs_openvpn
from helpers.pair import server_context
from helpers.pump import Pump, write_client_files

from cvpnd.config import EndpointConfig
from cvpnd.policy.model import ClientFacts, Lease, Route
from cvpnd.policy.push import push_options

pytestmark = needs_openvpn

FACTS = ClientFacts(
    proto=990,
    iv_mtu=1600,
    own_mtu=1500,
    platform="linux",
    transport="udp",
    address=ip_address("192.168.1.20"),
    server_address=ip_address("192.168.1.10"),
    lan=ip_network("203.0.113.0/24"),
)
V4, V6 = ip_address("10.100.0.7"), ip_address("fd00:100::7")
ROUTES = [
    Route(ip_network(n), "a", "associate") for n in ("10.20.0.0/16", "192.168.1.0/24", "fd00:20::/48", "10.9.9.9/32")
]


@pytest.mark.parametrize("split_tunnel", [True, False], ids=["split", "full"])
@pytest.mark.parametrize("v6", [True, False], ids=["v6", "v4"])
@pytest.mark.parametrize("proto", [990, 2], ids=["new-dns", "old-dns"])
def test_no_pushed_option_is_refused(tmp_path: Path, split_tunnel: bool, v6: bool, proto: int) -> None:
    endpoint = EndpointConfig.model_validate(
        {
            "name": "staff",
            "client_cidr": "10.100.0.0/22",
            "client_cidr_v6": "fd00:100::/64" if v6 else None,
            "listen": ("udp://0.0.0.0:1194",),
            "server_certificate": {"certificate": "c", "private_key": "k"},
            "authentication": ({"type": "certificate-authentication", "client_ca": "ca"},),
            "split_tunnel": split_tunnel,
            "dns_servers": ("10.20.0.2", "fd00:20::2"),
            "dns_domains": ("corp.example.com", "example.com"),
            "login_banner": "\N{LOCK}" * 1400 if v6 else "",
        }
    )
    options = push_options(endpoint, ROUTES, Lease(V4, V6 if v6 else None), replace(FACTS, proto=proto))
    log = tmp_path / "client.log"
    with Pump(server_context(), push=options) as pump, log.open("wb") as output:
        command = [
            *OPENVPN,
            "--client",
            "--dev",
            "null",
            "--ifconfig-noexec",
            "--route-noexec",
            "--nobind",
            "--verb",
            "4",
        ]
        command += ["--remote", "127.0.0.1", str(pump.port), "--proto", "udp4", "--remote-cert-tls", "server"]
        process = subprocess.Popen([*command, *write_client_files(tmp_path)], stdout=output, stderr=subprocess.STDOUT)
        try:
            assert pump.run(lambda: "Initialization Sequence Completed" in log.read_text()), log.read_text()
        finally:
            process.kill()
            process.wait()
    text = log.read_text()
    assert f"PUSH: Received control message: 'PUSH_REPLY,{options[0]}," in text
    for complaint in ("Options error", "Unrecognized option", "DEPRECATED OPTION", "unsupported", "unknown"):
        assert complaint not in text, [line for line in text.splitlines() if complaint in line]
