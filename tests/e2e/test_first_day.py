"""An administrator's first day: init, run, a profile for a colleague, and the day the colleague leaves."""

from __future__ import annotations

import re
import sys
import tomllib
from functools import partial
from pathlib import Path

from helpers.lab import GatewayProcess, wait_until

from cvpnd.pki.authority import Authority
from cvpnd.pki.revocation import revoke


def test_init_run_profile_connect_revoke(site, ping):
    host = site.lab.gateway
    directory = site.lab.directory / "first"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    host.run("ip", "route", "add", "default", "via", "10.20.0.10")  # the network with the default route is the target
    made = host.run(
        sys.executable,
        "-P",
        "-m",
        "cvpnd",
        "init",
        "--dir",
        directory,
        "--name",
        site.lab.gateway_address,
        env=environment,
    )
    assert str(directory / "client1.ovpn") in made.stdout
    assert (directory / "client1.ovpn").stat().st_mode & 0o777 == 0o600
    again = host.run(sys.executable, "-P", "-m", "cvpnd", "init", "--dir", directory, env=environment)
    assert "made" not in again.stdout.replace("made by", "")
    check = partial(host.run, sys.executable, "-P", "-m", "cvpnd", "check", "--config", env=environment)
    assert check(directory / "cvpnd.toml").stderr == ""
    (directory / "pki/server.key").chmod(0o644)
    told = check("first/cvpnd.toml", cwd=directory.parent)
    assert told.stdout == "first/cvpnd.toml: valid, 1 endpoint\n"
    assert told.stderr.endswith(
        f"/pki/server.key can be read by everybody here (0644); chmod o= {directory}/pki/server.key\n"
    ), told
    (directory / "pki/server.key").chmod(0o600)

    toml = (directory / "cvpnd.toml").read_text()
    assert tomllib.loads(toml)["subnet"][0]["cidr"] == "10.20.0.0/24"
    gateway = GatewayProcess(host, directory, toml.replace("[pki]", '[metrics]\nlisten = "off"\n[pki]'), environment)
    gateway.start()
    first = site.lab.openvpn(directory / "client1.ovpn").wait_connected()
    run = (sys.executable, "-P", "-m", "cvpnd", "run", "--config", directory / "cvpnd.toml")
    twice = host.run(*run, env=environment, cwd=directory, check=False)  # the installed one, which has the C module
    assert twice.returncode == 1 and f"running already (pid {gateway.running.pid})" in twice.stdout + twice.stderr
    assert ping(count=1) == 1.0, "it has left the host as it found it"

    colleague = site.lab.directory / "bob" / "bob.ovpn"
    colleague.parent.mkdir()
    gateway.ctl("profile", "bob", "--issue", "--output", str(colleague))
    assert colleague.stat().st_mode & 0o777 == 0o600
    text = re.sub(r"(?m)^remote \S+", "remote 198.51.100.1", colleague.read_text())
    colleague.write_text(text)
    second = site.lab.openvpn(colleague, client=site.lab.clients[1]).wait_connected()
    names = {c["name"]: c["status"] for c in gateway.ctl_json("certificate", "list")}
    assert names["bob"] == "valid"

    gateway.ctl("certificate", "revoke", "bob")
    second.wait_for("Certificate revoked", 3)
    assert {c["name"]: c["status"] for c in gateway.ctl_json("certificate", "list")}["bob"] == "revoked"
    wait_until(lambda: ping("10.20.0.10", 1, client=site.lab.clients[1]) == 0.0, 3)
    assert ping(count=1) == 1.0
    assert first.connected_count == 1
    explained = gateway.ctl("explain", "client1", "10.20.0.10")
    assert "may reach" in explained.stdout

    another_program_revokes(directory, "client1")
    first.wait_for("Certificate revoked", 4)


def another_program_revokes(directory: Path, name: str) -> None:
    """A new list of revoked certificates appears, and nobody tells the daemon."""
    pki = tomllib.loads((directory / "cvpnd.toml").read_text())["pki"]["directory"]
    revoke(Authority.open(directory / pki), name=name, serial=None)
