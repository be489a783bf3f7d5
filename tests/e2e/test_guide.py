"""The commands of the administrator's guide, typed in its order at a gateway that begins with nothing."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from helpers.ctl_inside import cvpnctl
from helpers.lab import GatewayProcess, LabError

DOCS = Path(__file__).parents[2] / "docs"
SHELL = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
OF_TWO_MACHINES = "backup.md"  # tests/systemd/test_moved.py types it

CODES = {"cvpnctl connection terminate --username anna": 1}
"""She is not connected."""


def chapters() -> list[Path]:
    return [
        DOCS / name for name in re.findall(r"^\d+\. \[[^]]*\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text(), re.M)
    ]


@pytest.mark.timeout(240)  # a whole day's work
def test_every_command_of_the_guide_does_what_it_is_there_for(site, monkeypatch):
    """systemd is not here (tests/systemd has it): its commands are carried out by hand, or not at all."""
    host, etc = site.lab.gateway, site.lab.directory / "etc"
    host.run("ip", "route", "add", "default", "via", "10.20.0.10")
    shims, work = site.lab.directory / "bin", site.lab.directory / "work"
    for directory in (shims, work):
        directory.mkdir()
    for name, module in (("cvpnd", "cvpnd"), ("cvpnctl", "cvpnd.ctl")):
        (shims / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (shims / name).chmod(0o755)
    environment = {
        "PYTHONPATH": ":".join(sys.path),
        "PATH": f"{shims}:/usr/sbin:/usr/bin:/sbin:/bin",
        "CVPND_SOCKET": str(etc / "admin.sock"),
    }
    monkeypatch.chdir(work)
    typed = 0

    def type_in(script: str) -> None:
        """A shell for what needs one."""
        if all(line.startswith("cvpnctl ") and not set("$|;<>&") & set(line) for line in script.splitlines()):
            for line in script.splitlines():
                cvpnctl(host, etc / "admin.sock", *shlex.split(line)[1:], code=CODES.get(line, 0))
        elif script.strip():
            host.run("bash", "-euo", "pipefail", "-c", script, env=environment, cwd=work, timeout_s=60)

    def systemctl(command: str) -> None:
        if command == "systemctl enable --now cvpnd":
            toml = (etc / "cvpnd.toml").read_text()
            GatewayProcess(host, etc, toml, {"PYTHONPATH": environment["PYTHONPATH"]}).start()
        else:
            raise AssertionError(f"the test does not know {command}")

    for page in chapters():
        if page.name == OF_TWO_MACHINES:
            continue
        for block in SHELL.findall(page.read_text()):
            text = block.replace("/etc/cvpnd", str(etc)).replace("vpn.example.com", site.lab.gateway_address)
            text = text.replace("/usr/local/lib/cvpnd", str(site.lab.directory / "lib"))
            try:
                for part in re.split(r"^(systemctl .*)\n", text, flags=re.M):
                    systemctl(part) if part.startswith("systemctl ") else type_in(part)
            except LabError as error:
                raise AssertionError(f"{page.name}:\n{block}\n{error}") from None
            typed += block.count("\n")
    assert typed > 40
    assert (work / "anna.ovpn").exists() and (work / "support.tar.gz").exists()
