"""A real browser at real identity providers, for the stock client and for cvpn-connect. ``make test-sso`` runs it."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

if not os.environ.get("SSO"):
    pytest.skip("make test-sso runs this, which takes Chromium and three identity providers", allow_module_level=True)

from helpers import idps, saml_idp, web_login
from helpers.chromium import Chromium, open_page
from helpers.idps import Idp
from helpers.lab import wait_until
from helpers.web_login import ACS, device
from playwright.sync_api import BrowserContext, Page, Request

IDP_ADDRESS = "198.51.100.1:8300"
"""Another address than the portal's: another site to a browser."""
SCREENSHOTS = idps.BUILD / "screenshots"
PAGE = f"{web_login.URL}/self-service/endpoints/cvpn-endpoint-{hashlib.sha256(b'staff').hexdigest()[:17]}"
PROVIDERS = {"simplesamlphp": idps.simplesamlphp, "samlp": idps.samlp, "lasso": idps.lasso}


@pytest.fixture
def chromium(site: Any) -> Iterator[Chromium]:
    with Chromium(site.lab.client) as chromium:
        yield chromium


@pytest.fixture
def start(site: Any) -> Callable[..., Any]:
    def run(provider: str = "simplesamlphp", *methods: str, **options: str) -> Any:
        idp: Idp = PROVIDERS[provider](site.lab.gateway, IDP_ADDRESS, site.lab.directory / "idp", ACS)
        site._gateway = site.lab.gateway_process(web_login.toml(site, idp.metadata, *methods, **options))
        return site._gateway

    return run


def log_in(person: BrowserContext, link: str) -> Page:
    """Up to the consent page."""
    page = open_page(person, link)
    page.fill("input[name=username]", "anna")
    page.fill("input[name=password]", "secret")
    page.locator("button, input[type=submit]").last.click()
    page.wait_for_url("**/saml/**")
    return page


def sent_to(person: BrowserContext, link: str) -> str:
    """Where the portal sends a browser that opens the link."""
    answer = person.new_page().goto(link)
    assert answer is not None
    passed: list[str] = []
    request: Request | None = answer.request
    while request is not None:
        passed.append(request.url)
        request = request.redirected_from
    return next(url for url in passed if "SAMLRequest=" in url)


def looks_right(page: Page, name: str) -> None:
    """On a telephone and on a large screen: nothing sticks out, no button is broken into lines, none ends at the edge.
    Screenshots are in build/screenshots."""
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 740})
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for button in page.locator("button").all():
            box = button.bounding_box()
            assert box is not None and box["height"] < 60, f"{name}, {width}: {button.inner_text()}"
        end = page.evaluate(
            "document.documentElement.scrollHeight - document.querySelector('main').getBoundingClientRect().bottom"
            " - window.scrollY"
        )
        assert end >= 32, f"{name}, {width}: {end} pixels below"


def consent(page: Page, button: str = "Connect") -> None:
    page.get_by_role("button", name=button, exact=True).click()
    page.get_by_text("You can close this page").wait_for()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_browser_logs_in_and_the_stock_client_s_tunnel_carries_traffic(site, start, chromium, provider):
    gateway = start(provider)
    laptop = device(site, "laptop")
    page = log_in(chromium.person(), laptop.link())
    assert page.locator("#account").inner_text() == "anna@example.org (Anna Ash)"
    assert page.locator("#address").inner_text() == "192.0.2.2"
    assert "OpenVPN 2." in page.locator("#device").inner_text()
    assert page.locator("#elsewhere").count() == 0
    assert laptop.client.connected_count == 0
    consent(page)
    laptop.client.wait_connected()
    for target in ("10.20.0.10", "10.30.0.10"):
        assert site.lab.client.ping(target).lost == 0
    (view,) = gateway.ctl_json("connection", "list")
    assert view["username"] == "anna@example.org"
    assert not page.context.cookies(web_login.URL), "nothing of the portal stays in the browser"
    gateway.stop()
    gateway.start()
    laptop.client.wait_connected(30, times=2)
    assert site.lab.client.ping("10.30.0.10").lost == 0
    assert laptop.person.heard().count("WEB_AUTH") == 1, "one browser visit, also after a restart"


def test_a_person_who_is_logged_in_is_asked_for_consent_all_the_same_and_says_no(site, start, chromium):
    gateway = start()
    person = chromium.person()
    first = device(site, "first")
    consent(log_in(person, first.link()))
    first.client.wait_connected()
    other = site.lab.clients[1]
    attacker = device(site, "attacker", where=other, host="198.51.100.1")
    page = open_page(person, attacker.link())  # sent by mail; single sign-on asks for no password
    page.wait_for_url("**/saml/consent/**")
    assert page.locator("#address").inner_text() == "198.51.100.2"
    assert "192.0.2.2" in page.locator("#elsewhere").inner_text()
    consent(page, "This is not my device")
    attacker.client.wait_for("AUTH_FAILED,The login was declined")
    assert "login-declined" in gateway.refusals()


def test_a_browser_that_was_sent_to_the_identity_provider_by_somebody_else_gets_no_further(site, start, chromium):
    gateway = start()
    attacker, victim = chromium.person(), chromium.person()
    laptop = device(site, "laptop")
    page = log_in(victim, sent_to(attacker, laptop.link()))
    assert "another browser" in page.inner_text("h1")
    laptop.client.wait_for("AUTH_FAILED")
    assert "browser-mismatch" in gateway.refusals()


