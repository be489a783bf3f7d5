"""What a person who is called at night relies on: a real Prometheus with the alerts of conf/ sees real faults of a real
gateway, one alert for each and no other, and each goes when its fault has gone.

Only their patience is shortened. That each waits as long as it should is promtool's to say (tests/ops/)."""

from __future__ import annotations

import datetime
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from helpers import certs, saml_idp
from helpers.lab import GatewayProcess, LabError, wait_until
from helpers.openldap import OpenLdap
from helpers.prometheus import RULES, Prometheus, hasty

RANGE_S = 20
"""Of the rules that look back, instead of up to an hour."""
COUNTING_S = 60
"""Of those that count what takes a busy machine seconds each."""
BUSY = {"CvpndEventLoopBusy", "CvpndWorkerBusy", "CvpndDirectorySlow"}
"""Say something of the machine that the test runs on, and what else does."""
GUESTS = """
[[endpoint]]
name = "guests"
client_cidr = "10.104.0.0/22"
listen = ["udp://0.0.0.0:1195"]
server_certificate = { certificate = "guests.crt", private_key = "guests.key" }
authentication = [{ type = "directory-service-authentication", directory = "corp" }]
authorize = [{ network = "10.20.0.0/16", all_groups = true }]
"""
PROVIDER = """
[[saml_provider]]
id = "sso"
metadata = "http://127.0.0.1:8008/metadata.xml"
"""
HANDLER = """
[[handler]]
name = "AWSClientVPN-posture"
executable = "{program}"
"""
ALLOWS = """#!/bin/sh
echo '{"allow": true, "error-msg-on-denied-connection": "", "posture-compliance-statuses": [], "schema-version": "v3"}'
"""


@contextmanager
def small_disk(place: Path, size: str):
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=750", "tmpfs", place], check=True)
    try:
        yield place / "filler"
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(filler: Path) -> None:
    with suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def flood(site) -> None:
    """More than the sockets of a daemon that hangs have room for."""
    with site.lab.client.socket(kind=2) as sender:
        for _ in range(30_000):
            with suppress(OSError):
                sender.sendto(bytes(1200), (site.lab.gateway_address, 1195))


@pytest.mark.timeout(420)
def test_each_fault_of_a_gateway_fires_its_alert_and_no_other_which_goes_with_it(site, connect, open_directory):
    with ExitStack() as stack:
        state = stack.enter_context(small_disk(site.directory / "state", "2m"))
        logs = stack.enter_context(small_disk(site.directory / "log", "256k"))
        prometheus = watch_a_day(site, connect, open_directory, state, logs)
        assert prometheus.firing() == {}


