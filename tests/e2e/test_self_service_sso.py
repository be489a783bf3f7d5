"""The self-service pages by way of an identity provider: who gets a profile there, and what is worth nothing."""

from __future__ import annotations

import hashlib
import re
import shutil
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from helpers import saml_idp, web_login
from helpers.web_login import ACS, HOST, URL, WEB_AUTH, Browser, device

pytestmark = pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1")

PAGES = "https://idp.example.com/pages"
"""Where the portal is registered: at another provider than AWS's client."""
METHOD = '{ type = "federated-authentication", saml_provider = "corp", portal_saml_provider = "pages" }'


def page_of(name: str) -> str:
    return f"{URL}/self-service/endpoints/cvpn-endpoint-{hashlib.sha256(name.encode()).hexdigest()[:17]}"


PAGE, OTHER = page_of("staff"), page_of("other")


@pytest.fixture
def gateway(site):
    (site.directory / "corp.xml").write_text(saml_idp.metadata(saml_idp.key("corp")))
    (site.directory / "pages.xml").write_text(saml_idp.metadata(entity_id=PAGES, login_url=PAGES))
    toml = web_login.toml(
        site, site.directory / "corp.xml", METHOD, more=f'self_service_portal = true\nremote = "{HOST}"'
    )
    toml += f"""
[[saml_provider]]
id = "pages"
metadata = "{site.directory / "pages.xml"}"

[[endpoint]]
name = "other"
client_cidr = "10.104.0.0/22"
listen = ["udp://0.0.0.0:1195"]
server_certificate = {{ certificate = "server.crt", private_key = "server.key", chain = "ca.crt" }}
authentication = [{METHOD}]
associate = ["subnet-a"]
self_service_portal = true
"""
    site._gateway = site.lab.gateway_process(toml)
    return site._gateway


@pytest.fixture
def people(site):
    return lambda: Browser(site.lab.client)


def sent(browser: Browser, link: str = f"{PAGE}/login") -> tuple[str, str]:
    """Where the browser is sent, and the relay state."""
    url = browser.sent_on(browser.get(link))
    assert url.startswith(f"{PAGES}?")
    (relay_state,) = parse_qs(urlsplit(url).query)["RelayState"]
    assert len(relay_state) <= 80, "more is not a relay state (SAML bindings, 3.4.3)"
    return url, relay_state


def bring(browser: Browser, url: str, relay_state: str, **spoiled: object) -> httpx.Response:
    spoiled.setdefault("issuer", PAGES)
    return browser.post(ACS, SAMLResponse=saml_idp.answer(url, **spoiled), RelayState=relay_state)


def has_profile(browser: Browser) -> bool:
    status = browser.get(f"{PAGE}/profile/openvpn").status_code
    assert status in (200, 403)
    return status == 200


