"""Logins at an identity provider with the daemon itself: AWS's clients by the dozen, beside tunnels that must not
notice."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from ipaddress import IPv4Address

import pytest
from helpers import certs, saml_idp, web_login
from helpers.handshake import client_context
from helpers.lab import REPOSITORY, wait_until
from helpers.relay import Weather
from light_client.browser import NOBODY, answer, sent_to
from light_client.driver import ClientResult, Plan, run_client
from light_client.generations import generation

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root")

FULL = os.environ.get("LOGINS") == "full"
CROWD = 50 if FULL else 10
BESIDE_S = 75 if FULL else 12
"""For how long others transfer while they log in."""
SSO = """
[[endpoint]]
name = "sso"
client_cidr = "10.104.0.0/22"
listen = ["udp://0.0.0.0:1195", "tcp://0.0.0.0:1195"]
server_certificate = { certificate = "server.crt", private_key = "server.key", chain = "ca.crt" }
authentication = [{ type = "federated-authentication", saml_provider = "corp" }]
split_tunnel = true
associate = ["subnet-a"]
authorize = [{ network = "10.20.0.0/16", group = "eng" }]

[[saml_provider]]
id = "corp"
metadata = "idp.xml"
"""


@pytest.fixture
def crowd(site):
    """``crowd(count, "--tcp")``: what they report."""
    key = saml_idp.key()
    directory = site.lab.directory / "idp"
    directory.mkdir()
    (directory / "key.pem").write_text(key.private)
    (directory / "certificate.pem").write_text(key.certificate)
    (site.directory / "idp.xml").write_text(saml_idp.metadata(key))
    environment = {"PYTHONPATH": os.pathsep.join(str(REPOSITORY / each) for each in ("tests", "bench"))}
    command = [sys.executable, "-P", "-m", "helpers.saml_crowd", "--private", directory / "key.pem"]
    command += ["--certificate", directory / "certificate.pem", "--remote"]
    gateway = f"{site.lab.gateway_address_of(1, 4)}:1195"

    def run(count: int, *options: str, remote: str = gateway, client: int = 1) -> dict[str, object]:
        given = (remote, "--count", str(count), *options)
        done = site.lab.clients[client].run(*command, *given, env=environment, timeout_s=100)
        return json.loads(done.stdout)

    return run


@pytest.mark.timeout(240)
def test_many_logins_at_once_and_tunnels_that_lose_nothing(site, crowd):
    """Stock clients send and receive meanwhile at a rate that two cores carry, each on a machine of its own by its
    routing table; what arrives is counted by its sequence."""
    site._gateway = gateway = site.lab.gateway_process(site.toml() + SSO)
    streams = []
    for number in range(8 if FULL else 2):
        stock = site.connect(certs.client(f"stock{number}"), "--route-noexec", name=f"stock{number}")
        site.lab.client.run("ip", "route", "add", "10.20.0.0/16", "dev", stock.interface, "table", str(100 + number))
        site.lab.client.run("ip", "rule", "add", "from", stock.address, "table", str(100 + number))
        streams.append((stock, ["-R"] if number % 2 else []))
    running = [
        site.lab.start_iperf3(
            site.lab.client, 5300 + number, "-u", "-b", "800K", "-l", "1000", "-B", stock.address, *direction,
            seconds=BESIDE_S,
        )
        for number, (stock, direction) in enumerate(streams)
    ]  # fmt: skip
    report = crowd(CROWD)
    reports = [each.report() for each in running]
    packets, lost = (sum(each[key] for each in reports) for key in ("packets", "lost_packets"))
    print(
        f"{CROWD} logins in {report['seconds']:.1f} s beside {len(reports)} transfers: {packets} packets, {lost} lost"
    )
    assert report["errors"] == []
    assert lost == 0 and packets > 95 * BESIDE_S * len(reports)
    assert all(stock.connected_count == 1 for stock, _ in streams)
    assert crowd(1, "--tcp")["errors"] == []
    relay = site.lab.relay(site.lab.gateway_address, 1195, Weather(loss=0.02))
    assert crowd(1, "--characters", "131072", remote=f"127.0.0.1:{relay.port}", client=0)["errors"] == []
    log = [entry for entry in gateway.connection_log() if entry["endpoint-name"] == "sso"]
    statuses = [entry["connection-attempt-status"] for entry in log]
    assert statuses.count("waiting-for-assertion") == CROWD + 2
    assert [entry["connection-reset-status"] for entry in log].count("assertion-received") == CROWD + 2
    successful = [entry for entry in log if entry["connection-attempt-status"] == "successful"]
    assert {entry["username"] for entry in successful} == {f"user{n}@example.com" for n in range(CROWD)}
    assert set(gateway.refusals()) == {"NA"}
    metrics = gateway.metrics()
    assert metrics['cvpnd_saml_responses_total{provider="corp",result="accepted"}'] == CROWD + 2
    assert metrics['cvpnd_saml_seconds_count{provider="corp"}'] == CROWD + 2
    assert metrics['cvpnd_saml_metadata_usable{provider="corp"}'] == 1
    days = (metrics['cvpnd_saml_certificate_expiry_timestamp_seconds{provider="corp"}'] - time.time()) / 86_400
    assert 29 < days < 31
    assert metrics['cvpnd_waiting_logins{endpoint="sso"}'] == 0
    profile = gateway.ctl("profile", "anna", "--endpoint", "sso", "--for", "aws").stdout.splitlines()
    assert {"auth-federate", "auth-nocache", "auth-retry interact", "reneg-sec 0"} <= set(profile)
    assert not any(line.startswith(("auth-user-pass", "cert ", "key ")) for line in profile)

    good = (site.directory / "idp.xml").read_text()
    (site.directory / "idp.xml").write_text(good[:200])
    gateway.reload()
    wait_until(lambda: "saml_provider corp" in gateway.log() and "the old configuration runs on" in gateway.log(), 10)
    (site.directory / "idp.xml").write_text(saml_idp.metadata(saml_idp.key("another")))
    gateway.reload()
    wait_until(lambda: "reloaded" in gateway.log(), 10)
    (error,) = crowd(1)["errors"]
    assert error.startswith("AUTH_FAILED,The answer of your identity provider")
    assert "saml-signature-invalid" in gateway.refusals()
    assert gateway.metrics()['cvpnd_saml_responses_total{provider="corp",result="saml-signature-invalid"}'] == 1


def test_with_certificates_too_and_a_gateway_that_dies_between_the_two_connections(site):
    (site.directory / "idp.xml").write_text(saml_idp.metadata())
    site.write_crl(certs.client("revoked"))
    toml = web_login.toml(site, site.directory / "idp.xml", web_login.CERTIFICATE, web_login.FEDERATED)
    site._gateway = gateway = site.lab.gateway_process(toml.partition("[portal]")[0])

    def visit(password: str, certificate: certs.TestCertificate, **options: object) -> ClientResult:
        logins = ((NOBODY, password),)
        plan = Plan(site.lab.gateway_address, 1194, generation=generation("aws"), logins=logins, **options)
        with site.lab.client.entered():
            return asyncio.run(run_client(client_context(certificate), plan, 0))

    def why() -> list[str]:
        return [reason for reason in gateway.refusals() if reason != "NA"]

    for wrong, reason in (
        (certs.client("revoked"), "certificate-revoked"),
        (certs.client_of_another_authority(), "certificate-unknown-ca"),
    ):
        told = visit("ACS::35001", wrong, timeout_s=5.0).error
        assert told and "CRV1" not in told, "no browser is bothered"
        assert why()[-1:] == [reason]
    gateway.ctl("connection", "terminate", "--username", "anna@example.com", check=False)  # long over
    time.sleep(1.1)
    state, url = sent_to(visit("ACS::35001", certs.client()).error)
    gateway.kill()
    gateway.start()
    response = saml_idp.answer(url)
    assert visit(answer(state, response), certs.client("bob")).error.startswith("AUTH_FAILED,The answer")
    assert why()[-1] == "saml-request-unknown"
    let_in = visit(answer(state, response), certs.client(), ping=IPv4Address("10.20.0.10"), pings=3)
    assert (let_in.error, len(let_in.round_trips_ms)) == ("", 3)
    (entry,) = [e for e in gateway.connection_log() if e["connection-attempt-status"] == "successful"]
    assert (entry["username"], entry["common-name"]) == ("anna@example.com", "alice")
    assert visit(answer(state, response), certs.client()).error.startswith("AUTH_FAILED,The answer")
    assert why()[-1] == "saml-request-used"
    time.sleep(1.1)
    state, url = sent_to(visit("ACS::35001", certs.client()).error)
    gateway.kill()
    gateway.start()
    gateway.ctl("connection", "terminate", "--username", "anna@example.com", check=False)
    assert visit(answer(state, saml_idp.answer(url)), certs.client()).error.startswith("AUTH_FAILED")
    assert why()[-1] == "terminated", "whatever the clock lost by the crash"
