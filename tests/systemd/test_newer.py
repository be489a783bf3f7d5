"""A reload under a systemd that knows ``Type=notify-reload`` (253 and newer): one step that ``systemctl`` waits for."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import other_releases
from helpers.booted import SYSTEMD, BootedSystem, cvpnctl, cvpnd, machine, source_drop_in, unit_files

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_SERVICE"), reason="fetches another systemd: make test-service"),
    pytest.mark.timeout(300),
]


def packages() -> list[Path]:
    """None where this machine's own is new enough."""
    said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"systemd (\d+)", said)
    assert version is not None, said
    if int(version[1]) >= 253:
        return []
    try:
        return other_releases.newer_systemd()
    except other_releases.Unavailable as why:
        pytest.skip(f"no newer systemd: {why}")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[BootedSystem]:
    with BootedSystem(tmp_path, packages=packages()) as system, machine("target", tmp_path) as target:
        unit_files(system.root)
        source_drop_in(system.root)
        for name in ("notify-reload.conf", "restart-steps.conf"):
            shutil.copy(SYSTEMD / name, system.root / "etc/systemd/system/cvpnd.service.d")
        system.boot()
        system.run("chmod", "0666", "/dev/net/tun")
        system.connect("lan", "10.20.0.1/24", target, "10.20.0.10/24")
        cvpnd(system, "init", "--dir", "/etc/cvpnd", "--name", "vpn.example.com")
        system.run("systemctl", "start", "cvpnd")
        yield system


def test_a_reload_is_over_when_systemctl_returns_and_a_refused_one_changes_nothing(system: BootedSystem) -> None:
    assert system.property("cvpnd", "Type") == "notify-reload"
    assert system.property("cvpnd", "RestartSteps") == "8"
    first = system.property("cvpnd", "MainPID")
    configuration = system.root / "etc/cvpnd/cvpnd.toml"
    text = configuration.read_text()
    for length in range(25, 30):  # a reload that were not waited for might be quick enough once
        configuration.write_text(text.replace('network = "10.20.0.0/24"', f'network = "10.20.0.0/{length}"'))
        system.run("systemctl", "reload", "cvpnd")
        assert system.property("cvpnd", "ActiveState") == "active"
        assert f"10.20.0.0/{length}" in cvpnctl(system, "rule", "list")
    assert "serving staff" in system.property("cvpnd", "StatusText")

    configuration.write_text(text.replace("[[endpoint]]", "[[endpiont]]"))
    system.run("systemctl", "reload", "cvpnd")
    assert system.property("cvpnd", "StatusText").endswith("; the last reload was refused")
    assert "10.20.0.0/29" in cvpnctl(system, "rule", "list"), "the old one is in force"
    journal = system.run("journalctl", "--no-pager", "-u", "cvpnd").stdout
    assert "reload refused" in journal and 'did you mean "endpoint"' in journal

    configuration.write_text(text)
    system.run("systemctl", "reload", "cvpnd")
    assert "refused" not in system.property("cvpnd", "StatusText")
    assert system.property("cvpnd", "MainPID") == first
