"""One gateway that keeps and is told every kind of secret there is, for a day that goes well and badly, and whoever
looks afterwards: into its log at its most talkative, its answers, its files, processes, pages and database.

What each secret is, ``helpers/canaries.py`` knows by itself; here is what those of other programs are."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from pathlib import Path

import psycopg
import pytest
from helpers import canaries, saml_idp, web_login
from helpers.answers import Answers
from helpers.freeradius import BY_CHALLENGE, FREERADIUS, SENT_CODE, FreeRadius
from helpers.freeradius import toml as radius_toml
from helpers.lab import wait_until
from helpers.networks import endpoint
from helpers.openldap import SLAPD, OpenLdap
from helpers.postgresql import PostgreSql, installed
from helpers.totp import code_of, static
from helpers.web_login import ACS, Browser, device

from cvpnd.wire.wrap import key_files

pytestmark = [
    pytest.mark.skipif(
        os.geteuid() != 0 or not SLAPD.exists() or not FREERADIUS.exists() or not installed(),
        reason="needs root, PostgreSQL, and slapd and freeradius, which make test unpacks",
    ),
    pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1"),
]

PORTAL, METRICS = (web_login.HOST, web_login.PORT), ("127.0.0.1", 9176)
OF_ANNA, OF_THE_HOOK, GUESS = "Kanari-of-anna-77", "Kanari-signs-requests", "Kanari-guessed-by-otto"
KEPT_ELSEWHERE = {"PGPASSFILE": "pgpass", "HOME": "home"}
BESIDE = """
[daemon]
log_level = "debug"
admin_socket = "admin.sock"
log_directory = "log"
state = "{state}"
state_key = "state.key"
[metrics]
listen = "127.0.0.1:9176"
per_user = true
[status_file]
path = "log/status.log"
version = 3
[[handler]]
name = "AWSClientVPN-gone"
url = "http://127.0.0.1:9/connect?key={hook}"
secret_file = "handler.secret"
"""
STRANGERS_TOO = 'plain = true, tls_crypt_v2 = { server_key = "v2.key" }'
BY_PASSWORD = 'type = "directory-service-authentication", directory = "{}", mfa = "{}"'


@pytest.fixture
def database(site):
    with PostgreSql() as server:
        url = server.everywhere(server.new_database("day"))
        yield url


@pytest.fixture
def gateway(site, database):
    """Whose database's password only the file knows that its environment names."""
    directory = site.directory
    (directory / "log").mkdir()
    (directory / "home").mkdir()
    password = re.search("//[^:]*:([^@]*)@", database)[1]
    (directory / "pgpass").write_text(f"*:*:day:postgres:{password}\n")
    (directory / "pgpass").chmod(0o600)
    for name in ("tls-auth", "tls-crypt"):
        (directory / f"{name}.key").write_bytes(key_files.serialise_static_key(key_files.new_static_key()))
    (directory / "v2.key").write_bytes(key_files.serialise_v2_server_key(key_files.new_v2_server_key()))
    (directory / "handler.secret").write_text(OF_THE_HOOK + "\n")
    (directory / "idp.xml").write_text(saml_idp.metadata())
    ldap = OpenLdap(site.lab.gateway, site.lab.directory / "ldap").start()
    ldap.fill({"alice": "Kanari-of-alice-99"}, {"eng": ["alice"]})
    FreeRadius(
        site.lab.gateway, site.lab.directory / "radius", 18120, BY_CHALLENGE.replace('"right"', '"Kanari-of-alice-99"')
    ).start()  # fmt: skip
    sso = web_login.toml(site, directory / "idp.xml").partition("\n[[vpc]]")[2]
    without = database.replace(f":{password}@", "@")
    asks = 'connect_handler = "AWSClientVPN-gone"'
    endpoints = "".join(
        endpoint(name, number, BY_PASSWORD.format(*method), f"control_protection = {{ {protection} }}", *more)
        for name, number, method, protection, *more in (
            ("local", 104, ("local", "totp"), 'tls_crypt = { key = "tls-crypt.key" }'),
            ("corp", 108, ("corp", "radius-challenge"), 'tls_auth = { key = "tls-auth.key" }'),
            ("judged", 112, ("local", "off"), STRANGERS_TOO, asks),
        )
    )
    toml = BESIDE.format(state=without, hook=OF_THE_HOOK) + "\n[[vpc]]" + sso + endpoints
    toml += ldap.toml() + radius_toml(site.lab.directory, 18120, of="corp")
    environment = {name: str(directory / path) for name, path in KEPT_ELSEWHERE.items()}
    site._gateway = site.lab.gateway_process(toml, **environment)
    return site._gateway


