"""Single sign-on for the stock client: it waits while somebody logs in with a browser, and goes on.

The identity provider here is of a few lines, the browser too; ``make test-sso`` has real ones."""

from __future__ import annotations

import shutil
import signal
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers import saml_idp, web_login
from helpers.lab import wait_until
from helpers.web_login import ACS, Browser, device

pytestmark = pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1")


@pytest.fixture
def start(site):
    def run(*methods: str, **options: str):
        metadata = site.directory / "idp.xml"
        metadata.write_text(saml_idp.metadata())
        site._gateway = site.lab.gateway_process(web_login.toml(site, metadata, *methods, **options))
        return site._gateway

    return run


@pytest.fixture
def browser(site):
    return Browser(site.lab.client)


def asked(browser: Browser, link: str) -> tuple[str, str]:
    """Where the link sends the browser, and the relay state."""
    url = browser.sent_on(browser.get(link))
    assert url.startswith(saml_idp.LOGIN_URL)
    (relay_state,) = parse_qs(urlsplit(url).query)["RelayState"]
    return url, relay_state


def test_a_person_logs_in_once_and_groups_decide_what_is_reached(site, start, browser, ping):
    gateway = start(more="renegotiate_s = 60")
    laptop = device(site, "laptop")
    url, relay_state = asked(browser, laptop.link())
    page = browser.consent_page(browser.post(ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state))
    for shown in ("anna@example.com (Anna Ende)", "Linux, OpenVPN 2.6", "192.0.2.2", "staff"):
        assert shown in page.text
    assert "PUSH_REPLY" not in laptop.client.log(), "not before consent"
    assert "Connected" in browser.decide(page).text
    laptop.client.wait_connected()
    assert ping() == ping("10.30.0.10") == 1.0
    (view,) = gateway.ctl_json("connection", "list")
    assert view["username"] == "anna@example.com"
    laptop.client.process.signal(signal.SIGUSR1)
    laptop.client.wait_connected(times=2)
    assert ping("10.30.0.10") == 1.0
    assert laptop.person.heard().count("WEB_AUTH") == 1, "one browser visit for both"
    keys = ("connection-attempt-status", "connection-reset-status")
    states = [tuple(entry[key] for key in keys) for entry in gateway.connection_log()]
    assert states[:3] == [("waiting-for-assertion", "NA"), ("NA", "assertion-received"), ("successful", "NA")]


def test_whoever_cannot_or_does_not_consent_stays_out_and_the_log_says_why(site, start, browser):
    gateway = start(more=f'remote = "{web_login.HOST}"', portal="login_s = 12")
    slow = device(site, "slow")
    slow.link()
    simple = device(site, "simple", "--push-peer-info")
    simple.client.wait_for("AUTH_FAILED,This VPN logs in with a browser")

    def refused_for(reason: str) -> None:
        wait_until(lambda: reason in gateway.refusals(), 8, reason)

    refused_for("saml-client-unsuited")

    declined = device(site, "declined", text=gateway.ctl("profile", "anna").stdout)
    url, relay_state = asked(browser, declined.link())
    page = browser.consent_page(browser.post(ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state))
    browser.decide(page, "deny")
    declined.client.wait_for("AUTH_FAILED,The login was declined")
    refused_for("login-declined")

    phished = device(site, "phished")
    victim = Browser(site.lab.clients[1])
    link = phished.link()
    url, relay_state = asked(browser, link)
    assert victim.get(link).status_code == 403, "the link belongs to the browser that opened it"
    answer = victim.post(ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state)
    stolen = victim.sent_on(answer)
    page = victim.get(stolen)
    assert page.status_code == 403 and "another browser" in page.text and "anna" not in page.text
    assert browser.get(stolen).status_code == 404, "it is over for the one that opened it too"
    phished.client.wait_for("AUTH_FAILED")
    refused_for("browser-mismatch")

    forged = device(site, "forged")
    url, relay_state = asked(browser, forged.link())
    answer = browser.post(
        ACS, SAMLResponse=saml_idp.answer(url, assertion_key=saml_idp.key("other")), RelayState=relay_state
    )
    assert answer.status_code == 403 and "signature" not in answer.text
    refused_for("saml-signature-invalid")

    slow.client.wait_for("AUTH_FAILED,Nobody completed the login in time", 25)
    refused_for("login-unanswered")
    for each in (simple, declined, phished, forged, slow):
        assert each.client.connected_count == 0 and "PUSH_REPLY" not in each.client.log()
    metrics = gateway.metrics()
    assert metrics['cvpnd_portal_refusals_total{reason="browser-mismatch"}'] == 2
    assert metrics['cvpnd_portal_refusals_total{reason="assertion-refused"}'] == 1
    for link in (each.links[-1] for each in (declined, phished, forged, slow)):
        assert link.rpartition("/")[2] not in gateway.log()
