"""NetworkManager's OpenVPN plugin as the client, on a booted system of its own: a profile as the gateway writes it is
imported, up, used, down, and up again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from helpers import other_releases
from helpers.booted import BootedSystem
from helpers.desktop import DEVICE, GATEWAY, desktop
from helpers.lab import TARGET_LEG, Lab, wait_until
from helpers.matrix import ODD_NAME, Cell, Matrix
from helpers.totp import code_of

from cvpnd.auth.passwords import hash_password

pytestmark = pytest.mark.skipif(
    not (other_releases.DIRECTORY / "network-manager").exists(), reason="make test-clients fetches NetworkManager"
)

SETTINGS = "[main]\nplugins=keyfile\nno-auto-default=*\ndns=default\n"
RESOLVERS = [TARGET_LEG.host, TARGET_LEG.host_v6]
DOMAINS = ["corp.example", "lab.example"]
PASSWORD = "correct horse"
PEOPLE = """
[[endpoint]]
name = "{name}"
client_cidr = "10.{number}.0.0/22"
client_cidr_v6 = "fd00:{number}::/64"
listen = ["udp://0.0.0.0:{number}", "tcp://0.0.0.0:{number}"]
remote = "{gateway}"
server_certificate = {{ certificate = "server.crt", private_key = "server.key", chain = "ca.crt" }}
authentication = [{{ type = "directory-service-authentication", directory = "local", mfa = "{mfa}" }}]
associate = ["subnet-a"]
authorize = [{{ network = "0.0.0.0/0", all_groups = true }}, {{ network = "::/0", all_groups = true }}]
split_tunnel = {split}
dns_servers = {resolvers}
dns_domains = {domains}
"""


def people(name: str, number: int, *, mfa: str = "off", split: str = "true") -> str:
    resolvers, domains = json.dumps(RESOLVERS), json.dumps(DOMAINS)
    return PEOPLE.format(
        name=name, number=number, gateway=GATEWAY, mfa=mfa, split=split, resolvers=resolvers, domains=domains
    )


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    more = (
        people("split", 200)
        + people("full", 201, split="false")
        + people("codes", 202, mfa="totp")
        + people("apart", 203)
    )
    more += f'[[local_users]]\nname = "anna"\npassword_hash = "{hash_password(PASSWORD)}"\n'
    with Lab() as lab:
        yield Matrix(lab, more=more)


@pytest.fixture(scope="module")
def system(matrix: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BootedSystem]:
    packages = other_releases.network_manager()
    with desktop(matrix.lab, tmp_path_factory.mktemp("desktop"), packages) as system:
        (system.root / "etc/NetworkManager/NetworkManager.conf").write_text(SETTINGS)
        (system.root / "etc/resolv.conf").unlink(missing_ok=True)
        system.run("systemctl", "start", "NetworkManager")
        address = ("ipv4.method", "manual", "ipv4.addresses", f"{DEVICE}/24", "ipv4.gateway", GATEWAY)
        system.run(
            "nmcli", "connection", "add", "type", "ethernet", "con-name", "wire", "ifname", "eth0", *address,
            "ipv6.method", "ignore", "ipv4.dns", GATEWAY,
        )  # fmt: skip
        system.run("nmcli", "connection", "up", "wire")
        yield system


@pytest.mark.parametrize(
    ("wrapping", "transport"),
    [("plain", "udp"), ("tls-auth SHA256", "udp"), ("tls-crypt", "tcp"), ("tls-crypt-v2", "udp")],
)
def test_profile_is_imported_and_connects(matrix: Matrix, system: BootedSystem, wrapping: str, transport: str) -> None:
    cell = Cell(wrapping, "AES-256-GCM", transport, 4)
    endpoint = f"e{cell.endpoint}"
    name = f"{ODD_NAME} at {endpoint}"
    profile = matrix.written_profile(cell, GATEWAY, "networkmanager")
    (system.root / f"root/{name}.ovpn").write_text(profile)
    system.run("nmcli", "connection", "import", "type", "openvpn", "file", f"/root/{name}.ovpn")
    system.run("nmcli", "connection", "up", name)
    for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
        system.run("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-w", "5", host)
    system.run("nmcli", "connection", "down", name)

    def ended() -> list[str]:
        entries = matrix.gateway.connection_log()
        return [e["connection-end-reason"] for e in entries if e["endpoint-name"] == endpoint]

    wait_until(lambda: [reason for reason in ended() if reason != "NA"], 10, "the end of the session")
    assert ended()[-1] == ("client-exit" if transport == "udp" else "tcp-closed")


def resolvers(system: BootedSystem) -> tuple[list[str], list[str]]:
    """What it has written for the whole system: servers, and domains to search."""
    written = (system.root / "etc/resolv.conf").read_text()
    (searched,) = re.findall("(?m)^search (.*)", written) or [""]
    return re.findall(r"(?m)^nameserver (\S+)", written), searched.split()


def imported(matrix: Matrix, system: BootedSystem, endpoint: str) -> None:
    """Anna's, as Windows writes lines."""
    profile = matrix.gateway.ctl("profile", "anna", "--endpoint", endpoint, "--for", "networkmanager").stdout
    (system.root / f"root/{endpoint}.ovpn").write_text(profile.replace("\n", "\r\n"))
    system.run("nmcli", "connection", "import", "type", "openvpn", "file", f"/root/{endpoint}.ovpn")
    system.run("nmcli", "connection", "modify", endpoint, "+vpn.data", "username=anna,password-flags=2")