def test_a_day_with_every_secret_leaves_none_behind(site, gateway, database, connect, ping):
    lab, directory = site.lab, site.directory
    for secret in (OF_ANNA, OF_THE_HOOK, GUESS):
        canaries.plant(secret, "what this test made up")
    answers = Answers(lab.gateway, gateway.admin_socket, gateway.log_directory)
    gateway.ctl("user", "add", "anna", input=f"{OF_ANNA}\n")
    enrolment = gateway.ctl_json("user", "totp", "enrol", "anna")
    keys = gateway.ctl_json("access-key", "create", "--role", "admin")

    crypt = ("--tls-crypt", str(directory / "tls-crypt.key"))
    refused = connect("anna", static(GUESS, "123456"), *crypt, port=104, name="guess")
    refused.wait_for("AUTH_FAILED")
    refused.stop()
    anna = connect("anna", static(OF_ANNA, code_of(enrolment)), *crypt, port=104, name="anna").wait_connected()
    anna.process.signal(signal.SIGHUP)  # once more, with its token
    wait_until(lambda: anna.connected_count == 2, 15)
    anna.stop()

    auth = ("--tls-auth", str(directory / "tls-auth.key"), "1")
    asked = connect("alice", "Kanari-of-alice-99", *auth, port=108)
    state = asked.wait_for(r"AUTH_FAILED,CRV1:R,E:(\S+):\S+:Code from the SMS:")[1]
    canaries.plant(state, "what stands for a login under way")
    connect("alice", f"CRV1::{state}::{SENT_CODE}", *auth, port=108, name="answers").wait_connected().stop()
    connect("anna", OF_ANNA, port=112, name="judged").wait_for("AUTH_FAILED")

    browser = Browser(lab.client)
    laptop = device(site, "laptop")
    link = laptop.link()
    url = browser.sent_on(browser.get(link))
    relay_state = re.search("RelayState=([^&]+)", url)[1]
    posted = browser.post(ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state)
    page = browser.consent_page(posted)
    again = browser.post(ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state)
    for shown in (page, browser.decide(page), again, browser.get(link)):
        answers.keep(re.sub('name="consent" value="[^"]*"', "", shown.text).encode())
    laptop.client.wait_connected()
    assert ping("10.30.0.10") == 1.0, "the group of the assertion"
    wanted = {"wrong-password", "client-connect-handler-service-error", "waiting-for-assertion"}
    told = {e["connection-attempt-status"] for e in gateway.connection_log()} | set(gateway.refusals())
    assert wanted <= told, told

    for path in ("connections", "recent-log", "audit", "users", "access-keys", "status", "endpoints", "directories"):
        answers.ask(None, "GET", f"/v1/{path}")
    assert answers.ask(METRICS, "GET", "/metrics")[0] == 200
    for options in ((), ("--config", str(gateway.config_path))):
        for command in (("status",), ("doctor", *options), ("connection", "list"), ("log", "follow", "--once")):
            answers.keep(gateway.ctl(*command, check=False).stdout.encode())
    bundle = gateway.directory / "bundle.tar.gz"
    gateway.ctl("support-bundle", "--config", str(gateway.config_path), "--output", str(bundle))
    for process in lab.gateway.run("ip", "netns", "pids", lab.gateway.name).stdout.split():
        with contextlib.suppress(FileNotFoundError):  # one that has just ended
            answers.keep((Path("/proc") / process / "cmdline").read_bytes().replace(b"\0", b" "))
    answers.keep("\n".join(rows(database)).encode())

    # what goes wrong last is told the most of: the database goes away, the file has a mistake
    text = gateway.config_path.read_text()
    gateway.write_config(text.replace("radius.secret", "nowhere.secret"))
    gateway.ctl("reload", check=False)
    gateway.write_config(text.replace("log_level", "log_levl"))
    answers.keep(gateway.ctl("reload", check=False).stderr.encode())
    canaries.look_below(lab.directory)
    assert keys["access_key_id"].encode() in (gateway.log_directory / "answers").read_bytes(), "which is no secret"


def rows(database: str) -> list[str]:
    """Everything that is in it."""
    with psycopg.connect(database) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert tables
        return [
            json.dumps([table, *(each.hex() if isinstance(each, bytes) else each for each in row)], default=str)
            for (table,) in tables
            for row in connection.execute(f'SELECT * FROM "{table}"').fetchall()
        ]
