"""``make install`` and ``make uninstall`` on a booted system, with a client served in between."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.booted import BootedSystem, machine
from helpers.lab import wait_until

REPOSITORY = Path(__file__).parents[2]
SOURCES = "/usr/src/cvpnd"

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_SERVICE"), reason="installs for minutes: make test-service"),
    pytest.mark.timeout(900),
]


def make(system: BootedSystem, target: str) -> str:
    """As an operator types it, on a host whose network has a registry of Python packages."""
    command = ("make", "--directory", SOURCES, target)
    return system.run(*command, timeout_s=600, outside_network=True).stdout


def files(system: BootedSystem) -> set[str]:
    found = system.run(
        "find", "/etc", "/opt", "/usr", "/var", "/run", "-xdev", "-iname", "*cvpn*", "-not", "-path", f"{SOURCES}*"
    ).stdout
    # systemd's own records, and the build that pip keeps for the next time
    return {path for path in found.split() if not path.startswith(("/run/systemd/", "/var/lib/systemd/"))}


def test_what_make_installs_serves_a_client_and_is_taken_back(tmp_path: Path) -> None:
    with BootedSystem(tmp_path, with_source=False) as system, machine("target", tmp_path) as target:
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
        for name in tracked.decode().split("\0"):
            if name and (REPOSITORY / name).is_file():
                copy = system.root / SOURCES.lstrip("/") / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, copy)
        system.boot()
        system.run("chmod", "0666", "/dev/net/tun")  # what udev does on a real host
        system.connect("lan", "10.20.0.1/24", target, "10.20.0.10/24")
        before = files(system)

        said = make(system, "install")
        assert "cvpnd init --dir /etc/cvpnd" in said
        system.run("cvpnd", "init", "--dir", "/etc/cvpnd", "--name", "vpn.example.com")
        system.run("systemctl", "enable", "--now", "cvpnd")
        assert system.property("cvpnd", "ActiveState") == "active"
        assert system.property("cvpnd", "MemoryDenyWriteExecute") == "yes"
        with machine("client", tmp_path) as client:
            system.connect("wan", "192.0.2.1/24", client, "192.0.2.2/24")
            system.client(client).wait_connected()
            assert client.ping("10.20.0.10", 3, 0.1).received == 3
            wait_until(lambda: "client1" in system.run("cvpnctl", "connection", "list").stdout)

            first = system.property("cvpnd", "MainPID")
            make(system, "install")
            assert system.property("cvpnd", "ActiveState") == "active"
            assert system.property("cvpnd", "MainPID") != first, "a gateway that runs goes on with what is new"

        said = make(system, "uninstall")
        assert "left in place: /etc/cvpnd" in said
        assert system.property("cvpnd", "ActiveState") == "inactive"
        assert "cvpnd" not in system.run("nft", "list", "tables").stdout
        assert "10.100.0." not in system.run("ip", "-4", "address").stdout
        kept = {"/etc/cvpnd", "/etc/cvpnd/cvpnd.toml", "/var/lib/cvpnd", "/var/log/cvpnd"}
        after = files(system)
        assert kept <= after and after - before <= kept
