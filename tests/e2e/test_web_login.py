"""Single sign-on for the stock client: it waits while somebody logs in with a browser, and goes on.

The identity provider here is of a few lines, the browser too; ``make test-sso`` has real ones."""

from __future__ import annotations

import asyncio
import shutil
import signal
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers import certs, saml_idp, web_login
from helpers.handshake import client_context
from helpers.lab import wait_until
from helpers.web_login import ACS, Browser, device
from light_client.browser import NOBODY, sent_to
from light_client.browser import answer as brought
from light_client.driver import Plan, run_client
from light_client.generations import generation

pytestmark = pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1")

OTHER = {"entity_id": "https://other.example.com/metadata", "login_url": "https://other.example.com/sso"}
PARTNERS = """
[[saml_provider]]
id = "partner"
metadata = "other.xml"

[[endpoint]]
name = "partners"
client_cidr = "10.104.0.0/22"
listen = ["udp://0.0.0.0:1195"]
server_certificate = { certificate = "server.crt", private_key = "server.key", chain = "ca.crt" }
authentication = [{ type = "federated-authentication", saml_provider = "partner" }]
split_tunnel = true
associate = ["subnet-a", "subnet-b"]
authorize = [{ network = "10.30.0.0/16", all_groups = true }]
"""


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


def asked(browser: Browser, link: str, login_url: str = saml_idp.LOGIN_URL) -> tuple[str, str]:
    """Where the link sends the browser, and the relay state."""
    url = browser.sent_on(browser.get(link))
    assert url.startswith(f"{login_url}?")
    (relay_state,) = parse_qs(urlsplit(url).query)["RelayState"]
    return url, relay_state


def test_a_person_logs_in_once_and_groups_decide_what_is_reached(site, start, browser, ping):
    """With a certificate, which is looked at first; until the session's time is over, whatever happens before."""
    methods = (web_login.CERTIFICATE, web_login.FEDERATED)
    site.write_crl(certs.client("revoked"))
    gateway = start(*methods, more="renegotiate_s = 60")
    revoked = device(site, "revoked", *web_login.WEB_AUTH, certificate=certs.client("revoked"))
    laptop = device(site, "laptop", *web_login.WEB_AUTH, where=site.lab.clients[0], certificate=certs.client())

    def log_in() -> None:
        url, relay_state = asked(browser, laptop.link())
        page = browser.consent_page(browser.post(ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state))
        for shown in ("anna@example.com (Anna Ende)", "Linux, OpenVPN 2.", "192.0.2.2", "staff", "alice"):
            assert shown in page.text
        assert laptop.client.log().count("PUSH_REPLY") == times, "not before consent"
        assert "Connected" in browser.decide(page).text

    times = 0
    log_in()
    laptop.client.wait_connected()
    assert ping() == ping("10.30.0.10") == 1.0
    wait_until(lambda: "certificate-revoked" in gateway.refusals(), 8)
    assert "INFOMSG" not in revoked.person.heard(), "no browser is bothered"
    revoked.client.kill()
    (view,) = gateway.ctl_json("connection", "list")
    assert (view["username"], view["common_name"]) == ("anna@example.com", "alice")
    laptop.client.process.signal(signal.SIGUSR1)
    laptop.client.wait_connected(times=2)
    gateway.stop()
    gateway.start()
    laptop.client.wait_connected(30, times=3)
    assert ping("10.30.0.10") == 1.0
    assert laptop.person.heard().count("WEB_AUTH") == 1, "one browser visit for all"
    keys = ("connection-attempt-status", "connection-reset-status")
    states = [tuple(e[key] for key in keys) for e in gateway.connection_log() if e["common-name"] == "alice"]
    assert states[:3] == [("waiting-for-assertion", "NA"), ("NA", "assertion-received"), ("successful", "NA")]

    def end_after(seconds: int, disconnect: str) -> None:
        settings = f"session_timeout_s = {seconds}\ndisconnect_on_session_timeout = {disconnect}"
        gateway.write_config(web_login.toml(site, site.directory / "idp.xml", *methods, more=settings))
        gateway.reload()

    end_after(1, "false")
    wait_until(lambda: laptop.person.heard().count("WEB_AUTH") == 2, 15, "it comes back by itself, to the browser")
    assert "token-expired" in gateway.refusals()
    end_after(5, "true")
    times = laptop.client.log().count("PUSH_REPLY")
    log_in()
    laptop.client.wait_for("Halt command was pushed by server .'Session timeout'", 20)


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

    phished = device(site, "phished", "--setenv", "IV_SSO", "openurl", "--push-peer-info")
    victim = Browser(site.lab.clients[1])
    link = phished.link()
    assert "INFOMSG:OPEN_URL:" in phished.person.heard(), "as older clients know it"
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