def test_a_person_logs_in_at_the_portal_s_identity_provider_and_the_downloaded_profile_connects(site, gateway, people):
    browser = people()
    start = browser.get(PAGE)
    assert f'href="{urlsplit(PAGE).path}/login"' in start.text and "<form" not in start.text
    assert browser.get(f"{PAGE}/login", {"sec-purpose": "prefetch"}).status_code == 405
    assert not dict(browser.cookies) and not has_profile(browser)
    departure = browser.get(f"{PAGE}/login")
    for attribute in ("__Host-sign-on-", "HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert attribute in departure.headers["set-cookie"]

    answer = bring(browser, *sent(browser), name="anna/ende@example.com")
    assert not has_profile(browser), "not before the browser shows its cookie"
    ticket = browser.sent_on(answer)
    arrived = browser.get(ticket)
    assert arrived.status_code == 200 and arrived.headers["refresh"] == f"0; url={urlsplit(PAGE).path}"
    session = next(each for each in arrived.headers.get_list("set-cookie") if each.startswith("__Host-self-service-"))
    assert "SameSite=strict" in session and "HttpOnly" in session
    page = browser.get(PAGE)
    assert '<strong id="account">anna/ende@example.com</strong>' in page.text and "opens your browser" in page.text
    kinds = re.findall(r'href="[^"]*/profile/(\w+)"', page.text)
    assert kinds == ["openvpn", "connect", "tunnelblick", "aws"]
    profiles = {kind: browser.get(f"{PAGE}/profile/{kind}") for kind in kinds}
    assert {each.status_code for each in profiles.values()} == {200}
    assert browser.get(f"{PAGE}/profile/networkmanager").status_code == 404, "it opens no browser"
    assert "auth-federate" in profiles["aws"].text
    assert not has_profile(people()) and browser.get(f"{OTHER}/profile/aws").status_code == 403

    assert browser.get(ticket).status_code == 403, "it was used"
    laptop = device(site, "laptop", text=profiles["openvpn"].text)
    url, relay_state = sent(browser, laptop.link())
    browser.decide(browser.consent_page(bring(browser, url, relay_state)))
    laptop.client.wait_connected()

    (word,) = re.findall('name="word" value="([^"]*)"', page.text)
    assert browser.post(f"{PAGE}/login", word=word, username="anna", password="x").status_code == 404, "no passwords"
    assert browser.post(f"{PAGE}/logout", word="0").status_code == 403 and has_profile(browser)
    browser.post(f"{PAGE}/logout", word=word)
    assert not has_profile(browser)
    metrics = gateway.metrics()
    assert metrics['cvpnd_self_service_portal_client_configuration_downloads_total{endpoint="staff"}'] == 5
    assert "anna/ende@example.com logged in at staff from 192.0.2.2" in gateway.log()


def test_nobody_is_logged_in_with_what_was_not_made_for_this_browser_now(site, gateway, people):
    anna, mallory = people(), people()

    def refused(reason: str, answer: httpx.Response, said: str = "") -> None:
        """By this name, once more than before."""
        assert answer.status_code == 403 and "location" not in answer.headers
        key = f'cvpnd_portal_refusals_total{{reason="{reason}"}}'
        seen[key] = seen.get(key, 0) + 1
        assert gateway.metrics()[key] == seen[key], (reason, gateway.log()[-2000:])
        if said:  # the log has each refusal of one name once in a while only
            assert gateway.metrics()[f'cvpnd_saml_responses_total{{provider="pages",result="{said}"}}'] > 0
        assert not any(map(has_profile_quietly, (anna, mallory)))

    def has_profile_quietly(browser: Browser) -> bool:
        key = 'cvpnd_portal_refusals_total{reason="session-unknown"}'
        seen[key] = seen.get(key, 0) + 1
        return has_profile(browser)

    seen: dict[str, int] = {}

    # a forged, an old, a foreign answer
    url, relay_state = sent(anna)
    refused("relay-state-unknown", bring(anna, url, relay_state[:-2] + "AA"))
    refused("relay-state-unknown", bring(anna, url, ""))
    forged = bring(anna, url, relay_state, assertion_key=saml_idp.key("corp"))
    refused("login-refused", forged, "saml-signature-invalid")
    refused("login-refused", bring(anna, url, relay_state), "saml-request-used")
    corp = {"issuer": saml_idp.ENTITY_ID, "response_key": saml_idp.key("corp"), "assertion_key": saml_idp.key("corp")}
    refused("login-refused", bring(anna, *sent(anna), **corp), "saml-signature-invalid")
    refused("login-refused", bring(anna, *sent(anna), issuer=saml_idp.ENTITY_ID), "saml-wrong-issuer")

    # replay, in the same words and within others
    used = saml_idp.answer((first := sent(mallory))[0], issuer=PAGES, assertion_id="_once")
    assert mallory.post(ACS, SAMLResponse=used, RelayState=first[1]).status_code == 303
    refused("login-refused", mallory.post(ACS, SAMLResponse=used, RelayState=first[1]), "saml-request-used")
    refused("login-refused", mallory.post(ACS, SAMLResponse=used, RelayState=sent(mallory)[1]), "saml-wrong-request")
    refused("login-refused", bring(mallory, *sent(mallory), assertion_id="_once"), "saml-replayed")

    # what one browser brings logs no other one in: neither anna as mallory, nor mallory as anna
    for began, lured in ((mallory, anna), (anna, mallory)):
        ticket = lured.sent_on(bring(lured, *sent(began)))
        page = lured.get(ticket)
        refused("browser-mismatch", page)
        assert "If somebody sent you here" in page.text and "device of theirs" not in page.text, "none waits"
        refused("session-unknown", began.get(ticket))

    # a ticket of one endpoint at another one
    ticket = anna.sent_on(bring(anna, *sent(anna)))
    refused("session-unknown", anna.get(ticket.replace(PAGE, OTHER)))

    # a login of the VPN and one of these pages are worth nothing to each other
    laptop = device(site, "laptop", *WEB_AUTH)
    vpn, pages = sent(anna, laptop.link()), sent(anna)
    refused("login-refused", bring(anna, vpn[0], pages[1]), "saml-wrong-request")
    vpn_ticket = anna.sent_on(bring(anna, *vpn)).rpartition("/")[2]
    refused("session-unknown", anna.get(f"{PAGE}/signed-on/{vpn_ticket}"))
    pages_ticket = anna.sent_on(bring(anna, *sent(anna))).rpartition("/")[2]
    assert anna.get(f"{URL}/saml/consent/{pages_ticket}").status_code == 404
    refused("relay-state-unknown", bring(anna, sent(anna)[0], vpn[1]))
    assert laptop.client.connected_count == 0
    second = device(site, "second", *WEB_AUTH)
    vpn = sent(anna, second.link())
    refused("assertion-refused", bring(anna, sent(anna)[0], vpn[1]), "saml-wrong-request")
    second.client.wait_for("AUTH_FAILED")
