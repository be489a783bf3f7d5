"""Between the first yes to a login and its end a client connect handler is asked, or a person is in their browser.
Whatever is taken away meanwhile counts."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers import certs, saml_idp, web_login
from helpers.handshake import client_context
from helpers.lab import OpenVpnClient, wait_until
from helpers.totp import code_of, static
from helpers.web_login import ACS, Browser, device
from light_client.browser import NOBODY, answer, sent_to
from light_client.driver import Plan, run_client
from light_client.generations import generation

CERTIFICATE = '{ type = "certificate-authentication", client_ca = "ca.crt", crl = "crl.pem" }'
LOCAL = '{{ type = "directory-service-authentication", directory = "local", mfa = "{}" }}'
PROGRAM = """#!/bin/sh
read -r request
echo "$request" >>{directory}/requests
until [ -e {directory}/go ]; do sleep 0.05; done
printf '{{"allow": true, "error-msg-on-denied-connection": "", "posture-compliance-statuses": [], '
echo '"schema-version": "v3"}}'
"""
HANDLER = """
[[handler]]
name = "AWSClientVPN-slow"
executable = "{program}"
"""
MORE = 'connect_handler = "AWSClientVPN-slow"\nhand_window_s = 30'


class Slow:
    """A handler that says yes when it is told to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.program = directory / "slow"
        self.program.write_text(PROGRAM.format(directory=directory))
        self.program.chmod(0o755)
        self._asked = 0

    def wait_asked(self) -> dict:
        self._asked += 1
        requests = self._directory / "requests"
        wait_until(lambda: requests.exists() and len(requests.read_text().splitlines()) == self._asked, 15, "a request")
        return json.loads(requests.read_text().splitlines()[-1])

    def answers(self, yes: bool = True) -> None:
        go = self._directory / "go"
        go.touch() if yes else go.unlink(missing_ok=True)


@pytest.fixture
def slow() -> Iterator[Slow]:
    directory = Path(tempfile.mkdtemp(prefix="cvpnd-slow-"))
    directory.chmod(0o755)
    (directory / "requests").touch()
    (directory / "requests").chmod(0o666)
    yield Slow(directory)
    shutil.rmtree(directory)


@pytest.fixture
def taken_away(site, slow) -> Callable[..., None]:
    """While the handler is asked about ``client``; ``reason``: why it is not let in then, None: it is."""

    def run(client: OpenVpnClient, what: Callable[[], object], reason: str | None) -> None:
        before = len(site.gateway.refusals())
        slow.wait_asked()
        what()
        slow.answers()
        if reason is None:
            client.wait_connected()
        else:
            wait_until(lambda: len(site.gateway.refusals()) > before, 10, "a refusal")
            assert site.gateway.refusals()[before:] == [reason]
            client.wait_for("AUTH_FAILED")
            assert client.connected_count == 0
        client.stop()
        slow.answers(False)

    return run


def test_what_is_taken_away_while_the_handler_is_asked_counts(site, slow, connect, taken_away):
    site._gateway = gateway = site.lab.gateway_process(
        HANDLER.format(program=slow.program)
        + site.toml(MORE).replace(f"[{CERTIFICATE}]", f"[{CERTIFICATE}, {LOCAL.format('off')}]")
    )
    for name in ("anna", "bob"):
        gateway.ctl("user", "add", name, "--group", "staff", input="right\n")
    number = iter(range(100))

    def login(name: str = "anna") -> OpenVpnClient:
        return connect(name, "right", certificate=certs.client("laptop"), name=f"{name}-{next(number)}")

    def terminate(*arguments: str) -> Callable[[], object]:
        return lambda: gateway.ctl("connection", "terminate", *arguments, check=False)

    user = ("--username", "anna")
    taken_away(login(), terminate(*user), "terminated")
    taken_away(login(), terminate(*user, "--endpoint", "staff"), "terminated")
    taken_away(login(), terminate("--username", "laptop"), "terminated")
    taken_away(login("bob"), terminate(*user), None)
    taken_away(login(), lambda: gateway.ctl("user", "disable", "anna"), "account-disabled")
    gateway.ctl("user", "enable", "anna")
    taken_away(login(), lambda: gateway.ctl("user", "password", "anna", input="other\n"), "wrong-password")
    gateway.ctl("user", "password", "anna", input="right\n")
    taken_away(login(), lambda: gateway.ctl("user", "remove", "anna"), "user-unknown")


