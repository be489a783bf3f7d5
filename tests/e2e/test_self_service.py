"""The portal's self-service pages: who gets a profile there, who does not, and that it connects."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from helpers import web_login
from helpers.totp import code_of, static
from helpers.web_login import CERTIFICATE, HOST, PORT, URL, Browser

from cvpnd.auth.passwords import hash_password
from cvpnd.auth.throttle import FREE_FAILURES

PASSWORD = '{ type = "directory-service-authentication", directory = "local" }'
MFA = '{ type = "directory-service-authentication", directory = "local", mfa = "totp" }'
PAGE = f"{URL}/self-service/endpoints/cvpn-endpoint-{hashlib.sha256(b'staff').hexdigest()[:17]}"
DOWNLOADS = 'cvpnd_self_service_portal_client_configuration_downloads_total{endpoint="staff"}'


@pytest.fixture
def start(site):
    def run(method: str, more: str = "self_service_portal = true"):
        web_login.write_certificate(site.directory)
        toml = site.toml(f'{more}\nremote = "{HOST}"').replace(f"[{CERTIFICATE}]", f"[{method}]")
        toml = toml.replace('private_key = "server.key"', 'private_key = "server.key", chain = "ca.crt"')
        for name in ("alice", "bob"):
            toml += f'[[local_users]]\nname = "{name}"\npassword_hash = "{hash_password("right")}"\n'
        site._gateway = site.lab.gateway_process(toml + web_login.PORTAL)
        return site._gateway

    return run


def word(page: httpx.Response) -> str:
    found = re.search('name="word" value="([^"]*)"', page.text)
    assert found, page.text
    return found[1]


def log_in(browser: Browser, username: str, password: str) -> httpx.Response:
    form = browser.get(PAGE)
    return browser.post(f"{PAGE}/login", word=word(form), username=username, password=password)


def test_a_person_logs_in_with_password_and_code_and_the_downloaded_profile_connects(site, start):
    gateway = start(MFA)
    enrolment = gateway.ctl_json("user", "totp", "enrol", "alice")
    browser = Browser(site.lab.client)
    form = browser.get(PAGE)
    before = dict(browser.cookies)
    asked = browser.get(browser.sent_on(log_in(browser, "alice", "right")))
    assert "MFA code" in asked.text and "/profile/" not in asked.text
    assert browser.get(f"{PAGE}/profile/openvpn").status_code == 403, "a password alone is not enough"
    code = code_of(enrolment)
    page = browser.get(browser.sent_on(browser.post(f"{PAGE}/code", word=word(asked), code=code)))
    assert '<strong id="account">alice</strong>' in page.text
    assert not set(before.values()) & set(dict(browser.cookies).values()), "a login has a cookie of its own"
    assert form.headers["set-cookie"].startswith("__Host-")
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert attribute in form.headers["set-cookie"]

    kinds = re.findall(r'href="[^"]*/profile/(\w+)"', page.text)
    profiles = {kind: browser.get(f"{PAGE}/profile/{kind}") for kind in kinds}
    assert len(kinds) == 5 and {each.status_code for each in profiles.values()} == {200}
    for each in profiles.values():
        assert "PRIVATE KEY" not in each.text and each.headers["cache-control"] == "no-store"
        assert each.headers["content-disposition"] == 'attachment; filename="staff.ovpn"'
    assert gateway.metrics()[DOWNLOADS] == 5

    again = Browser(site.lab.client)
    asked = again.get(again.sent_on(log_in(again, "alice", "right")))
    reused = again.post(f"{PAGE}/code", word=word(asked), code=code)
    assert reused.status_code == 403, "a code counts once, wherever it is used"
    assert again.get(f"{PAGE}/profile/openvpn").status_code == 403

    directory = site.lab.directory / "downloaded"
    directory.mkdir()
    (directory / "login").write_text(f"alice\n{static('right', code_of(enrolment, later=1))}\n")
    (directory / "login").chmod(0o600)
    text = re.sub("(?m)^static-challenge .*\n", "", profiles["openvpn"].text)
    (directory / "staff.ovpn").write_text(text.replace("auth-user-pass\n", "auth-user-pass login\n"))
    site.lab.openvpn(directory / "staff.ovpn").wait_connected()

    browser.post(f"{PAGE}/logout", word=word(page))
    assert browser.get(f"{PAGE}/profile/openvpn").status_code == 403


def test_nobody_gets_a_profile_without_a_login_and_guessing_there_is_guessing(site, start, connect):
    gateway = start(PASSWORD)
    browser = Browser(site.lab.client)
    assert browser.get(f"{PAGE}/profile/openvpn").status_code == 403
    assert browser.get(PAGE.replace("endpoint-", "endpoint-0")).status_code == 404
    wrong, unknown = log_in(browser, "alice", "wrong"), log_in(browser, "mallory", "right")
    assert wrong.status_code == unknown.status_code == 403 and wrong.text == unknown.text

    form = browser.get(PAGE)
    name, own = form.headers["set-cookie"].split(";")[0].split("=")
    for planted in (r'"\012"', "short", f"{own}a", own[:-1] + "."):
        shown = Browser(site.lab.client).get(PAGE, {"cookie": f"{name}={planted}"})
        (anew,) = re.findall(f"{name}=([^;]*);", shown.headers["set-cookie"])
        assert shown.status_code == 200 and re.fullmatch(r"[\w-]{43}", anew) and anew != own, planted
    credentials = {"username": "alice", "password": "right"}
    forged = [
        browser.post(f"{PAGE}/login", **credentials),
        browser.post(f"{PAGE}/login", word="0" * 64, **credentials),
        browser.post(f"{PAGE}/login", word="\u00e9", **credentials),
        browser.post(f"{PAGE}/login", {"origin": "https://evil.example"}, word=word(form), **credentials),
        browser.post(f"{PAGE}/login", {"sec-fetch-site": "same-site"}, word=word(form), **credentials),
        Browser(site.lab.client).post(f"{PAGE}/login", word=word(form), **credentials),
    ]
    assert [each.status_code for each in forged] == [403] * len(forged)
    assert browser.post(f"{PAGE}/code", word=word(form), code="1").status_code == 403
    assert browser.get(f"{PAGE}/profile/openvpn").status_code == 403
    metrics = gateway.metrics()
    assert metrics[DOWNLOADS] == 0
    for reason, count in (
        ("login-refused", 2),
        ("form-forged", 6),
        ("session-unknown", 3),
        ("self-service-unknown", 1),
    ):
        assert metrics[f'cvpnd_portal_refusals_total{{reason="{reason}"}}'] == count, reason

    assert browser.sent_on(log_in(browser, "bob", "right")) == PAGE
    assert browser.get(f"{PAGE}/profile/aws").status_code == 200
    gateway.ctl("user", "add", "carol", input="right\n")
    carol = Browser(site.lab.client)
    assert carol.sent_on(log_in(carol, "carol", "right")) == PAGE
    assert carol.get(f"{PAGE}/profile/aws").status_code == 200
    gateway.ctl("user", "disable", "carol")
    assert carol.get(f"{PAGE}/profile/aws").status_code == 403, "in mid-session"
    assert "Log in as you do to connect" in carol.get(PAGE).text
    gateway.ctl("connection", "terminate", "--username", "bob", check=False)
    assert browser.get(f"{PAGE}/profile/aws").status_code == 403, "a login here is one of the user's"
    with ThreadPoolExecutor(FREE_FAILURES) as people:
        guesses = [people.submit(log_in, Browser(site.lab.client), "alice", "wrong") for _ in range(FREE_FAILURES)]
        assert {guess.result().status_code for guess in guesses} == {403}
    connect("alice", "right").wait_for("AUTH_FAILED,Too many failed logins")
    assert "Try again later" in log_in(Browser(site.lab.client), "alice", "right").text
    assert "alice" in gateway.log() and "wrong-password" in gateway.log() and "password=" not in gateway.log()


def test_an_endpoint_without_these_pages_looks_like_one_that_does_not_exist(site, start):
    start(PASSWORD, more="")
    browser = Browser(site.lab.client)
    here, nowhere = browser.get(PAGE), browser.get(PAGE[:-1])
    assert here.status_code == nowhere.status_code == 404 and here.text == nowhere.text
    assert f":{PORT}/" in PAGE and "set-cookie" not in here.headers
