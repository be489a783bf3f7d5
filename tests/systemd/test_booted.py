"""The service in a booted systemd, with every restriction of the unit in force: start, reload, crash, stop."""

import json
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.booted import (
    SOURCE,
    SYSTEMD,
    VENV,
    BootedSystem,
    cvpnctl,
    cvpnctl_command,
    cvpnd,
    machine,
    source_drop_in,
    unit_files,
)
from helpers.lab import wait_until

from cvpnd.ops.journal import MESSAGE_IDS

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="boots a systemd: needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="systemd-container is not installed"),
]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BootedSystem]:
    directory = tmp_path_factory.mktemp("booted")
    with BootedSystem(directory) as system, machine("target", directory) as target:
        root = system.root
        unit_files(root)
        source_drop_in(root, "WatchdogSec=2")  # so that a test need not wait for the half a minute of the unit
        system.boot()
        # what udev does on a real host
        system.run("chmod", "0666", "/dev/net/tun")
        system.connect("lan", "10.20.0.1/24", target, "10.20.0.10/24")
        # and from here on what systemd/README.md tells a person to type
        cvpnd(system, "init", "--dir", "/etc/cvpnd", "--name", "vpn.example.com")
        system.run("systemctl", "start", "cvpnd")
        yield system


def test_the_daemon_serves_as_its_own_user(system: BootedSystem) -> None:
    assert system.property("cvpnd", "ActiveState") == "active"
    assert "staff" in system.property("cvpnd", "StatusText")
    pid = system.property("cvpnd", "MainPID")
    user = system.run("ps", "-o", "user=", "-p", pid).stdout.strip()
    assert user == "cvpnd"
    assert "inet cvpnd" in system.run("nft", "list", "tables").stdout
    assert "10.100.0.1/22" in system.run("ip", "-4", "address").stdout


def test_cvpnctl_reaches_it_and_strangers_do_not(system: BootedSystem) -> None:
    cvpnctl(system, "connection", "list")
    assert system.run("stat", "-c", "%U:%G %a", "/run/cvpnd/admin.sock").stdout.strip() == "cvpnd:cvpnd 660"
    assert system.run("stat", "-c", "%a", "/run/cvpnd").stdout.strip() == "750"


def test_reload_is_done_by_the_same_process(system: BootedSystem) -> None:
    before = system.property("cvpnd", "MainPID")
    configuration = system.root / "etc/cvpnd/cvpnd.toml"
    text = configuration.read_text()
    assert 'network = "10.20.0.0/24"' in text
    configuration.write_text(text.replace('network = "10.20.0.0/24"', 'network = "10.20.0.0/25"'))
    system.run("systemctl", "reload", "cvpnd")
    wait_until(lambda: "10.20.0.0/25" in cvpnctl(system, "rule", "list"), 20)
    assert system.property("cvpnd", "MainPID") == before


def test_a_journal_that_hangs_holds_up_no_daemon_and_hears_later_what_it_missed(system: BootedSystem) -> None:
    """As one does with its disk. What the daemon says is more than the kernel keeps for it."""

    def state() -> list[str]:
        return [system.property("cvpnd", name) for name in ("MainPID", "NRestarts", "ActiveState")]

    before, configuration = state(), system.root / "etc/cvpnd/cvpnd.toml"
    text = configuration.read_text()
    configuration.write_text(f"{text}\n['{'x' * 1_000_000}']\n")  # refused with its name
    journal = system.property("systemd-journald", "MainPID")
    assert journal != "0", "it runs; and 0 would be this program's own group"
    system.run("kill", "-STOP", journal)
    try:
        for _ in range(30):  # more than the 16 MB that the kernel gives where systemd asks for 8
            system.run("kill", "-HUP", before[0])
            time.sleep(0.2)
        assert "staff" in cvpnctl(system, "endpoint", "list")
        time.sleep(3)  # more than the watchdog allows
        assert state() == before
    finally:
        system.run("kill", "-CONT", journal)
        configuration.write_text(text)

    def refused() -> int:
        shown = system.run("journalctl", "--no-pager", "--unit=cvpnd", "--grep=reload refused", check=False).stdout
        return shown.count("reload refused")

    wait_until(refused, 20)
    system.run("systemctl", "reload", "cvpnd")
    wait_until(lambda: "refused" not in system.property("cvpnd", "StatusText"), 20)