@pytest.mark.parametrize("endpoint", ["split", "full"])
def test_a_password_lets_in_and_names_are_asked_inside(matrix: Matrix, system: BootedSystem, endpoint: str) -> None:
    imported(matrix, system, endpoint)
    (system.root / "root/password").write_text(f"vpn.secrets.password:{PASSWORD}\n")
    before = resolvers(system)
    for _ in range(2):
        system.run("nmcli", "connection", "up", endpoint, "passwd-file", "/root/password")
        for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
            system.run("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-w", "5", host)
        servers, searched = resolvers(system)
        assert set(servers[:2]) == set(RESOLVERS) and searched[:2] == DOMAINS
        system.run("nmcli", "connection", "down", endpoint)
        assert resolvers(system) == before


def test_a_split_tunnel_takes_everything_only_until_it_is_told_not_to(matrix: Matrix, system: BootedSystem) -> None:
    """As docs/routes.md has it."""
    elsewhere = ("ip", "route", "get", "203.0.113.9")
    (system.root / "root/password").write_text(f"vpn.secrets.password:{PASSWORD}\n")
    imported(matrix, system, "apart")
    for device in ("tun0", "eth0"):
        system.run("nmcli", "connection", "up", "apart", "passwd-file", "/root/password")
        system.run("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-w", "5", TARGET_LEG.host)
        assert f"dev {device}" in system.run(*elsewhere).stdout
        system.run("nmcli", "connection", "down", "apart")
        system.run("nmcli", "connection", "modify", "apart", "ipv4.never-default", "yes", "ipv6.never-default", "yes")


def test_a_person_is_asked_for_a_code_after_the_password(matrix: Matrix, system: BootedSystem) -> None:
    """It takes no notice of the profile's static challenge: the gateway asks by itself."""
    enrolment = matrix.gateway.ctl_json("user", "totp", "enrol", "anna")
    imported(matrix, system, "codes")
    answers = f"{PASSWORD}\n{code_of(enrolment)}\n"
    asked = system.run("nmcli", "--ask", "connection", "up", "codes", input=answers)
    assert "Enter MFA code" in asked.stdout
    system.run("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-w", "5", TARGET_LEG.host)
    system.run("nmcli", "connection", "down", "codes")
