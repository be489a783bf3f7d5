"""The chapter on backups, typed at a gateway that serves and at a machine that never was one."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from helpers.booted import SOURCE, VENV, BootedSystem, cvpnctl, cvpnd, machine, source_drop_in, unit_files
from helpers.lab import OpenVpnClient, wait_until
from helpers.netns import Namespace

CHAPTER = Path(__file__).parents[2] / "docs" / "backup.md"
BACKUP = "root/cvpnd-backup"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="boots a systemd: needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="systemd-container is not installed"),
    pytest.mark.skipif(shutil.which("sqlite3") is None, reason="sqlite3 is not installed"),
    pytest.mark.timeout(240),
]


def gateway(system: BootedSystem, client: Namespace, target: Namespace) -> None:
    """A machine with cvpnd installed, and nothing in /etc/cvpnd."""
    unit_files(system.root)
    source_drop_in(system.root)
    for name, module in (("cvpnd", "cvpnd"), ("cvpnctl", "cvpnd.ctl")):
        command = system.root / "usr/bin" / name
        command.write_text(f'#!/bin/sh\nPYTHONPATH={SOURCE} exec {VENV}/bin/python -m {module} "$@"\n')
        command.chmod(0o755)
    system.boot()
    system.run("chmod", "0666", "/dev/net/tun")  # what udev does on a real host
    system.connect("lan", "10.20.0.1/24", target, "10.20.0.10/24")
    system.connect("wan", "192.0.2.1/24", client, "192.0.2.2/24")


def told(system: BootedSystem) -> list[str]:
    return [cvpnctl(system, noun, "list", "--json") for noun in ("rule", "user", "certificate")]


def test_a_gateway_is_moved_to_another_machine_and_its_clients_come_back_by_their_tokens(tmp_path: Path) -> None:
    back_up, restore = re.findall(r"^```sh\n(.*?)^```", CHAPTER.read_text(), re.M | re.S)
    shell = ("bash", "-euo", "pipefail", "-c")
    for place in ("old", "new"):
        (tmp_path / place).mkdir()
    with machine("client", tmp_path) as client, machine("target", tmp_path) as target:
        with BootedSystem(tmp_path / "old") as system:
            gateway(system, client, target)
            cvpnd(system, "init", "--dir", "/etc/cvpnd", "--name", "vpn.example.com")
            configuration = system.root / "etc/cvpnd/cvpnd.toml"
            methods = re.compile(r'authentication = \[(?={ type = "certificate)')
            passwords = 'authentication = [{ type = "directory-service-authentication", directory = "local" }, '
            text, changed = methods.subn(passwords, configuration.read_text())
            assert changed == 1
            configuration.write_text(text)
            system.run("systemctl", "enable", "--now", "cvpnd")
            cvpnctl(system, "user", "add", "anna", input="of this gateway\n")
            cvpnctl(system, "rule", "add", "staff", "10.20.0.10/32", "--all-groups")
            login, profile = client.directory / "login", client.directory / "anna.ovpn"
            login.write_text("anna\nof this gateway\n")
            login.chmod(0o600)
            issued = cvpnctl(system, "profile", "anna", "--issue")
            profile.write_text(issued.replace("vpn.example.com 1194", "192.0.2.1 1194"))
            options = ("--auth-user-pass", login, "--auth-nocache", "--auth-retry", "none", "--verb", "4")
            anna = OpenVpnClient(client.start("openvpn", "--config", profile, *options), client).wait_connected()
            login.write_text("anna\nforgotten\n")

            system.run(*shell, back_up)
            assert {path.stat().st_mode & 0o777 for path in (system.root / BACKUP).iterdir()} == {0o600}
            assert client.ping("10.20.0.10", 3, 0.1).received == 3, "nobody has noticed"
            before = told(system)
            system.run("systemctl", "stop", "cvpnd")
            shutil.copytree(system.root / BACKUP, tmp_path / "backup")

        with BootedSystem(tmp_path / "new") as system:
            gateway(system, client, target)
            shutil.copytree(tmp_path / "backup", system.root / BACKUP)
            assert "staff" in system.run(*shell, restore).stdout
            assert told(system) == before
            anna.wait_connected(40, times=2)
            wait_until(lambda: client.ping("10.20.0.10", 1, 0.1).received == 1)

            system.run("systemctl", "stop", "cvpnd")
            (system.root / "var/lib/cvpnd/state.key").unlink()
            system.run("systemctl", "start", "cvpnd", check=False)
            said = system.run("journalctl", "--no-pager", "-u", "cvpnd").stdout
            assert "state.key is gone" in said and "put its backup there" in said
