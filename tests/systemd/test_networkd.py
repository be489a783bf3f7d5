"""systemd-networkd on the same host, which by default (ManageForeignRoutes=) removes routes and rules that it did not
make when it configures an interface anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.booted import BootedSystem, cvpnd, machine, source_drop_in, unit_files
from helpers.lab import OpenVpnClient, wait_until
from helpers.netns import Namespace

NETWORKD = Path("/usr/lib/systemd/systemd-networkd")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="boots a systemd: needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="systemd-container is not installed"),
    pytest.mark.skipif(not NETWORKD.exists(), reason="systemd-networkd is not installed"),
]

TARGET = "10.20.0.10"
LINKS = {"lan": ("10.20.0.1/24", ""), "wan": ("192.0.2.1/24", "Gateway=192.0.2.2\n")}
EVERYTHING = "[Match]\nName=*\n[Network]\nLinkLocalAddressing=no\n"


@dataclass
class Site:
    system: BootedSystem
    client: OpenVpnClient
    machine: Namespace

    def routes(self) -> str:
        return self.system.run("sh", "-c", "ip rule; ip route show table all proto 211; ip address show cvpn0").stdout

    def told(self) -> str:
        return self.system.run("journalctl", "--no-pager", "-u", "cvpnd").stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("networkd")
    with (
        BootedSystem(directory) as system,
        machine("target", directory) as target,
        machine("client", directory) as client,
    ):
        unit_files(system.root)
        source_drop_in(system.root)
        system.boot()
        system.run("chmod", "0666", "/dev/net/tun")
        system.connect("lan", LINKS["lan"][0], target, f"{TARGET}/24")
        system.connect("wan", LINKS["wan"][0], client, "192.0.2.2/24")
        cvpnd(system, "init", "--dir", "/etc/cvpnd", "--name", "vpn.example.com")
        network = system.root / "etc/systemd/network"
        network.mkdir(exist_ok=True)
        for name, (address, more) in LINKS.items():
            system.run("ip", "address", "flush", "dev", name)
            text = f"[Match]\nName={name}\n[Network]\nAddress={address}\n{more}LinkLocalAddressing=no\n"
            (network / f"10-{name}.network").write_text(text)
        system.run("systemctl", "start", "systemd-networkd")
        system.run("/usr/lib/systemd/systemd-networkd-wait-online", "--interface=lan", "--timeout=20")
        system.run("systemctl", "start", "cvpnd")
        yield Site(system, system.client(client).wait_connected(), client)


@pytest.mark.parametrize("interface", LINKS)
def test_what_networkd_removes_is_back_before_a_client_notices(site: Site, interface: str) -> None:
    wait_until(lambda: site.machine.ping(TARGET, 1).received, 10, "the target")
    before, told = site.routes(), site.told()
    pinging = site.machine.start_ping(TARGET, 0.1)
    site.system.run("networkctl", "reconfigure", interface)
    wait_until(lambda: "routes were gone: put right" in site.told().removeprefix(told), 10, "what was put right")
    wait_until(lambda: site.routes() == before, 10, "routes, rules and addresses")
    statistics = pinging.finish()
    assert statistics.received > 0 and statistics.lost <= 15, statistics
    assert site.client.connected_count == 1


def test_restart_of_networkd_leaves_clients_connected(site: Site) -> None:
    before = site.routes()
    site.system.run("systemctl", "restart", "systemd-networkd")
    site.system.run("/usr/lib/systemd/systemd-networkd-wait-online", "--interface=lan", "--timeout=20")
    wait_until(lambda: site.routes() == before, 10, "routes, rules and addresses")
    assert site.machine.ping(TARGET, 3).received == 3
    assert site.client.connected_count == 1


def test_device_that_networkd_takes_for_its_own_keeps_its_address(site: Site) -> None:
    before = site.routes()
    path = site.system.root / "etc/systemd/network/99-everything.network"
    path.write_text(EVERYTHING)
    site.system.run("networkctl", "reload")
    site.system.run("sh", "-c", "networkctl reconfigure cvpn0")
    wait_until(lambda: "configured" in site.system.run("networkctl", "--no-pager", "list", "cvpn0").stdout, 10)
    wait_until(lambda: site.routes() == before, 10, "routes, rules and addresses")
    assert site.machine.ping(TARGET, 3).received == 3
    assert site.client.connected_count == 1
