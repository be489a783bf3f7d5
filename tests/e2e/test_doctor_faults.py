"""Faults planted one by one on a host that is well, and each told with its fix: of the network beside a running daemon,
of the files of a daemon that has a user of its own."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from helpers.lab import wait_until

from cvpnd.ctl.client import Client
from cvpnd.doctor.daemon_user import DaemonUser
from cvpnd.doctor.diagnosis import diagnose
from cvpnd.doctor.disks import disks
from cvpnd.doctor.facts import Facts
from cvpnd.doctor.findings import Finding
from cvpnd.doctor.trust import configuration

FILTER = (
    "nft 'add table inet q; add chain inet q c {{ type filter hook {hook} priority {priority}; policy {policy}; }}'"
)
NETWORK_FAULTS = {
    "sysctl -qw net.ipv6.conf.cvpn0.force_forwarding=0 || sysctl -qw net.ipv6.conf.all.forwarding=0": (
        "problem: forwarding: IPv6 is not forwarded from cvpn0",
        "sysctl -qw net.ipv6.conf.cvpn0.force_forwarding=1 || sysctl -qw net.ipv6.conf.all.forwarding=1",
    ),
    "ip -6 address add fd00:100::77/80 dev wan1 nodad": (
        "problem: addresses: wan1 has fd00:100::77/80, which lies in the client CIDR fd00:100::/64",
        "ip -6 address del fd00:100::77/80 dev wan1",
    ),
    "ip -6 route add fd00:100::/72 dev wan1": (
        "problem: addresses: a route to fd00:100::/72 through wan1 takes packets of clients of staff away",
        "ip -6 route del fd00:100::/72 dev wan1",
    ),
    "ip route add blackhole 10.100.1.0/24": (
        "problem: addresses: a route to 10.100.1.0/24 takes packets of clients of staff away",
        "ip route del blackhole 10.100.1.0/24",
    ),
    "ip rule add from 10.100.0.0/22 lookup 77 priority 100; ip route add blackhole default table 77": (
        "problem: routing: packets of clients to 10.20.0.2 in subnet subnet-a go nowhere, not through lan",
        "ip rule del priority 100; ip route flush table 77",
    ),
    "ip rule add to 10.100.0.0/22 lookup 78 priority 100; ip route add 10.100.0.0/22 dev wan1 table 78": (
        "problem: routing: answers to clients of staff go through wan1, not through cvpn0",
        "ip rule del priority 100; ip route flush table 78",
    ),
    FILTER.format(hook="prerouting", priority=-300, policy="accept") + "; nft add rule inet q c iifname cvpn0 drop": (
        "problem: firewall: table inet q, chain c, drops forwarded packets, also those from cvpn0 to lan",
        "nft delete table inet q",
    ),
    FILTER.format(hook="postrouting", priority=0, policy="accept") + "; nft add rule inet q c oifname lan drop": (
        "problem: firewall: table inet q, chain c, drops forwarded packets, also those from cvpn0 to lan",
        "nft delete table inet q",
    ),
    FILTER.format(hook="output", priority=0, policy="drop"): (
        "warning: firewall: table inet q, chain c, drops what it does not know, also answers over udp",
        "nft delete table inet q",
    ),
    "nft 'add table ip q; add chain ip q c { type nat hook prerouting priority -100; }; "
    "add rule ip q c udp dport 1194 dnat to 10.20.0.10'": (
        "problem: firewall: table ip q, chain c, gives what comes to udp port 1194 to somebody else",
        "nft delete table ip q",
    ),
    "nft 'add table ip q; add chain ip q c { type nat hook prerouting priority -100; }; "
    "add rule ip q c iifname != lan udp dport 1194 dnat to 10.20.0.10'": (  # as Docker does for its own interface
        "warning: firewall: table ip q, chain c, gives what comes to udp port 1194 by wan",
        "nft delete table ip q",
    ),
    "sysctl -qw net.ipv6.conf.lan.disable_ipv6=1": (
        "problem: interfaces: subnet subnet-a: lan has no IPv6 for fd00:20::/64",
        "sysctl -qw net.ipv6.conf.lan.disable_ipv6=0",
    ),
}
WELL = (
    FILTER.format(hook="output", priority=0, policy="drop") + "; nft add rule inet q c ct state established accept",
    "sysctl -qw net.ipv4.conf.all.rp_filter=1",
    "nft 'add table ip q2; add chain ip q2 c { type nat hook prerouting priority -100; }; "
    "add rule ip q2 c udp dport 53 dnat to 10.20.0.10'",
)
"""What others may do."""


def told(findings: list[Finding]) -> list[str]:
    return [f"{each.level}: {each.check}: {each.what}" for each in findings if each.level != "ok" and each.fix]


def test_each_fault_of_the_network_is_told_and_nothing_on_a_host_that_is_well(site) -> None:
    gateway = site.start(ipv6=True)
    (site.directory / "server.key").chmod(0o600)
    host = site.lab.gateway

    status = Client(gateway.admin_socket).get("/status")["status"]
    gateway.running.signal(signal.SIGSTOP)  # it would put right what it can

    def doctor() -> list[str]:
        with host.entered():
            found = told(diagnose(gateway.config_path, status))
        return [each for each in found if "keeps this host's clock" not in each]

    assert doctor() == []
    for harmless in WELL:
        host.run("sh", "-ec", harmless)
    assert doctor() == []
    host.run("sh", "-ec", "nft delete table inet q; nft delete table ip q2")
    for fault, (words, cure) in NETWORK_FAULTS.items():
        host.run("sh", "-ec", fault)
        found = doctor()
        assert [each for each in found if words in each], (fault, found)
        host.run("sh", "-ec", cure)
    gateway.running.signal(signal.SIGCONT)


def test_why_a_reload_was_refused_and_files_are_not_used_is_told_by_status_and_doctor(site) -> None:
    gateway = site.start()
    text = gateway.config_path.read_text()
    gateway.write_config(text.replace("0.0.0.0:443", "192.0.2.99:443"))
    assert gateway.ctl("reload", check=False).returncode == 1
    (site.directory / "ca.crt").write_text("no certificate")
    wait_until(lambda: "ca.crt" in gateway.ctl("status", check=False).stdout, 5)
    for command in ("status", "doctor"):
        shown = gateway.ctl(command, check=False).stdout
        assert "runs on: cannot listen on udp://192.0.2.99:443: this host has no such address" in shown
        assert (
            f"those read before still are: {site.directory}/ca.crt: does not hold a complete PEM certificate" in shown
        )


def test_what_is_not_valid_yet_is_told_where_it_keeps_everybody_out(site) -> None:
    gateway = site.start()
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    site.write_crl(start=tomorrow, end=tomorrow + datetime.timedelta(days=9), number=9)
    gateway.running.wait_for("certificates reloaded from")
    site.connect(wait=False)
    wait_until(lambda: "crl-unusable" in gateway.refusals(), 20)
    done = gateway.ctl("doctor", check=False)
    assert "PROBLEM: clock: endpoint staff: the revocation list of " in done.stdout and done.returncode == 1
    assert " is valid in 24.0 hours only\n    set the clock (timedatectl), or issue it again" in done.stdout


@pytest.fixture
def somebody() -> DaemonUser:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    return DaemonUser("nobody", 65534, 65534, ())


def test_what_root_may_read_and_the_daemon_may_not_is_told(site, somebody) -> None:
    config = site.lab.gateway_process(site.toml(), wait=False)
    config.kill()
    for path in (site.lab.directory, site.directory):
        path.chmod(0o755)
    key = site.directory / "server.key"
    key.chmod(0o600)
    facts = Facts(config.config_path, _load(config.config_path), user=somebody)
    (found,) = told(list(configuration(facts)))
    assert found.startswith(
        f"problem: configuration: {config.config_path}: endpoint[0].server_certificate.private_key: {key}"
    )
    assert "cannot be read by user nobody, as whom cvpnd runs" in found and os.geteuid() == 0
    shutil.chown(key, 65534)
    assert told(list(configuration(facts))) == []


def _load(path: Path):
    from cvpnd.config import load

    return load(path)


def test_places_that_are_full_read_only_or_somebody_elses_are_told(site, somebody) -> None:
    place = site.lab.directory / "place"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g,nr_inodes=20", "tmpfs", place], check=True)
    try:
        path = site.directory / "cvpnd.toml"
        path.write_text(f'[daemon]\nlog_directory = "{place}"\nstate = "sqlite:///{place}/state.db"\n')
        facts = Facts(path, _load(path), {"endpoints": []}, user=None)
        (log, state) = told(list(disks(facts)))
        assert log.startswith("warning: disk: daemon.log_directory: ") and f"more files may be made at {place}" in log
        assert "daemon.state" in state
        subprocess.run(["mount", "-o", "remount,nr_inodes=10000", place], check=True)
        assert told(list(disks(facts))) == []
        place.chmod(0o755)
        site.lab.directory.chmod(0o755)
        shutil.chown(place, 65534)
        (place / "state.db").touch(mode=0o600)
        facts = Facts(path, _load(path), {"endpoints": []}, user=somebody)
        assert told(list(disks(facts))) == [
            f"problem: disk: user nobody, as whom cvpnd runs, may not write to {place}/state.db"
        ]
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        assert f"problem: disk: daemon.state: {place} can only be read" in told(list(disks(facts)))
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