def watch_a_day(site, connect, open_directory, state, logs) -> Prometheus:
    lab, host = site.lab, site.lab.gateway
    program = open_directory / "posture"
    program.write_text(ALLOWS)
    program.chmod(0o755)
    ldap = OpenLdap(host, lab.directory / "ldap").start()
    ldap.fill({"anna": "right"}, {})
    certs.server().write(site.directory, "guests")
    idp = lab.directory / "idp"
    idp.mkdir()
    (idp / "metadata.xml").write_text(saml_idp.metadata())

    toml = site.toml('connect_handler = "AWSClientVPN-posture"') + GUESTS + HANDLER.format(program=program)
    site._gateway = gateway = GatewayProcess(host, site.directory, toml + ldap.toml(), {})
    gateway.write_config(gateway.config_path.read_text().replace("/state.db", "/state/state.db"))
    good = gateway.config_path.read_text() + PROVIDER
    gateway.start()
    prometheus = Prometheus(host, lab.directory / "prometheus", hasty(RULES.read_text(), RANGE_S, COUNTING_S))

    def firing() -> set[str]:
        return set(prometheus.firing()) - BUSY

    def wait_firing(*alerts: str, timeout_s: float = 30) -> None:
        with suppress(LabError):
            wait_until(lambda: firing() == set(alerts), timeout_s)
        found = firing()
        assert found == set(alerts), (sorted(found - set(alerts)), sorted(set(alerts) - found))

    alice = site.connect(certs.client("alice"))
    elsewhere = {"port": 1195, "client": lab.clients[1], "host": "198.51.100.1"}
    anna = connect("anna", "right", **elsewhere).wait_connected()
    wait_until(lambda: prometheus.query("cvpnd_active_connections") and time.monotonic(), 10)
    time.sleep(3)
    wait_firing()

    # it hangs, and then it is killed again and again
    gateway.running.signal(signal.SIGSTOP)
    flood(site)
    wait_firing("CvpndDown")
    gateway.running.signal(signal.SIGCONT)
    wait_firing("CvpndSocketsOverflow", timeout_s=RANGE_S)
    for _ in range(3):
        gateway.kill()
        gateway.start()
        started = gateway.metrics()["cvpnd_start_timestamp_seconds"]
        wait_until(lambda at=started: prometheus.query(f"cvpnd_start_timestamp_seconds == {at}"), 10)
    wait_until(lambda: "CvpndRestartsOften" in firing(), 10)
    wait_firing(timeout_s=COUNTING_S + 15)
    alice.wait_connected(30, times=2)

    # everything else at once
    gateway.write_config(good)
    wait_firing("CvpndReloadMissing")
    program.parent.chmod(0o775)
    gateway.ctl("reload")
    host.run("ip", "link", "set", "lan2", "down")
    soon = certs.START + 10 * certs.DAY
    old = certs.issue(None, certs.common_name("Old CA"), is_ca=True, end=soon)
    bundle = certs.authority().certificate_pem
    (site.directory / "ca.crt").write_bytes(bundle + old.certificate_pem)
    certs.issue(certs.authority(), certs.common_name("vpn.example.com"), end=soon).write(site.directory, "server")
    (site.directory / "guests.crt").write_text("half of it")
    now = datetime.datetime.now(datetime.UTC)
    site.write_crl(start=now - certs.DAY, end=now - datetime.timedelta(hours=1), number=2)
    guesses = [connect("anna", f"wrong-{n}", "--auth-retry", "nointeract", port=1195) for n in range(3)]
    wait_until(lambda: "CvpndPasswordsGuessed" in firing(), COUNTING_S)
    ldap.stop()
    stopped_at = time.monotonic()
    anna.kill()
    connect("anna", "right", "--auth-retry", "nointeract", **elsewhere)  # without a token, as often as it is refused
    fill(logs)
    fill(state)
    assert gateway.ctl("rule", "add", "staff", "10.30.0.0/16", "--all-groups", check=False).returncode == 1
    gateway.write_config(good + "\n[no such table]\n")
    assert gateway.ctl("reload", check=False).returncode == 1
    planted = (
        "CvpndHandlerUnusable", "CvpndSamlUnusable", "CvpndHostNotInOrder", "CvpndClientAuthorityExpiresSoon",
        "CvpndServerCertificateExpiresSoon", "CvpndCertificateFilesUnusable", "CvpndCrlExpired", "CvpndCrlExpiresSoon",
        "CvpndManyRefusals", "CvpndPasswordsGuessed", "CvpndDirectoryDown", "CvpndConnectionLogLost", "CvpndStoreDown",
        "CvpndReloadRefused",
    )  # fmt: skip
    wait_firing(*planted, timeout_s=RANGE_S + 20)
    for alert, said in prometheus.firing().items():
        assert said["summary"] and said["fix"], alert
        assert not re.search("<(error|no value)|%!", said["summary"] + said["fix"]), said
    some_up = f"max_over_time((max by (directory) (cvpnd_directory_server_up))[{RANGE_S}s:1s])"
    wait_until(lambda: time.monotonic() > stopped_at + RANGE_S + 5, RANGE_S + 5)
    assert set(prometheus.query(some_up).values()) == {0}, "also when it was asked again, and after that"

    # and all is put right
    for guess in guesses:
        guess.kill()
    logs.unlink()
    state.unlink()
    ldap.start()
    web = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(idp), "8008"]
    host.start(*web).wait_for("Serving HTTP")
    program.parent.chmod(0o755)
    host.run("ip", "link", "set", "lan2", "up")
    (site.directory / "ca.crt").write_bytes(bundle)
    certs.server().write(site.directory, "server")
    certs.server().write(site.directory, "guests")
    site.write_crl(number=3)
    gateway.write_config(good)
    wait_until(lambda: gateway.ctl("reload", check=False).returncode == 0, 30)
    wait_firing(timeout_s=COUNTING_S + 60)
    return prometheus
