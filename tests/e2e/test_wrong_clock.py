"""The daemon's wall clock is set while it runs, by hours and by years, under libfaketime; the clients' is right."""

from __future__ import annotations

import json
import signal
import ssl
import time

import pytest
from cryptography import x509
from helpers import certs
from helpers.lab import GatewayProcess, wait_until
from helpers.tokens import written_token
from helpers.wall_clock import LIBRARY, WallClock

from cvpnd.auth.passwords import hash_password
from cvpnd.auth.tokens import Token
from cvpnd.pki.authority import Authority
from cvpnd.pki.issue import issue_client
from cvpnd.pki.revocation import ensure_crl

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the Debian package faketime is not installed")

CERTIFICATE = '{ type = "certificate-authentication", client_ca = "ca.crt", crl = "crl.pem" }'
PASSWORD = '{ type = "directory-service-authentication", directory = "local" }'
HASH = hash_password("right")
YEAR_S = 365 * 86_400
AWAY = "table inet away { chain out { type filter hook output priority 0; udp dport 1194 drop; }; }"


@pytest.fixture
def clock(site) -> WallClock:
    return WallClock(site.directory / "wall-clock")


@pytest.fixture
def start(site, clock):
    """A gateway by that clock, on which alice and bob log in by password."""

    def run(more: str = "") -> GatewayProcess:
        toml = site.toml(more).replace(f"[{CERTIFICATE}]", f"[{PASSWORD}]")
        toml = toml.replace('private_key = "server.key"', 'private_key = "server.key", chain = "ca.crt"')
        for name in ("alice", "bob"):
            toml += f'[[local_users]]\nname = "{name}"\npassword_hash = "{HASH}"\n'
        site._gateway = site.lab.gateway_process(toml, **clock.environment)
        return site._gateway

    return run


def sessions(gateway: GatewayProcess, user: str) -> list[dict[str, object]]:
    return [each for each in gateway.ctl_json("connection", "list") if each["username"] == user]


def test_logins_that_are_ended_while_the_clock_is_behind_stay_ended_and_no_others_end(site, start, clock, connect):
    gateway = start()
    alice = connect("alice", "right").wait_connected()
    bob = connect("bob", "right", client=site.lab.clients[1], host="198.51.100.1").wait_connected()
    alice.namespace.run("nft", "-f", "-", input=AWAY)
    ended = "else her session's own login were what is ended"
    wait_until(lambda: all(e["status"] != "active" for e in sessions(gateway, "alice")), 15, ended)
    clock.set("-2h")
    gateway.ctl("connection", "terminate", "--username", "alice", check=False)  # which says that she is not there
    alice.namespace.run("nft", "delete", "table", "inet", "away")
    alice.wait_for("AUTH_FAILED,SESSION: token expired")
    wait_until(lambda: "token-invalid" in gateway.refusals(), 5)
    wait_until(lambda: alice.connected_count == 2, 15, "with the password, which it kept")
    bob.process.signal(signal.SIGUSR1)
    bob.wait_connected(times=2)
    assert gateway.metrics()['cvpnd_directory_seconds_count{directory="local"}'] == 3
    told = "the clock was put back by 2.0 hours"
    assert told in gateway.ctl("status", "--json", check=False).stdout and told in gateway.log()

    clock.set("+0")
    gateway.stop()
    gateway.start()
    wait_until(lambda: alice.connected_count == bob.connected_count == 3, 30)
    assert gateway.metrics()['cvpnd_directory_seconds_count{directory="local"}'] == 0, "by their tokens"


def test_what_was_ended_is_not_forgotten_because_the_clock_was_far_ahead_for_a_while(start, clock, connect):
    gateway = start()
    token = written_token(gateway, Token.new(time.time(), 3600), "alice", HASH)
    connect("alice", token, name="first").wait_connected().kill()
    gateway.ctl("connection", "terminate", "--username", "alice")
    clock.set("+40y")
    connect("bob", "right", name="bob").wait_connected().kill()
    gateway.ctl("connection", "terminate", "--username", "bob")
    clock.set("+0")
    gateway.stop()
    gateway.start()
    connect("alice", token, name="again").wait_for("AUTH_FAILED,SESSION: token expired")
    wait_until(lambda: "token-invalid" in gateway.refusals(), 5)


def test_a_token_that_was_written_when_the_clock_was_far_ahead_is_not_good_for_years(start, clock, connect):
    clock.set("+40y")
    gateway = start("renegotiate_s = 5")
    client = connect("alice", "right", "--reneg-sec", "0").wait_connected()
    clock.set("+0")
    renegotiations = 'cvpnd_renegotiations_total{endpoint="staff"}'
    wait_until(lambda: gateway.metrics()[renegotiations] >= 2, 20, "whoever is there stays")
    client.process.signal(signal.SIGUSR1)
    client.wait_for("AUTH_FAILED,SESSION: token expired")
    wait_until(lambda: "token-expired" in gateway.refusals(), 5)
    wait_until(lambda: client.connected_count == 2, 15, "with the password, which it kept")