def by_the_other(url: str, **spoiled: object) -> str:
    """The answer of another identity provider, with its own key, to whatever was asked."""
    key = saml_idp.key("other")
    return saml_idp.answer(url, **{"issuer": OTHER["entity_id"], "response_key": key, "assertion_key": key, **spoiled})


def test_another_identity_provider_under_one_id_ends_the_tunnels_and_the_tokens_of_the_first(
    site, start, browser, ping
):
    gateway, metadata = start(), site.directory / "idp.xml"
    first = metadata.read_text()

    def log_in(laptop: web_login.Device, login_url: str, answer, times: int = 1) -> None:
        url, relay_state = asked(browser, laptop.link(), login_url)
        browser.decide(browser.consent_page(browser.post(ACS, SAMLResponse=answer(url), RelayState=relay_state)))
        wait_until(lambda: laptop.client.connected_count == times, 15, "a refused token is no end")
        assert ping("10.30.0.10") == 1.0

    laptop = device(site, "before")
    log_in(laptop, saml_idp.LOGIN_URL, saml_idp.answer)
    metadata.write_text(saml_idp.metadata(saml_idp.key("other"), **OTHER))
    gateway.reload()
    laptop.client.wait_for("Halt command was pushed by server .'Log in again'")
    assert {e["connection-end-reason"] for e in gateway.connection_log()} - {"NA"} == {"identity-provider-changed"}

    laptop = device(site, "after")
    log_in(laptop, OTHER["login_url"], by_the_other)
    gateway.stop()
    metadata.write_text(first)
    gateway.start()
    log_in(laptop, saml_idp.LOGIN_URL, saml_idp.answer, times=2)
    assert "token-invalid" in gateway.refusals(), "of a login at somebody who has no say here any more"


def test_an_identity_provider_lets_nobody_into_the_endpoint_of_another(site, start, browser, ping):
    """Whoever has one of the two, or has a person log in there, brings its answer to where the other one was asked."""
    (site.directory / "other.xml").write_text(saml_idp.metadata(saml_idp.key("other"), **OTHER))
    gateway = start(portal=PARTNERS)

    def refusals_of(endpoint: str) -> list[str]:
        failed = [e for e in gateway.connection_log() if e["connection-attempt-status"] == "failed"]
        return [e["connection-attempt-failure-reason"] for e in failed if e["endpoint-name"] == endpoint]

    partner = device(site, "partner", *web_login.WEB_AUTH, port=1195)
    there, relay_state_there = asked(browser, partner.link(), OTHER["login_url"])
    for name, mixed_up, reason in (
        ("other-key", by_the_other, "saml-signature-invalid"),
        ("its-answer", lambda _: by_the_other(there), "saml-signature-invalid"),
        ("own-answer-to-it", lambda _: saml_idp.answer(there), "saml-wrong-request"),
        ("in-its-name", lambda url: saml_idp.answer(url, issuer=OTHER["entity_id"]), "saml-wrong-issuer"),
    ):
        staff = device(site, name)
        url, relay_state = asked(browser, staff.link())
        answer = browser.post(ACS, SAMLResponse=mixed_up(url), RelayState=relay_state)
        assert answer.status_code == 403, name
        wait_until(lambda reason=reason: refusals_of("staff")[-1:] == [reason], 8, f"{name}: {gateway.refusals()}")
        staff.client.kill()
    assert refusals_of("partners") == []
    answer = browser.post(ACS, SAMLResponse=by_the_other(there), RelayState=relay_state_there)
    browser.decide(browser.consent_page(answer))
    partner.client.wait_connected()
    assert (ping("10.30.0.10"), ping()) == (1.0, 0.0), "what the other endpoint opens stays shut, whatever its groups"

    def aws(password: str, port: int) -> str:
        plan = Plan(web_login.HOST, port, generation=generation("aws"), logins=((NOBODY, password),))
        with site.lab.client.entered():
            return asyncio.run(run_client(client_context(None), plan, 0)).error

    state, url = sent_to(aws("ACS::35001", 1194))
    assert aws(brought(state, by_the_other(url)), 1195).startswith("AUTH_FAILED")
    assert refusals_of("partners") == ["saml-request-unknown"]
    assert aws(brought(state, by_the_other(url)), 1194).startswith("AUTH_FAILED")
    assert refusals_of("staff")[-1] == "saml-signature-invalid"
