"""NetworkManager's OpenVPN plugin as the client, on a booted system of its own: a profile as the gateway writes it is
imported, up, used, down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import other_releases
from helpers.booted import BootedSystem
from helpers.lab import TARGET_LEG, Lab, wait_until
from helpers.matrix import ODD_NAME, Cell, Matrix

pytestmark = pytest.mark.skipif(
    not (other_releases.DIRECTORY / "network-manager").exists(), reason="make test-clients fetches NetworkManager"
)

GATEWAY, DEVICE = "198.18.0.1", "198.18.0.2"
SETTINGS = "[main]\nplugins=keyfile\nno-auto-default=*\ndns=none\n"


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with Lab() as lab:
        yield Matrix(lab)


@pytest.fixture(scope="module")
def desktop(matrix: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BootedSystem]:
    """A system with NetworkManager, one link away from the gateway."""
    with BootedSystem(tmp_path_factory.mktemp("desktop")) as system:
        system.install(other_releases.network_manager())
        (system.root / "etc/NetworkManager/NetworkManager.conf").write_text(SETTINGS)
        system.boot()
        system.run("chmod", "0666", "/dev/net/tun")
        matrix.lab.gateway.ip_batch(
            f"link add desktop index 190 type veth peer name eth0 netns {system.init_pid}",
            f"address add {GATEWAY}/24 dev desktop",
            "link set desktop up",
        )
        system.run("systemctl", "start", "NetworkManager")
        address = ("ipv4.method", "manual", "ipv4.addresses", f"{DEVICE}/24", "ipv4.gateway", GATEWAY)
        system.run(
            "nmcli", "connection", "add", "type", "ethernet", "con-name", "wire", "ifname", "eth0", *address,
            "ipv6.method", "ignore",
        )  # fmt: skip
        system.run("nmcli", "connection", "up", "wire")
        yield system


@pytest.mark.parametrize(
    ("wrapping", "transport"),
    [("plain", "udp"), ("tls-auth SHA256", "udp"), ("tls-crypt", "tcp"), ("tls-crypt-v2", "udp")],
)
def test_profile_is_imported_and_connects(matrix: Matrix, desktop: BootedSystem, wrapping: str, transport: str) -> None:
    cell = Cell(wrapping, "AES-256-GCM", transport, 4)
    endpoint = f"e{cell.endpoint}"
    name = f"{ODD_NAME} at {endpoint}"
    profile = matrix.written_profile(cell, GATEWAY, "networkmanager")
    (desktop.root / f"root/{name}.ovpn").write_text(profile)
    desktop.run("nmcli", "connection", "import", "type", "openvpn", "file", f"/root/{name}.ovpn")
    desktop.run("nmcli", "connection", "up", name)
    for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
        desktop.run("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-w", "5", host)
    desktop.run("nmcli", "connection", "down", name)

    def ended() -> list[str]:
        entries = matrix.gateway.connection_log()
        return [e["connection-end-reason"] for e in entries if e["endpoint-name"] == endpoint]

    wait_until(lambda: [reason for reason in ended() if reason != "NA"], 10, "the end of the session")
    assert ended()[-1] == ("client-exit" if transport == "udp" else "tcp-closed")
