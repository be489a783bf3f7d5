"""Client connect handlers and the connection log, with the stock client."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
from helpers import certs
from helpers.crowd import crowd_command
from helpers.lab import CLIENT_LEGS, wait_until

PROGRAM = """#!/bin/sh
read -r request
echo "$request" >>{directory}/requests
case "$request" in
*'"common-name": "alice"'*) allow=true;;
*) allow=false;;
esac
printf '{{"allow": %s, "error-msg-on-denied-connection": "Ask for a new laptop at the helpdesk",' $allow
echo '"posture-compliance-statuses": ["compliant", "patched"], "schema-version": "v3"}}'
"""
HANDLER = """
[[handler]]
name = "AWSClientVPN-posture"
executable = "{program}"
"""
DENIED = 'cvpnd_authentication_failures_total{endpoint="staff",reason="client-connect-failed"}'


@pytest.fixture
def program(open_directory: Path) -> Path:
    """Beside a file that another user may write to."""
    (open_directory / "requests").touch()
    (open_directory / "requests").chmod(0o666)
    path = open_directory / "posture"
    path.write_text(PROGRAM.format(directory=open_directory))
    path.chmod(0o755)
    return path


def test_a_handler_decides_about_stock_clients_and_what_it_found_is_shown_and_logged(site, program, ping):
    toml = site.toml('connect_handler = "AWSClientVPN-posture"\nconnection_log = { group = "vpn", stream = "staff" }')
    toml = HANDLER.format(program=program) + "[connection_log]\nupdate_s = 1\n" + toml
    gateway = site._gateway = site.lab.gateway_process(toml)
    alice = site.connect(certs.client("alice"))
    bob = site.connect(certs.client("bob"), name="bob", wait=False, client=site.lab.clients[1], host="198.51.100.1")
    bob.wait_for("AUTH_FAILED,Ask for a new laptop at the helpdesk")
    assert ping() == 1.0 and bob.connected_count == 0
    (view,) = gateway.ctl_json("connection", "list")
    assert view["posture_compliance_statuses"] == ["compliant", "patched"]
    assert "compliant, patched" in gateway.ctl("connection", "show", view["connection_id"]).stdout
    requests = [json.loads(line) for line in (program.parent / "requests").read_text().splitlines()]
    assert sorted(request["common-name"] for request in requests) == ["alice", "bob"], "asked once about each"
    wait_until(lambda: any(e["connection-log-type"] == "connection-update" for e in stream(gateway)), 10)
    assert requests[0]["public-ip"] == CLIENT_LEGS[0].host
    assert requests[0]["client-openvpn-version"].startswith("2.")
    assert gateway.metrics()[DENIED] == 1
    alice.stop()
    wait_until(lambda: any(e["connection-log-type"] == "connection-reset" for e in stream(gateway)), 10)
    entries = stream(gateway)
    assert {e["connection-log-type"] for e in entries} == {f"connection-{w}" for w in ("attempt", "update", "reset")}
    assert all(e["posture-compliance-statuses"] == ["compliant", "patched"] for e in entries)
    (refused,) = [e for e in entries if e["connection-attempt-status"] == "failed"]
    assert (refused["connection-attempt-failure-reason"], refused["common-name"]) == ("client-connect-failed", "bob")
    updates = [e for e in entries if e["connection-log-type"] == "connection-update"]
    assert int(updates[0]["ingress-bytes"]) > 0


PYTHON = """
[[handler]]
name = "AWSClientVPN-posture"
python = "posture_of_this_test:check"
python_path = "{directory}"
"""
MODULE = """
def check(event):
    answer = {"allow": True, "error-msg-on-denied-connection": "", "posture-compliance-statuses": []}
    return {**answer, "schema-version": "v3"}
"""
USABLE = 'cvpnd_connect_handler_usable{handler="AWSClientVPN-posture"}'


@pytest.mark.parametrize("handler", [HANDLER, PYTHON])
def test_a_handler_that_others_could_replace_since_the_start_is_a_problem_until_it_is_mended(site, program, handler):
    (program.parent / "posture_of_this_test.py").write_text(MODULE)
    toml = handler.format(program=program, directory=program.parent)
    gateway = site._gateway = site.lab.gateway_process(toml + site.toml('connect_handler = "AWSClientVPN-posture"'))
    site.connect(certs.client("alice")).stop()
    assert problems(gateway) == [] and gateway.metrics()[USABLE] == 1

    program.parent.chmod(0o775)
    gateway.reload()
    wait_until(lambda: gateway.metrics()[USABLE] == 0, 8, "that nobody is let in is said")
    status = gateway.ctl("status", check=False)
    assert status.returncode == 1 and f"chmod go-w {program.parent}" in status.stdout, status.stdout
    (problem,) = problems(gateway)
    assert (problem["severity"], problem["subject"]) == ("critical", "handler AWSClientVPN-posture")
    assert "it lets nobody in" in problem["what"] and "cvpnctl reload" in problem["fix"]
    refused = site.connect(certs.client("alice"), name="refused", wait=False)
    refused.wait_for("AUTH_FAILED")
    refused.stop()

    program.parent.chmod(0o755)
    gateway.reload()
    wait_until(lambda: gateway.metrics()[USABLE] == 1, 8, "that it is well again is said")
    site.connect(certs.client("alice"), name="again").stop()
    assert problems(gateway) == []


def problems(gateway) -> list[dict]:
    return json.loads(gateway.ctl("status", "--json", check=False).stdout)["problems"]


def stream(gateway) -> list[dict]:
    path = gateway.log_directory / "streams" / "vpn" / "staff.log"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_log_disk_that_fills_while_fifty_clients_work_stops_nothing(site, ping):
    """What they say is lost and counted, and when there is room again the log goes on."""
    disk = site.directory / "log"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k,mode=750", "tmpfs", disk], check=True)
    try:
        gateway = site._gateway = site.lab.gateway_process("[connection_log]\nupdate_s = 1\n" + site.toml())
        options = ("--count", "50", "--ping", "10.20.0.10", "--pings", "10", "--hold", "2")
        command, env = crowd_command(site.lab, *options)
        crowd = site.lab.client.start(*command, env=env, label="crowd")
        wait_until(lambda: gateway.metrics()["cvpnd_connection_log_lost_total"] > 0, 20, "a full disk")
        late = site.connect(client=site.lab.clients[1], host="198.51.100.1", name="late")
        assert ping(client=site.lab.clients[1]) == 1.0, "who comes now gets in"
        assert crowd.wait(40) == 0, crowd.tail()
        report = json.loads(crowd.log())
        assert (report["failed"], report["pings_sent"]) == (0, report["pings_answered"])
        assert "connection log entries are being lost: No space left on device" in gateway.log()
        (disk / "connections.log").unlink()
        gateway.reload()
        wait_until(lambda: (disk / "connections.log").exists(), 5)
        late.stop()
        wait_until(lambda: "client-exit" in (disk / "connections.log").read_text(), 5)
        gateway.stop()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