def test_no_page_runs_what_a_field_says(site, start, chromium, monkeypatch):
    payload = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    monkeypatch.setitem(idps.ANNA, "FirstName", [payload])
    start()
    laptop = device(site, "laptop", *web_login.WEB_AUTH, "--setenv", "IV_GUI_VER", payload)
    page = log_in(chromium.person(), laptop.link())
    assert payload in page.locator("#account").inner_text()
    page.wait_for_timeout(200)
    assert page.title() == "Connect this device?"
    assert page.locator("img, script").count() == 0
    consent(page)
    laptop.client.wait_connected()


def test_cvpn_connect_opens_the_link_and_the_tunnel_with_the_profile_of_aws_s_client(site, start, chromium):
    """``--no-browser``: it prints the link, which the test opens in a browser that it can see into."""
    gateway = start(more=f'remote = "{web_login.HOST}"')
    profile = site.directory / "anna.ovpn"
    profile.write_text(gateway.ctl("profile", "anna", "--for", "aws").stdout)
    assert "auth-federate" in profile.read_text()
    helper = site.lab.client.start(
        sys.executable, "-m", "cvpnd.connect", "--no-browser", profile, label="cvpn-connect",
        env={"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    link = helper.wait_for(r"log in at (https://\S+)")[1]
    consent(log_in(chromium.person(), link))
    helper.wait_for(r"connected, with the address 10\.100\.")
    assert site.lab.client.ping("10.20.0.10").lost == 0
    helper.signal(signal.SIGTERM)
    assert helper.wait() == 0


def test_a_person_fetches_the_profile_from_the_portal_and_has_the_time_that_was_said(site, start, chromium):
    """Keys are never changed by the gateway, and its window for handshakes is short: neither bounds a person."""
    gateway = start(
        more=f'self_service_portal = true\nremote = "{web_login.HOST}"\nrenegotiate_s = 0\nhand_window_s = 10'
    )
    person = chromium.person()
    page = open_page(person, PAGE)
    looks_right(page, "sign-on")
    page.locator("#sign-on").click()
    page.fill("input[name=username]", "anna")
    page.fill("input[name=password]", "secret")
    page.locator("button, input[type=submit]").last.click()
    page.wait_for_url(PAGE)
    assert page.locator("#account").inner_text() == "anna@example.org"
    looks_right(page, "profiles")
    cookies = {each["name"]: each for each in person.cookies(web_login.URL)}
    assert [name.startswith("__Host-self-service-") for name in cookies] == [True], "the login's own is gone"
    assert all(each["httpOnly"] and each["secure"] and each["sameSite"] == "Strict" for each in cookies.values())
    with page.expect_download() as download:
        page.get_by_role("link", name="OpenVPN (Linux, Windows)").click()
    assert download.value.suggested_filename == "staff.ovpn"
    laptop = device(site, "laptop", text=download.value.path().read_text())
    consenting = open_page(person, laptop.link())  # the identity provider knows the person already
    consenting.wait_for_url("**/saml/consent/**")
    looks_right(consenting, "consent")
    consenting.wait_for_timeout(15_000)
    consent(consenting)
    laptop.client.wait_connected()
    for target in ("10.20.0.10", "10.30.0.10"):
        assert site.lab.client.ping(target).lost == 0
    page.get_by_role("button", name="Log out").click()
    page.locator("#sign-on").wait_for()
    assert person.request.get(f"{PAGE}/profile/openvpn").status == 403
    assert gateway.metrics()['cvpnd_self_service_portal_client_configuration_downloads_total{endpoint="staff"}'] == 1


def test_an_identity_provider_that_wants_signed_requests_takes_those_of_the_right_key_alone(site, chromium):
    ours, other = saml_idp.key("gateway"), saml_idp.key("another gateway")
    idp = idps.simplesamlphp(
        site.lab.gateway, IDP_ADDRESS, site.lab.directory / "idp", ACS, requests_by=ours.certificate
    )
    toml, place = web_login.toml(site, idp.metadata), f'metadata = "{idp.metadata}"'
    signed = toml.replace(place, f'{place}\nsigning_key = "requests.key"')
    (site.directory / "requests.key").write_text(other.private)
    site._gateway = gateway = site.lab.gateway_process(signed)
    wrong, unsigned, right = chromium.person(), chromium.person(), chromium.person()

    def reload(toml: str, times: int) -> None:
        gateway.write_config(toml)
        gateway.reload()
        wait_until(lambda: gateway.log().count("reloaded") == times, 15, gateway.log()[-2000:])

    laptop = device(site, "wrong")
    page = open_page(wrong, laptop.link())
    assert page.locator("input[name=password]").count() == 0 and "error" in page.inner_text("body").lower()
    reload(toml, 1)
    page = open_page(unsigned, device(site, "unsigned").link())
    assert page.locator("input[name=password]").count() == 0 and "error" in page.inner_text("body").lower()
    (site.directory / "requests.key").write_text(ours.private)
    reload(signed, 2)
    laptop = device(site, "right")
    consent(log_in(right, laptop.link()))
    laptop.client.wait_connected()