@pytest.mark.parametrize("away", ["-2h", "+2h"])
def test_a_session_ends_when_its_time_has_passed_whatever_the_clock_says(start, clock, connect, away):
    gateway = start("session_timeout_s = 8\nrenegotiate_s = 0")
    begun = time.monotonic()
    client = connect("alice", "right").wait_connected()
    clock.set(away)
    gateway.write_config(gateway.config_path.read_text().replace("_timeout_s = 8", "_timeout_s = 9"))
    gateway.reload()
    wait_until(lambda: gateway.metrics()["cvpnd_reload_revision"] >= 2)
    time.sleep(max(0.0, begun + 6 - time.monotonic()))
    assert [each["status"] for each in sessions(gateway, "alice")] == ["active"]
    client.wait_for("Session timeout", 8)
    assert 9 <= time.monotonic() - begun < 12


def test_a_certificate_that_is_revoked_while_the_clock_is_far_ahead_is_revoked_and_others_get_in_again(site, clock):
    authority = Authority.create(site.directory / "pki", "Acme CA")
    ensure_crl(authority)
    alice, bob = (certs.as_client(issue_client(authority, name)) for name in ("alice", "bob"))
    toml = site.toml().replace('client_ca = "ca.crt", crl = "crl.pem"', 'client_ca = "pki/ca.crt", crl = "pki/crl.pem"')
    site._gateway = gateway = site.lab.gateway_process('[pki]\ndirectory = "pki"\n' + toml, **clock.environment)
    site.connect(alice).kill()
    clock.set("+40y")
    wait_until(lambda: "the clock was put ahead by 40" in gateway.log(), 5)
    gateway.ctl("certificate", "revoke", "alice")
    clock.set("+0")
    expires = 'cvpnd_crl_expiry_timestamp_seconds{endpoint="staff"}'
    wait_until(
        lambda: gateway.metrics()[expires] < time.time() + YEAR_S, 10, "it is signed again when the clock is set"
    )
    site.connect(alice, wait=False, name="again").wait_for("fatal SSL alert")
    wait_until(lambda: "certificate-revoked" in gateway.refusals(), 10)
    site.connect(bob, name="bob", client=site.lab.clients[1], host=site.lab.gateway_address_of(1, 4))


def test_the_apis_certificate_that_signs_itself_is_another_one_before_it_ends(site, clock):
    """Told for who has a copy, and shown while the daemon runs on; so it is after a clock that was ahead."""
    toml = '[api]\nlisten = "https://127.0.0.1:8443"\n' + site.toml()
    site._gateway = gateway = site.lab.gateway_process(toml, **clock.environment)

    def shown() -> str:
        with site.lab.gateway.entered():
            return ssl.get_server_certificate(("127.0.0.1", 8443))

    def told() -> list[str]:
        return [each["what"] for each in status(gateway)["problems"] if each["subject"] == "API"]

    wait_until(lambda: "ready: " in gateway.log(), 10, "the API")
    first = shown()
    assert first == (site.directory / "api.crt").read_text() and told() == []
    clock.set("+800d")
    wait_until(lambda: shown() != first, 15, "another certificate")
    second = shown()
    assert second == (site.directory / "api.crt").read_text() and "about to end" in told()[0]
    assert "whoever trusts a copy of the one before needs the new" in gateway.log()
    clock.set("+0")
    wait_until(lambda: shown() != second, 15, "one that is good now")
    certificate = x509.load_pem_x509_certificate(shown().encode())
    assert certificate.not_valid_before_utc.timestamp() < time.time() < certificate.not_valid_after_utc.timestamp()


def test_a_host_that_boots_with_its_clock_behind_shows_the_same_certificate_and_starts_where_it_cannot_be_renewed(
    site, clock
):
    toml = '[api]\nlisten = "https://127.0.0.1:8443"\n' + site.toml()
    site._gateway = gateway = site.lab.gateway_process(toml, **clock.environment)
    wait_until(lambda: "ready: " in gateway.log(), 10, "the API")
    certificate = site.directory / "api.crt"
    first = certificate.read_text()
    in_the_way = site.directory / "api.crt~"
    in_the_way.mkdir()
    for away in ("-2000d", "+800d"):
        gateway.stop()
        clock.set(away)
        gateway.start()
        wait_until(lambda: "ready: " in gateway.log(), 10, away)
        assert certificate.read_text() == first
        assert ("cannot be renewed" in gateway.log()) is away.startswith("+")
    with site.lab.gateway.entered():
        assert ssl.get_server_certificate(("127.0.0.1", 8443)) == first
    in_the_way.rmdir()
    clock.set("+801d")
    wait_until(lambda: certificate.read_text() != first and in_the_way.read_text() == first, 15, "by the next look")


def status(gateway: GatewayProcess) -> dict[str, list[dict[str, str]]]:
    return json.loads(gateway.ctl("status", "--json", check=False).stdout)