LOGGED = """
from cvpnd.config import SyslogTarget
from cvpnd.endpoints.model import ConnectionView
from cvpnd.ops.connection_log import attempt_entry
from cvpnd.ops.journal import Journal
from cvpnd.ops.syslog import Syslog
view = ConnectionView("cvpn-connection-1", "cvpn-endpoint-1", "staff", "active", "laptop", "anna", "directory",
    "10.100.0.2", "192.0.2.1", 50000, "udp", "linux", "AES-256-GCM", 0.0, None, "", 0, 0, 0, 0)
Journal().append([attempt_entry(view, 0.0, failure="wrong-password")])
Syslog(SyslogTarget("local")).append([attempt_entry(view, 0.0)])
"""


def test_the_connection_log_is_found_in_the_journal_by_its_fields(system: BootedSystem) -> None:
    system.run("env", f"PYTHONPATH={SOURCE}", f"{VENV}/bin/python", "-c", LOGGED)

    def found(*matches: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in system.run("journalctl", "-o", "json", *matches).stdout.splitlines()]

    wait_until(lambda: len(found("SYSLOG_FACILITY=10")) == 1, 20)
    (entry,) = found("CVPND_USERNAME=anna", f"MESSAGE_ID={MESSAGE_IDS['failed']}")
    assert entry["CVPND_CONNECTION_ATTEMPT_FAILURE_REASON"] == "wrong-password"
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("5", "cvpnd")
    system.run("journalctl", "--update-catalog")  # as a package does
    explained = system.run("journalctl", "--no-pager", "-x", f"MESSAGE_ID={MESSAGE_IDS['failed']}").stdout
    assert "Subject: A VPN client was refused" in explained and "from 192.0.2.1, because of:" in explained
    assert re.search(r"^\S+ +wrong-password$", explained, re.MULTILINE), explained
    (message,) = found("SYSLOG_FACILITY=10", "SYSLOG_IDENTIFIER=cvpnd")
    assert json.loads(message["MESSAGE"])["username"] == "anna"


POSTURE = """#!/bin/sh
read -r request
facts=$(grep -hE '^(CapEff|NoNewPrivs):' /proc/self/status | tr -s '[:space:]' ' ')
printf '{"allow": true, "error-msg-on-denied-connection": "", "schema-version": "v3", '
printf '"posture-compliance-statuses": ["%s", "%s"]}' "$(id -un)" "$facts"
"""
HANDLER = """
[[handler]]
name = "AWSClientVPN-posture"
executable = "/usr/local/bin/posture"
"""


def test_a_client_is_judged_by_a_handler_of_another_user_and_of_none_served_and_counted(
    system: BootedSystem, tmp_path: Path
) -> None:
    """A handler that names no user runs as the daemon's own; neither has a capability, nor a way to one."""
    program = system.root / "usr/local/bin/posture"
    program.write_text(POSTURE)
    program.chmod(0o755)
    drop_in = system.root / "etc/systemd/system/cvpnd.service.d/handler-user.conf"
    configuration = system.root / "etc/cvpnd/cvpnd.toml"
    text = configuration.read_text()
    assert "[[endpoint]]\n" in text
    judged = text.replace("[[endpoint]]\n", '[[endpoint]]\nconnect_handler = "AWSClientVPN-posture"\n', 1) + HANDLER

    def restart() -> None:
        system.run("systemctl", "daemon-reload")
        system.run("systemctl", "restart", "cvpnd")

    def statuses() -> list[str]:
        wait_until(lambda: system.property("cvpnd", "StatusText") == "serving staff; 1 connected", 20)
        (view,) = json.loads(cvpnctl(system, "connection", "list", "--json"))
        assert view["common_name"] == "client1"
        found: list[str] = view["posture_compliance_statuses"]
        return found

    try:
        shutil.copy(SYSTEMD / "handler-user.conf", drop_in)
        configuration.write_text(judged + 'user = "nobody"\n')
        restart()
        with machine("client", tmp_path) as client:
            system.connect("wan", "192.0.2.1/24", client, "192.0.2.2/24")
            stock = system.client(client)
            stock.wait_connected()
            assert client.ping("10.20.0.10", 3, 0.1).received == 3
            assert statuses() == ["nobody", "CapEff: 0000000000000000 NoNewPrivs: 1 "]

            drop_in.unlink()
            configuration.write_text(judged)
            restart()
            stock.wait_connected(30, times=2)
            assert statuses() == ["cvpnd", "CapEff: 0000000000000000 NoNewPrivs: 1 "]
    finally:
        drop_in.unlink(missing_ok=True)
        configuration.write_text(text)
        restart()


