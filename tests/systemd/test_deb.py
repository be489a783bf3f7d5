"""The Debian package in a booted systemd: installed, used, upgraded under a client's eyes, removed, purged."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.booted import BootedSystem

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_SERVICE"), reason="builds a package for minutes: make test-service"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, packages: list[Path]) -> Iterator[BootedSystem]:
    with BootedSystem(tmp_path_factory.mktemp("booted"), with_source=False) as system:
        for number, package in enumerate(packages):
            shutil.copy(package, system.root / f"cvpnd-{number}.deb")
        system.boot()
        system.run("chmod", "0666", "/dev/net/tun")
        system.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "lan-peer")
        system.run("ip", "address", "add", "10.20.0.1/24", "dev", "lan")
        system.run("ip", "link", "set", "lan", "up")
        yield system


def pid(system: BootedSystem) -> str:
    return system.property("cvpnd", "MainPID")


def active(system: BootedSystem) -> bool:
    deadline = time.monotonic() + 20
    while system.property("cvpnd", "ActiveState") != "active":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def ours(system: BootedSystem) -> set[str]:
    """Files that would not be there without the package; what dpkg and systemd remember of it aside."""
    found = system.run(
        "find", "/etc", "/opt", "/usr", "/var", "-xdev", "-iname", "*cvpn*", "-not", "-path", "*/dpkg/*"
    ).stdout
    return {path for path in found.split() if "/systemd/timers/" not in path and "/cvpnd-source" not in path}


def test_lintian_finds_nothing_that_is_not_answered(packages: list[Path]) -> None:
    """What it is answered, and why, stands in packaging/debian/lintian-overrides."""
    if shutil.which("lintian") is None:
        pytest.skip("needs lintian")
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", packages[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_who_builds_it_is_named_as_they_are(packages: list[Path]) -> None:
    command = ["dpkg-deb", "--field", packages[1], "Maintainer"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.startswith(r"Smith & Sons | \1 <")


def test_from_installation_to_purge(system: BootedSystem) -> None:
    before = ours(system)
    told = system.run("dpkg", "--install", "/cvpnd-0.deb").stdout
    assert "cvpnd init --name" in told
    assert system.run("dpkg", "--verify", "cvpnd").stdout == ""
    system.run("cvpnd", "init", "--dir", "/etc/cvpnd", "--name", "vpn.example.com")
    system.run("systemctl", "enable", "--now", "cvpnd")
    assert active(system)
    assert "staff" in system.run("cvpnctl", "status", check=False).stdout
    assert system.run("ps", "-o", "user=", "-p", pid(system)).stdout.strip() == "cvpnd"

    first = pid(system)
    configuration = (system.root / "etc/cvpnd/cvpnd.toml").read_text()
    system.run("dpkg", "--install", "/cvpnd-1.deb")
    assert active(system) and pid(system) not in ("0", first)
    assert system.run("dpkg-query", "--show", "--showformat=${Version}", "cvpnd").stdout == "0.1.0~test2"
    assert (system.root / "etc/cvpnd/cvpnd.toml").read_text() == configuration

    system.run("dpkg", "--remove", "cvpnd")
    assert system.property("cvpnd", "ActiveState") == "inactive"
    assert "cvpnd" not in system.run("nft", "list", "tables").stdout
    assert not (system.root / "opt/cvpnd").exists()
    kept = {"/etc/cvpnd", "/etc/cvpnd/cvpnd.toml", "/var/lib/cvpnd", "/var/log/cvpnd"}
    assert kept <= ours(system) and ours(system) - before <= kept

    system.run("dpkg", "--install", "/cvpnd-1.deb")
    system.run("systemctl", "start", "cvpnd")
    assert active(system), "what a removal left is enough to go on"
    system.run("dpkg", "--purge", "cvpnd")
    assert ours(system) - before == set()
