"""A second factor on top of a real OpenLDAP directory with the stock client: codes of an authenticator app, and codes
and questions of a real FreeRADIUS server."""

from __future__ import annotations

import base64
import os

import pytest
from helpers.freeradius import BY_CHALLENGE, BY_CODE, FREERADIUS, SENT_CODE, FreeRadius, code, toml
from helpers.lab import wait_until
from helpers.management import Management
from helpers.openldap import SLAPD, OpenLdap
from helpers.totp import code_of, static

pytestmark = pytest.mark.skipif(
    not SLAPD.exists() or not FREERADIUS.exists() or os.geteuid() != 0, reason="make test unpacks slapd and freeradius"
)

CERTIFICATE = '{ type = "certificate-authentication", client_ca = "ca.crt", crl = "crl.pem" }'
USERS = {"alice": "right", "bob": "right"}
CODE_PORT, ASKING_PORT, DEAD_PORT = 18120, 18122, 18124


def method(mfa: str) -> str:
    return f'{{ type = "directory-service-authentication", directory = "corp", mfa = "{mfa}" }}'


@pytest.fixture
def corp(site):
    ldap = OpenLdap(site.lab.gateway, site.lab.directory / "ldap").start()
    ldap.fill(USERS, {"eng": ["alice"]})
    return ldap


@pytest.fixture
def written(site, corp):
    """The configuration with a method, and what else goes into ``[[directory]]`` and beside it."""

    def run(mfa: str, directory: str = "", beside: str = "") -> str:
        toml = site.toml("hand_window_s = 10").replace(f"[{CERTIFICATE}]", f"[{method(mfa)}]")
        toml = toml.replace("authorize = [", 'authorize = [{ network = "10.30.0.0/16", group = "eng" }, ')
        toml = toml.replace('private_key = "server.key"', 'private_key = "server.key", chain = "ca.crt"')
        return toml + (directory or corp.toml()) + beside

    return run


def test_an_authenticator_app_and_then_radius_servers_on_top_of_ldap(site, corp, written, connect, ping):
    gateway = site._gateway = site.lab.gateway_process(written("totp"))
    enrolment = gateway.ctl_json("user", "totp", "enrol", "alice", "--directory", "corp")
    alice = connect("EXAMPLE\\alice", static("right", code_of(enrolment)), name="app").wait_connected()
    assert ping("10.30.0.10") == 1.0, "the group of the directory"
    alice.stop()

    # no service account any more, the first RADIUS server is dead, the next one judges codes
    FreeRadius(site.lab.gateway, site.lab.directory / "codes", CODE_PORT, BY_CODE).start()
    asking = FreeRadius(site.lab.gateway, site.lab.directory / "asking", ASKING_PORT, BY_CHALLENGE).start()
    servers = toml(site.lab.directory, DEAD_PORT, CODE_PORT, of="corp", more="timeout_s = 1")
    gateway.write_config(written("radius", corp.toml_direct(), servers))
    gateway.ctl("reload")
    used = static("right", code())
    alice = connect("alice", used, name="radius").wait_connected()
    assert ping("10.30.0.10") == 1.0
    wrong = {"mfa-code-reused": ("alice", used), "mfa-code-wrong": ("bob", static("right", "000000"))}
    refused = [connect(*login, name=reason, **elsewhere(site)) for reason, login in wrong.items()]
    assert {each.wait_for(r"AUTH: Received control message: (.*)")[1] for each in refused} == {"AUTH_FAILED"}
    wait_until(lambda: wrong.keys() <= set(gateway.refusals()), 5)
    metrics = gateway.metrics()
    server_up = 'cvpnd_radius_server_up{{directory="corp",server="radius://127.0.0.1:{}"}}'
    assert [metrics[server_up.format(port)] for port in (DEAD_PORT, CODE_PORT)] == [0, 1]
    assert metrics['cvpnd_radius_seconds_count{directory="corp"}'] == 3
    assert 'static-challenge "Enter MFA code " 1' in gateway.ctl("profile", "alice").stdout

    # a server that asks by itself, and clients that leave for the question or stay for it
    servers = toml(site.lab.directory, ASKING_PORT, of="corp")
    gateway.write_config(written("radius-challenge", beside=servers))
    gateway.ctl("reload")
    question = r"AUTH_FAILED,CRV1:R,E:(\S+):\S+:Code from the SMS:"
    state = connect("alice", "right", name="asked").wait_for(question)[1]
    connect("alice", f"CRV1::{state}::{SENT_CODE}", name="answers").wait_connected()
    with Management(site.lab.directory / "person") as person:
        options = (*person.options, "--setenv", "IV_SSO", "crtext", "--push-peer-info")
        bob = connect("bob", "right", *options, **elsewhere(site))
        wait_until(lambda: ">INFOMSG:CR_TEXT:R,E:Code from the SMS:" in person.heard(), 15)
        person.say(f"cr-response {base64.b64encode(SENT_CODE.encode()).decode()}")
        bob.wait_connected()
        assert ping(client=site.lab.clients[1]) == 1.0 and "AUTH_FAILED" not in bob.log()
    assert "static-challenge" not in gateway.ctl("profile", "alice").stdout
    assert not any(word in gateway.log() for word in (SENT_CODE, used, "of the service")), asking.log()


def elsewhere(site):
    return {"client": site.lab.clients[1], "host": "198.51.100.1"}
