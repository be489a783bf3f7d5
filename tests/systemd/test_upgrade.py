"""From a package of an earlier time to this one's, under the eyes of a client whose password nobody has any more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers.booted import BootedSystem, cvpnctl, cvpnd, machine
from helpers.lab import OpenVpnClient

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_SERVICE"), reason="builds two packages: make test-service"),
    pytest.mark.timeout(900),
]

CERTIFICATES = 'authentication = [{ type = "certificate-authentication"'
PASSWORDS = 'authentication = [{ type = "directory-service-authentication", directory = "local" }, '


def test_an_upgrade_keeps_what_was_configured_and_its_clients_come_back_by_their_tokens(
    tmp_path: Path, older_package: Path, packages: list[Path]
) -> None:
    with (
        BootedSystem(tmp_path, with_source=False) as system,
        machine("target", tmp_path) as target,
        machine("client", tmp_path) as client,
    ):
        shutil.copy(older_package, system.root / "older.deb")
        shutil.copy(packages[1], system.root / "newer.deb")
        system.boot()
        system.run("chmod", "0666", "/dev/net/tun")  # what udev does on a real host
        system.connect("lan", "10.20.0.1/24", target, "10.20.0.10/24")
        system.connect("wan", "192.0.2.1/24", client, "192.0.2.2/24")

        system.run("dpkg", "--install", "/older.deb")
        cvpnd(system, "init", "--dir", "/etc/cvpnd", "--name", "vpn.example.com")
        configuration = system.root / "etc/cvpnd/cvpnd.toml"
        text = configuration.read_text()
        assert CERTIFICATES in text and "10.20.0.0/24" in text
        configuration.write_text(text.replace(CERTIFICATES, PASSWORDS + CERTIFICATES.partition("[")[2]))
        system.run("systemctl", "enable", "--now", "cvpnd")
        cvpnctl(system, "user", "add", "anna", input="of this gateway\n")
        cvpnctl(system, "rule", "add", "staff", "10.20.0.10/32", "--all-groups")

        login = client.directory / "login"
        login.write_text("anna\nof this gateway\n")
        login.chmod(0o600)
        profile = client.directory / "anna.ovpn"
        profile.write_text(
            cvpnctl(system, "profile", "anna", "--issue").replace("vpn.example.com 1194", "192.0.2.1 1194")
        )
        options = ("--auth-user-pass", login, "--auth-nocache", "--auth-retry", "none", "--verb", "4")
        anna = OpenVpnClient(client.start("openvpn", "--config", profile, *options), client).wait_connected()
        login.write_text("anna\nforgotten\n")
        kept = {path: path.read_bytes() for path in (system.root / "etc/cvpnd").rglob("*") if path.is_file()}
        first = system.property("cvpnd", "MainPID")

        told = system.run("dpkg", "--install", "/newer.deb", input="")  # a question would find nobody, and fail
        assert "onfiguration file" not in told.stdout, "nothing in /etc is the package's"
        assert system.property("cvpnd", "MainPID") not in ("0", first)
        anna.wait_connected(30, times=2)
        assert client.ping("10.20.0.10", 3, 0.1).received == 3
        assert "AUTH_FAILED" not in anna.log()
        assert kept == {path: path.read_bytes() for path in kept}
        assert "10.20.0.10/32" in cvpnctl(system, "rule", "list")
        assert "anna" in cvpnctl(system, "user", "list")
        journal = system.run("journalctl", "--no-pager", "--unit", "cvpnd").stdout
        assert "Traceback" not in journal, journal
        assert (
            "A VPN client has connected"
            in system.run("journalctl", "--no-pager", "-x", "SYSLOG_IDENTIFIER=cvpnd").stdout
        )

        system.run("dpkg", "--remove", "cvpnd")
        assert configuration.exists() and not (system.root / "opt/cvpnd").exists()
        system.run("dpkg", "--purge", "cvpnd")
        for left in ("etc/cvpnd", "var/lib/cvpnd", "var/log/cvpnd", "usr/lib/systemd/catalog/cvpnd.catalog"):
            assert not (system.root / left).exists(), left