def test_a_daemon_that_hangs_is_started_anew_by_the_watchdog(system: BootedSystem) -> None:
    before = system.property("cvpnd", "MainPID")
    assert before != "0", "it runs; and 0 would be this program's own group"
    assert system.property("cvpnd", "WatchdogUSec") == "2s", "the drop-in's"
    system.run("kill", "-STOP", before)
    wait_until(lambda: system.property("cvpnd", "MainPID") not in ("0", before), 20)
    wait_until(lambda: system.property("cvpnd", "ActiveState") == "active", 20)
    assert "Watchdog timeout" in system.run("journalctl", "--no-pager", "-u", "cvpnd").stdout


WRITING = """
import sqlite3, sys
database = sqlite3.connect("/var/lib/cvpnd/state.db", isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("begun", flush=True)
sys.stdin.read()
"""


def test_a_change_that_takes_long_is_no_daemon_that_hangs(system: BootedSystem) -> None:
    def started() -> list[str]:
        return [system.property("cvpnd", name) for name in ("MainPID", "NRestarts")]

    before = started()
    with system.process(f"{VENV}/bin/python", "-c", WRITING) as writing:
        assert writing.stdout is not None and writing.stdout.readline() == "begun\n"
        with system.process(*cvpnctl_command(system, "rule", "add", "staff", "10.20.7.0/24", "--all-groups")) as change:
            with pytest.raises(subprocess.TimeoutExpired):
                change.wait(4)  # twice what the watchdog allows, and less than a change waits for another process's
            assert started() == before
            writing.communicate(timeout=10)
            assert change.wait(10) == 0
    assert "10.20.7.0/24" in cvpnctl(system, "rule", "list")
    assert started() == before


def test_a_key_that_root_alone_can_read_comes_as_a_credential(system: BootedSystem) -> None:
    pki = system.root / "etc/cvpnd/pki"
    shutil.copy(pki / "server.key", system.root / "etc/ssl/private/vpn.key")
    (system.root / "etc/ssl/private/vpn.key").chmod(0o600)
    (pki / "server.key").unlink()
    configuration = system.root / "etc/cvpnd/cvpnd.toml"
    text = configuration.read_text()
    assert '"pki/server.key"' in text
    configuration.write_text(text.replace('"pki/server.key"', '"/run/credentials/cvpnd.service/server.key"'))
    drop_in = system.root / "etc/systemd/system/cvpnd.service.d/key.conf"
    drop_in.write_text("[Service]\nLoadCredential=server.key:/etc/ssl/private/vpn.key\n")
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "restart", "cvpnd")
    assert system.property("cvpnd", "ActiveState") == "active"
    assert "staff" in cvpnctl(system, "endpoint", "list")


def test_after_a_crash_it_comes_back_and_stop_leaves_nothing(system: BootedSystem) -> None:
    for signal in ("-TERM", *["-KILL"] * (12 if os.environ.get("TEST_SERVICE") else 1)):
        before = system.property("cvpnd", "MainPID")
        assert before != "0", "it runs; and 0 would be this program's own group"
        system.run("kill", signal, before)
        wait_until(lambda before=before: system.property("cvpnd", "MainPID") not in ("0", before), 20)
        wait_until(lambda: system.property("cvpnd", "ActiveState") == "active", 20)
    assert "10.100.0.1/22" in system.run("ip", "-4", "address").stdout

    system.run("systemctl", "stop", "cvpnd")
    assert system.property("cvpnd", "Result") == "success"
    assert "cvpnd" not in system.run("nft", "list", "tables").stdout
    assert "10.100.0." not in system.run("ip", "-4", "address").stdout
    assert "cvpnd" not in [entry.pw_name for entry in pwd.getpwall()], "the test must not touch this machine"


def test_killed_and_stopped_before_it_was_started_again_it_leaves_nothing(system: BootedSystem) -> None:
    def left() -> list[str]:
        tables = system.run("nft", "list", "tables").stdout
        rules = system.run("ip", "rule").stdout + system.run("ip", "-6", "rule").stdout
        routes = system.run("ip", "route", "show", "table", "all").stdout
        forwarding = system.run("cat", "/proc/sys/net/ipv4/conf/lan/forwarding").stdout
        return [tables, rules, routes, forwarding]

    before = left()
    system.run("systemctl", "start", "cvpnd")
    assert all(now != then for now, then in zip(left(), before, strict=True))
    system.run("kill", "-KILL", system.property("cvpnd", "MainPID"))
    system.run("systemctl", "stop", "cvpnd")
    assert system.property("cvpnd", "ActiveState") in ("inactive", "failed")
    assert left() == before
    assert system.property("cvpnd", "NRestarts") == "0", "or it was not the end that is looked at"
