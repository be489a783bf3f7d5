"""A Linux desktop's resolver: what the gateway pushes reaches it by each of the scripts that people use, questions go
to whom they should, and all is as before when the client has left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from helpers import certs, other_releases
from helpers.booted import BootedSystem
from helpers.desktop import GATEWAY, Unit, configure, desktop
from helpers.lab import HELPERS, TARGET_LEG, GatewayProcess, Lab
from helpers.netns import Process
from helpers.other_releases import generation

PACKAGES = {"systemd-resolved": other_releases.resolved, "openresolv": other_releases.resolvconf}

pytestmark = pytest.mark.skipif(
    not all((other_releases.DIRECTORY / name).exists() for name in PACKAGES),
    reason="make test-clients fetches systemd-resolved and openresolv",
)

INSIDE, AT_HOME = "10.20.0.99", "198.18.0.99"
"""What the name servers answer: the one that is pushed, and the one that the desktop has of its own network."""

ENDPOINTS = {
    "split": "split_tunnel = true",
    "full": "split_tunnel = false",
    "all": "split_tunnel = true\ndns_domains = []",
    "ipv6": f'split_tunnel = true\ndns_servers = ["{TARGET_LEG.host_v6}"]',
}
"""``all``: no domains, so that the resolver is for everything."""
ENDPOINT = """
[[endpoint]]
name = "{name}"
client_cidr = "10.{number}.0.0/22"
client_cidr_v6 = "fd00:{number}::/64"
listen = ["udp://0.0.0.0:{number}"]
remote = "{gateway}"
server_certificate = {{ certificate = "server.crt", private_key = "server.key" }}
authentication = [{{ type = "certificate-authentication", client_ca = "ca.crt" }}]
associate = ["subnet-a"]
authorize = [{{ network = "0.0.0.0/0", all_groups = true }}, {{ network = "::/0", all_groups = true }}]
{settings}
"""
DNS = {
    "dns_servers": f'["{TARGET_LEG.host}", "{TARGET_LEG.host_v6}"]',
    "dns_domains": '["corp.example", "lab.example"]',
}

SCRIPTS = {
    "update-systemd-resolved": "/etc/openvpn/update-systemd-resolved",
    "update-resolv-conf": "/etc/openvpn/update-resolv-conf",
    "dns-updown": "",
}
"""The last one is OpenVPN's own, since 2.7, and needs no word in the configuration."""
NEEDS = {"update-systemd-resolved": "systemd-resolved", "update-resolv-conf": "openresolv"}


def toml(name: str, settings: str, number: int) -> str:
    defaults = "".join(f"{key} = {value}\n" for key, value in DNS.items() if key not in settings)
    return ENDPOINT.format(name=name, number=number, gateway=GATEWAY, settings=defaults + settings)


@dataclass
class Desk:
    kind: str
    system: BootedSystem
    gateway: GatewayProcess
    inside: Process
    at_home: Process

    def address_of(self, name: str) -> str:
        """As programs ask, from the system's own /etc/resolv.conf; empty if there is no answer."""
        found = self.system.run("getent", "ahostsv4", name, check=False).stdout.split()
        return found[0] if found else ""

    def client(self, endpoint: str, script: str) -> Unit:
        profile = self.gateway.ctl("profile", "alice", "--endpoint", endpoint).stdout
        if SCRIPTS[script]:
            profile += f"script-security 2\nup {SCRIPTS[script]}\ndown {SCRIPTS[script]}\ndown-pre\n"
        return Unit(self.system, endpoint, profile)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def gateway(lab: Lab) -> GatewayProcess:
    directory = lab.directory / "gateway"
    directory.mkdir()
    certs.server().write(directory, "server")
    (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
    endpoints = (toml(name, more, number) for number, (name, more) in enumerate(ENDPOINTS.items(), 100))
    return lab.gateway_process(lab.networks_toml(ipv6=True) + "".join(endpoints))


@pytest.fixture(scope="module", params=PACKAGES)
def desk(
    request: pytest.FixtureRequest, lab: Lab, gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    places = ((lab.target, INSIDE, (TARGET_LEG.host, TARGET_LEG.host_v6)), (lab.gateway, AT_HOME, (GATEWAY,)))
    with desktop(lab, tmp_path_factory.mktemp("desktop"), PACKAGES[request.param]()) as system:
        configure(system)
        servers = [
            place.start(
                sys.executable, HELPERS / "name_server.py", f"--answer={answer}",
                *(f"--listen={host}" for host in hosts), label="names",
            )
            for place, answer, hosts in places
        ]  # fmt: skip
        for server in servers:
            server.wait_for("^ready")
        resolv_conf = system.root / "etc/resolv.conf"
        resolv_conf.unlink(missing_ok=True)
        if request.param == "systemd-resolved":
            resolv_conf.symlink_to("/run/systemd/resolve/stub-resolv.conf")
            system.run("systemctl", "start", "systemd-resolved")
            system.run("resolvectl", "dns", "eth0", GATEWAY)
        else:
            system.run("resolvconf", "-a", "eth0", input=f"nameserver {GATEWAY}\n")
        yield Desk(request.param, system, gateway, *servers)
        for server in servers:
            server.kill()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_questions_go_to_whom_they_should(desk: Desk, script: str, endpoint: str) -> None:
    if desk.kind != NEEDS.get(script, desk.kind):
        pytest.skip(f"{script} is for {NEEDS[script]}")
    if (script == "dns-updown") != (generation() >= (2, 7)):
        pytest.skip("dns-updown came with OpenVPN 2.7, in the other scripts' place: make test-clients")
    assert desk.address_of("before.corp.example") == AT_HOME
    client = desk.client(endpoint, script)
    client.start()
    try:
        before = [len(server.log()) for server in (desk.inside, desk.at_home)]
        assert desk.address_of("files.corp.example") == INSIDE
        assert desk.address_of("files.lab.example") == INSIDE
        if endpoint != "all":
            assert desk.address_of("printer") == INSIDE
            assert "asked for printer.corp.example" in desk.inside.log()
        separate = endpoint in ("split", "ipv6") and desk.kind == "systemd-resolved"
        outside = {desk.address_of(f"www{number}.example.net") for number in range(8)}
        assert outside == {AT_HOME if separate else INSIDE}
        inside, at_home = desk.inside.log()[before[0] :], desk.at_home.log()[before[1] :]
        assert "example.net" not in (inside if separate else at_home), "nobody else hears of it"
        assert "corp.example" not in at_home
    finally:
        client.stop()
        assert desk.address_of("after.corp.example") == AT_HOME