def test_an_authenticator_that_is_replaced_or_removed_while_the_handler_is_asked_lets_nobody_in(
    site, slow, connect, taken_away
):
    site._gateway = gateway = site.lab.gateway_process(
        HANDLER.format(program=slow.program)
        + site.toml(MORE)
        .replace(f"[{CERTIFICATE}]", f"[{LOCAL.format('totp')}]")
        .replace('private_key = "server.key"', 'private_key = "server.key", chain = "ca.crt"')
    )
    enrolments = {}
    for name in ("anna", "bob"):
        gateway.ctl("user", "add", name, input="right\n")
        enrolments[name] = gateway.ctl_json("user", "totp", "enrol", name)

    def login(name: str) -> OpenVpnClient:
        return connect(name, static("right", code_of(enrolments[name])), name=name)

    def enrol() -> None:
        enrolments["anna"] = gateway.ctl_json("user", "totp", "enrol", "anna")

    taken_away(login("anna"), enrol, "terminated")
    taken_away(login("anna"), lambda: gateway.ctl("user", "totp", "remove", "anna"), "terminated")
    taken_away(login("bob"), enrol, None)


def test_a_certificate_alone_is_ended_while_the_handler_is_asked(site, slow, taken_away):
    site._gateway = gateway = site.lab.gateway_process(HANDLER.format(program=slow.program) + site.toml(MORE))
    for number, arguments in enumerate((("--username", "alice"), ("--username", "alice", "--endpoint", "staff"))):
        client = site.connect(certs.client("alice"), "--auth-retry", "none", wait=False, name=f"alice-{number}")
        taken_away(client, lambda a=arguments: gateway.ctl("connection", "terminate", *a, check=False), "terminated")


@pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1")
def test_a_login_in_the_browser_ends_with_those_of_its_user(site):
    """Before consent where the client waits, and before the response is here where the client has gone for it."""
    metadata = site.directory / "idp.xml"
    metadata.write_text(saml_idp.metadata())
    site._gateway = gateway = site.lab.gateway_process(web_login.toml(site, metadata))
    anna = "anna@example.com"

    def terminate(name: str = anna) -> None:
        gateway.ctl("connection", "terminate", "--username", name, check=False)

    for name, refused in (("bob@example.com", []), (anna, ["terminated"])):
        laptop, browser = device(site, name), Browser(site.lab.client)
        url = browser.sent_on(browser.get(laptop.link()))
        (relay_state,) = parse_qs(urlsplit(url).query)["RelayState"]
        page = browser.consent_page(browser.post(ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state))
        terminate(name)
        browser.decide(page)
        laptop.client.wait_for("AUTH_FAILED" if refused else "Initialization Sequence Completed")
        assert [each for each in gateway.refusals() if each != "NA"] == refused
        laptop.client.stop()

    def aws(password: str) -> str:
        plan = Plan(web_login.HOST, 1194, generation=generation("aws"), logins=((NOBODY, password),))
        with site.lab.client.entered():
            return asyncio.run(run_client(client_context(None), plan, 0)).error

    for wait_s, failed in ((0.0, True), (1.1, False)):  # it says in whole seconds when it went
        time.sleep(wait_s)
        state, url = sent_to(aws("ACS::35001"))
        if failed:
            terminate()
        assert aws(answer(state, saml_idp.answer(url))).startswith("AUTH_FAILED") is failed
    assert gateway.refusals().count("terminated") == 2
