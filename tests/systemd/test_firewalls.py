"""Other firewalls beside the service: ``doctor`` names what keeps clients out, and what it says to type lets them in.

With a stock client, as an administrator finds it: connected, and nothing in the target network answers any more.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from helpers import other_releases
from helpers.booted import SOURCE, VENV, BootedSystem, cvpnd, machine, source_drop_in, unit_files
from helpers.lab import HELPERS, OpenVpnClient, wait_until
from helpers.netns import Namespace

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_SERVICE"), reason="fetches firewalld and ufw: make test-service"),
    pytest.mark.timeout(300),
]

TARGET = "10.20.0.10"


@dataclass(frozen=True)
class Firewall:
    start: str
    reload: str
    stop: str
    theirs: str
    """Shows its tables."""
    closes_ports: bool = True


IPTABLES = "iptables -P FORWARD ACCEPT; iptables -P INPUT ACCEPT; iptables -F; iptables -X"
NO_IPTABLES = "nft delete table ip filter; nft delete table ip6 filter"
FIREWALLS = {
    "firewalld": Firewall(
        "systemctl start firewalld; firewall-cmd --permanent --remove-forward; firewall-cmd --reload",
        "firewall-cmd --reload", "systemctl stop firewalld", "nft list table inet firewalld",
    ),
    "ufw": Firewall(
        "ufw --force enable", "ufw reload", f"ufw --force disable; {NO_IPTABLES}",
        "nft list table ip filter; nft list table ip6 filter",
    ),
    "docker": Firewall(
        "iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER; "
        "iptables -P FORWARD DROP", "true", IPTABLES, "iptables-save -t filter", closes_ports=False,
    ),
    "iptables": Firewall(
        "for c in INPUT FORWARD; do iptables -A $c -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; "
        "iptables -A $c -i lo -j ACCEPT; iptables -A $c -j REJECT --reject-with icmp-host-prohibited; done",
        "iptables-save | iptables-restore", IPTABLES, "iptables-save -t filter",
    ),
    "iptables-legacy": Firewall(
        "for c in INPUT FORWARD; do iptables-legacy -A $c -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; "
        "iptables-legacy -A $c -i lo -j ACCEPT; iptables-legacy -P $c DROP; done",
        "iptables-legacy-save | iptables-legacy-restore", IPTABLES.replace("iptables", "iptables-legacy"),
        "iptables-legacy-save -t filter",
    ),
    "nftables": Firewall(
        "nft -f /etc/strict.nft", "nft delete table inet strict; nft -f /etc/strict.nft; sh /etc/strict.sh",
        "nft delete table inet strict", "nft list table inet strict",
    ),
}  # fmt: skip
STRICT = """table inet strict {
    chain in {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname "lo" accept
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain through {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        log prefix "no way" drop
    }
}
"""


@dataclass
class Site:
    system: BootedSystem
    client: OpenVpnClient
    machine: Namespace

    def shell(self, command: str) -> str:
        return self.system.run("sh", "-ec", command).stdout

    def findings(self) -> list[dict[str, Any]]:
        command = ["env", f"PYTHONPATH={SOURCE}", f"{VENV}/bin/python", "-m", "cvpnd.ctl", "doctor", "--json"]
        done = self.system.run(*command, check=False)
        found = json.loads(done.stdout)
        return [each for each in found if each["check"] == "firewall" and each["level"] != "ok"]

    def reaches(self) -> bool:
        """Not by ping, which ufw lets through."""
        try:
            with self.machine.connect((TARGET, 7), 1) as connection:
                connection.sendall(b"hello")
                return connection.recv(5) == b"hello"
        except OSError:
            return False


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("firewalls")
    try:
        packages = other_releases.firewalls()
    except other_releases.Unavailable as why:
        pytest.skip(f"no other firewalls: {why}")
    with (
        BootedSystem(directory) as system,
        machine("target", directory) as target,
        machine("client", directory) as client,
    ):
        system.install(packages)
        unit_files(system.root)
        source_drop_in(system.root)
        (system.root / "etc/strict.nft").write_text(STRICT)
        system.boot()
        system.run("chmod", "0666", "/dev/net/tun")
        system.connect("lan", "10.20.0.1/24", target, f"{TARGET}/24")
        system.connect("wan", "192.0.2.1/24", client, "192.0.2.2/24")
        cvpnd(system, "init", "--dir", "/etc/cvpnd", "--name", "vpn.example.com")
        system.run("systemctl", "start", "cvpnd")
        server = target.start(
            sys.executable, HELPERS / "target_server.py", "--http", "8000", "--echo", "7", label="servers"
        )
        server.wait_for("^ready")
        yield Site(system, system.client(client).wait_connected(), client)


def without_counters(listing: str) -> str:
    return re.sub(r"(?m)packets \d+ bytes \d+|^#.*|\[\d+:\d+\]", "", listing)


@pytest.mark.parametrize("name", FIREWALLS)
def test_doctor_names_the_firewall_and_what_it_says_to_type_lets_clients_through(site: Site, name: str) -> None:
    firewall = FIREWALLS[name]
    assert site.findings() == []
    wait_until(site.reaches, 20, "the target, before")
    site.shell(firewall.start)
    try:
        assert not site.reaches()
        found = site.findings()
        (forward,) = (each for each in found if "drops forwarded packets" in each["what"])
        assert forward["level"] == "problem"
        assert any("comes to udp port 1194" in each["what"] for each in found) == firewall.closes_ports
        commands = [each["fix"].partition(", for good")[0] for each in found]
        for command in dict.fromkeys(commands):
            site.shell(command)
        (site.system.root / "etc/strict.sh").write_text("\n".join(commands))
        assert site.findings() == []
        assert site.reaches()

        site.shell(firewall.reload)
        assert site.reaches()
        before = site.client.connected_count
        site.system.run("systemctl", "restart", "cvpnd")
        site.client.wait_connected(30, times=before + 1)
        assert site.reaches()
        theirs = without_counters(site.shell(firewall.theirs))
        site.system.run("systemctl", "stop", "cvpnd")
        assert "table inet cvpnd" not in site.shell("nft list tables")
        assert without_counters(site.shell(firewall.theirs)) == theirs
        site.system.run("systemctl", "start", "cvpnd")
        site.client.wait_connected(30, times=before + 2)
        assert site.reaches()
    finally:
        site.shell(firewall.stop)
