"""The portal's pages as a browser gets them, and what strangers send instead."""

from __future__ import annotations

import asyncio
import html
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from helpers import saml_idp

from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.metadata import key_of, parse_metadata
from cvpnd.auth.saml.model import Assertion, PendingRequest
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.saml.quoting import MOST_ESCAPES
from cvpnd.auth.web_logins import Waiting, WebLogin, WebLogins
from cvpnd.config import PortalConfig
from cvpnd.config.portal import SELF_SERVICE_PATH
from cvpnd.portal.app import LONGEST_ANSWER, Portal
from cvpnd.portal.pages import LONGEST_SHOWN, STYLE
from cvpnd.portal.self_service import LATER, WRONG
from cvpnd.reasons import PortalRefusal, Refusal
from cvpnd.server.memory import OF_SOURCE_BYTES
from cvpnd.store import Store, StoreError

URL = "https://vpn.example.com"
REQUEST = PendingRequest("_r", f"{URL}/saml/acs", 0.0, 300.0)
CORPUS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' autofocus onfocus='alert(1)",
    "</dd></dl><form action=https://evil.example>",
    "</style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egpj.exe\u2066",
    "javascript:alert(1)//",
    "&lt;b&gt;",
)


class Nobody:
    """No login was ever remembered, and none is."""

    def spend_saml(self, key: str, until: float, now: float) -> bool:
        return True


class Pages:
    def __init__(self, records: Any = None, **config: Any) -> None:
        self.now = 0.0
        self.logins = WebLogins(URL, 180)
        self.saml = SamlLogins(records or Nobody(), bytes(32), unavailable=StoreError)
        self.saml.replace({"corp": PROVIDER})
        settings = PortalConfig.model_validate(
            {"listen": "0.0.0.0:443", "url": URL, "certificate": "c", "private_key": "k", **config}
        )
        self.portal = Portal(settings, self.logins, lambda: self.saml, lambda: self.now)
        self.browser = self.another_browser()

    def another_browser(self, host: str = "192.0.2.7") -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.portal, client=(host, 1)), base_url=URL)

    def login(self, waiting: Waiting | None = None) -> WebLogin:
        outcome = asyncio.get_running_loop().create_future()
        shown = waiting or Waiting("staff", "Linux, OpenVPN 2.6.14", "192.0.2.7", "")
        login = WebLogin("corp", "cvpn-connection-1", shown, 180.0, outcome, lambda: None)
        self.logins.offer(login)
        return login

    def proven(self, assertion: Assertion, waiting: Waiting | None = None) -> tuple[WebLogin, str]:
        login = self.login(waiting)
        relay_state = self.logins.open(login)
        assert self.logins.ask(login, relay_state, REQUEST)
        self.logins.check(relay_state, self.now)
        ticket = self.logins.prove(login, assertion)
        assert ticket is not None
        self.browser.cookies.set(login.cookie, login.browser)
        return login, f"/saml/consent/{ticket}"


PROVIDER = SamlProvider("corp", parse_metadata(saml_idp.metadata()))
KEY = saml_idp.key().certificate
ANNA = Assertion(
    "_1", "anna@example.org", frozenset(), "Anna", "Ash",
    issuer=saml_idp.ENTITY_ID, signed_by=frozenset({key_of(KEY)}),
)  # fmt: skip


@pytest.fixture
def pages() -> Iterator[Pages]:
    pages = Pages()
    yield pages
    pages.saml.close()


class Structure(HTMLParser):
    """Tags with their attributes' names, which no value may change."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


async def test_consent_shows_device_address_and_account_and_lets_the_client_in(pages):
    waiting = Waiting("staff", "Windows, OpenVPN Connect 3.4", "192.0.2.7", "laptop-7")
    login, path = pages.proven(ANNA, waiting)
    answer = await pages.browser.get(path)
    for shown in ("anna@example.org (Anna Ash)", waiting.device, waiting.address, "laptop-7", "staff"):
        assert shown in Structure(answer.text).texts
    assert 'id="elsewhere"' not in answer.text
    confirmed = await pages.browser.post(path, data={"consent": login.consent, "decision": "allow"})
    assert confirmed.status_code == 200 and "Connected" in confirmed.text
    assert login.outcome.result() is ANNA
    assert f'{login.cookie}=""; ' in confirmed.headers["set-cookie"] and "Max-Age=0" in confirmed.headers["set-cookie"]
    assert (await pages.browser.get(path)).status_code == 404


async def test_while_the_database_cannot_be_used_people_are_told_to_come_again(tmp_path, caplog):
    path = tmp_path / "state.db"
    with closing(Store.open(f"sqlite:///{path}")) as store:
        pages = Pages(store)
        login = pages.login()
        relay_state = pages.logins.open(login)
        assert pages.logins.ask(login, relay_state, replace(REQUEST, good_until=time.time() + 300))
        store.close()  # its connection, which would go on with what it has read
        path.write_bytes(b"no database" * 1000)
        answer = await pages.browser.post("/saml/acs", data={"RelayState": relay_state, "SAMLResponse": "x"})
        pages.saml.close()
    assert answer.status_code == 503 and "Wait some minutes" in answer.text
    assert login.outcome.result().refusal is Refusal.DATABASE_UNAVAILABLE
    assert pages.portal.refusals == {PortalRefusal.DATABASE_UNAVAILABLE: 1}
    assert not [record for record in caplog.records if record.exc_info], "no traceback"
    assert len([record for record in caplog.records if record.name == "cvpnd.portal.app"]) == 1


async def test_who_finds_all_places_taken_is_told_to_come_again_and_not_that_nobody_knows_them(pages, monkeypatch):
    async def accept(*_answer: Any, **_more: Any) -> Refused:
        return Refused(Refusal.TOO_MANY_LOGINS, "64 responses are being looked at")

    monkeypatch.setattr(pages.saml, "accept", accept)
    login = pages.login()
    relay_state = pages.logins.open(login)
    assert pages.logins.ask(login, relay_state, REQUEST)
    answer = await pages.browser.post("/saml/acs", data={"RelayState": relay_state, "SAMLResponse": "x"})
    assert answer.status_code == 429 and "Wait a minute" in answer.text
    assert login.outcome.result().refusal is Refusal.TOO_MANY_LOGINS


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (Refusal.DATABASE_UNAVAILABLE, LATER),
        (Refusal.TOO_MANY_LOGINS, LATER),
        (Refusal.DIRECTORY_TIMEOUT, LATER),
        (Refusal.WRONG_PASSWORD, WRONG),
    ],
)
async def test_the_login_form_says_whether_to_look_at_the_password_or_to_come_again(refusal, told):
    class Desk:
        def find(self, endpoint_id: str) -> SimpleNamespace:
            return SimpleNamespace(id=endpoint_id, name="staff", user_method=None, methods=())

        def begin(self, _endpoint_id: str) -> None:
            return None

        async def log_in(self, *_who: Any, host: str) -> Refused:
            return Refused(refusal, "")

    files = {"certificate": "c", "private_key": "k"}
    settings = PortalConfig.model_validate({"listen": "0.0.0.0:443", "url": URL, **files})
    desk: Any = Desk()
    portal = Portal(settings, WebLogins(URL, 180), lambda: None, desk=desk)
    place = f"{SELF_SERVICE_PATH}cvpn-endpoint-1"
    there = httpx.ASGITransport(portal, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=there, base_url=URL) as browser:
        word = re.search('name="word" value="([^"]*)"', (await browser.get(place)).text)
        assert word is not None
        fields = {"word": html.unescape(word[1]), "username": "anna", "password": "x"}
        answer = await browser.post(f"{place}/login", data=fields)
    assert answer.status_code == 403 and told in answer.text


async def test_a_browser_elsewhere_is_told_and_no_is_no(pages):
    login, path = pages.proven(ANNA, Waiting("staff", "Linux", "198.51.100.9", ""))
    assert "192.0.2.7" in (await pages.browser.get(path)).text
    answer = await pages.browser.post(path, data={"consent": login.consent, "decision": "deny"})
    assert "Not connected" in answer.text
    assert login.outcome.result().refusal is Refusal.LOGIN_DECLINED


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({}, Refusal.SAML_UNAVAILABLE),
        ({"entity_id": "urn:another"}, Refusal.SAML_WRONG_ISSUER),
        ({"certificates": (saml_idp.key("new").certificate,)}, Refusal.SAML_SIGNATURE_INVALID),
        ({"valid_until": 1.0}, Refusal.SAML_METADATA_EXPIRED),
        ({"certificates": (saml_idp.key("new").certificate, KEY)}, None),
        ({"certificates": (saml_idp.renewed(saml_idp.key()).certificate,), "login_url": "https://new"}, None),
    ],
    ids=["deleted", "another", "its key is withdrawn", "expired", "it has one more key", "its certificate is renewed"],
)
async def test_consent_lets_in_whom_the_identity_provider_still_vouches_for(pages, now, expected):
    login, path = pages.proven(ANNA)
    assert (await pages.browser.get(path)).status_code == 200
    pages.saml.replace({"corp": replace(PROVIDER, idp=replace(PROVIDER.idp, **now))} if now else {})
    assert (await pages.browser.post(path, data={"consent": "x" * 43, "decision": "allow"})).status_code == 403
    assert not login.outcome.done()
    answer = await pages.browser.post(path, data={"consent": login.consent, "decision": "allow"})
    if expected is None:
        assert answer.status_code == 200 and login.outcome.result() is ANNA
        return
    assert answer.status_code == 403 and "Start the connection again on your device" in answer.text
    assert login.outcome.result().refusal is expected
    assert pages.portal.refusals[PortalRefusal.ASSERTION_REFUSED] == 1
    pages.saml.replace({"corp": PROVIDER})
    assert (await pages.browser.post(path, data={"consent": login.consent, "decision": "allow"})).status_code == 404


@pytest.mark.parametrize("payload", CORPUS)
async def test_whatever_a_field_says_the_page_keeps_its_shape(pages, payload):
    plain = Structure((await pages.browser.get(pages.proven(ANNA, Waiting("e", "d", "192.0.2.1", "c"))[1])).text)
    evil = Assertion("_1", payload, frozenset(), payload, payload)
    text = (await pages.browser.get(pages.proven(evil, Waiting(payload, payload, "192.0.2.1", payload))[1])).text
    seen = Structure(text)
    assert seen.tags == plain.tags
    shown = "".join(c if c.isprintable() else "\ufffd" for c in payload)
    assert seen.texts.count(shown) == 3 and any(each == f"{shown} ({shown} {shown})" for each in seen.texts)
    assert "\u202e" not in html.unescape(text)


async def test_long_names_do_not_push_the_question_away(pages):
    _, path = pages.proven(
        Assertion("_1", "a" * 255, frozenset(), "b" * 5000), Waiting("e", "d" * 5000, "192.0.2.1", "")
    )
    text = (await pages.browser.get(path)).text
    shown = [each for each in Structure(text).texts if each != STYLE]
    assert max(map(len, shown)) < 3 * LONGEST_SHOWN and "a" * (LONGEST_SHOWN - 1) + "…" in text


async def test_every_page_forbids_scripts_frames_caches_and_foreign_forms(pages):
    _, consent = pages.proven(ANNA)
    for path in (consent, "/saml/login/x", "/", "/saml/consent/x", "/../etc/passwd"):
        answer = await pages.browser.get(path)
        policy = answer.headers["content-security-policy"]
        for rule in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"):
            assert rule in policy
        assert "script" not in policy and "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["strict-transport-security"] and answer.headers["x-frame-options"] == "DENY"
        assert not re.search(r"<script|\son\w+=|https?://", answer.text)


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        ({"consent": "x" * 43, "decision": "allow"}, {}),
        ({"decision": "allow"}, {}),
        ({"consent": "OURS", "decision": "perhaps"}, {}),
        ({"consent": "OURS", "decision": "allow"}, {"origin": "https://evil.example"}),
        ({"consent": "OURS", "decision": "allow"}, {"origin": "null"}),
        ({"consent": "OURS", "decision": "allow"}, {"sec-fetch-site": "cross-site"}),
    ],
)
async def test_consent_that_did_not_come_from_our_page_counts_for_nothing(pages, data, headers):
    login, path = pages.proven(ANNA)
    data = {name: login.consent if value == "OURS" else value for name, value in data.items()}
    assert (await pages.browser.post(path, data=data, headers=headers)).status_code == 403
    assert not login.outcome.done()
    assert pages.portal.refusals == {PortalRefusal.CONSENT_FORGED: 1}


async def test_the_page_of_another_browser_says_so_and_ends_the_login(pages):
    login, path = pages.proven(ANNA)
    victim = pages.another_browser("203.0.113.5")
    answer = await victim.get(path)
    assert answer.status_code == 403 and "anna" not in answer.text and login.consent not in answer.text
    assert login.outcome.result().refusal is Refusal.BROWSER_MISMATCH
    assert pages.portal.refusals == {PortalRefusal.BROWSER_MISMATCH: 1}


async def test_nothing_but_a_click_uses_a_link_up(pages):
    login = pages.login()
    path = f"/saml/login/{login.secret}"
    assert (await pages.browser.head(path)).status_code == 405
    for headers in ({"sec-purpose": "prefetch;prerender"}, {"purpose": "prefetch"}):
        assert (await pages.browser.get(path, headers=headers)).status_code == 405
    assert login.openings == 0


async def test_a_provider_that_is_not_known_yet_refuses_the_client_with_its_reason(pages):
    pages.saml.replace({})
    login = pages.login()
    answer = await pages.browser.get(f"/saml/login/{login.secret}")
    assert answer.status_code == 403 and "set-cookie" not in answer.headers
    assert login.outcome.result().refusal is Refusal.SAML_UNAVAILABLE
    assert pages.portal.refusals == {PortalRefusal.ASSERTION_REFUSED: 1}


def bomb() -> bytes:
    """10 MB of nothing, deflated, as some take a RelayState."""
    return zlib.compress(bytes(10_000_000))


FORM = {"content-type": "application/x-www-form-urlencoded"}
MANY = b"&".join(b"a%d=1" % number for number in range(99))


async def endless() -> Any:
    while True:
        yield b"RelayState=" + b"x" * 65536


@pytest.mark.parametrize(
    ("send", "refusal"),
    [
        (lambda: {"data": {"SAMLResponse": "x", "RelayState": "x" * 10_000_000}}, PortalRefusal.REQUEST_TOO_LARGE),
        (lambda: {"content": endless(), "headers": FORM}, PortalRefusal.REQUEST_TOO_LARGE),
        (lambda: {"content": bomb(), "headers": FORM}, PortalRefusal.REQUEST_MALFORMED),
        (
            lambda: {"content": bomb(), "headers": FORM | {"content-encoding": "deflate"}},
            PortalRefusal.REQUEST_MALFORMED,
        ),
        (lambda: {"data": {"SAMLResponse": "x", "RelayState": bomb()}}, PortalRefusal.RELAY_STATE_UNKNOWN),
        (lambda: {"files": {"SAMLResponse": b"x"}}, PortalRefusal.REQUEST_MALFORMED),
        (lambda: {"content": b"RelayState=a&RelayState=b", "headers": FORM}, PortalRefusal.REQUEST_MALFORMED),
        (lambda: {"content": MANY, "headers": FORM}, PortalRefusal.REQUEST_MALFORMED),
        (lambda: {"content": b"RelayState=%ff", "headers": FORM}, PortalRefusal.REQUEST_MALFORMED),
        (lambda: {"content": b"RelayState=%f", "headers": FORM}, PortalRefusal.REQUEST_MALFORMED),
        (lambda: {"data": {"SAMLResponse": "+" * (MOST_ESCAPES + 1)}}, PortalRefusal.REQUEST_MALFORMED),
        (lambda: {"data": {"SAMLResponse": "+" * MOST_ESCAPES}}, PortalRefusal.RELAY_STATE_UNKNOWN),
        (lambda: {"data": {"SAMLResponse": "x" * (LONGEST_ANSWER - 99)}}, PortalRefusal.RELAY_STATE_UNKNOWN),
        (lambda: {"content": b"", "headers": FORM}, PortalRefusal.RELAY_STATE_UNKNOWN),
    ],
)
async def test_what_strangers_post_is_bounded_and_disturbs_nobody(
    pages: Pages, send: Callable[[], dict[str, Any]], refusal: PortalRefusal
) -> None:
    login, path = pages.proven(ANNA)
    answer = await pages.another_browser("203.0.113.9").post("/saml/acs", **send())
    assert answer.status_code >= 400 and pages.portal.refusals == {refusal: 1}
    assert len(answer.content) < 4096
    assert (await pages.browser.get(path)).status_code == 200 and not login.outcome.done()


async def test_what_strangers_post_slowly_takes_no_more_memory_than_there_is_for_them(pages):
    stop = asyncio.Event()

    async def slowly() -> Any:
        yield b"SAMLResponse=" + b"x" * 200_000
        await stop.wait()

    stranger = pages.another_browser("203.0.113.9")
    posts = [
        asyncio.create_task(stranger.post("/saml/acs", content=slowly(), headers=FORM))
        for _ in range(OF_SOURCE_BYTES // 190_000 + 5)
    ]
    done, waiting = await asyncio.wait(posts, timeout=0.5)
    assert done and {(await each).status_code for each in done} == {429}
    assert len(waiting) * 190_000 <= OF_SOURCE_BYTES
    other = await pages.browser.post("/saml/acs", data={"SAMLResponse": "x" * 200_000})
    assert other.status_code == 403, "somebody else's is read"
    stop.set()
    assert {(await each).status_code for each in waiting} == {403}
    again = await stranger.post("/saml/acs", data={"SAMLResponse": "x" * 200_000})
    assert again.status_code == 403, "and so is theirs, afterwards"


async def test_one_source_may_ask_so_often_and_others_are_not_slowed():
    pages = Pages(requests_per_source_per_min=10)
    stranger = pages.another_browser("203.0.113.9")
    codes = [(await stranger.get("/saml/login/x")).status_code for _ in range(12)]
    assert codes == [404] * 10 + [429] * 2
    assert (await pages.browser.get("/saml/login/x")).status_code == 404
    pages.now = 60.0
    assert (await stranger.get("/saml/login/x")).status_code == 404
    pages.saml.close()


async def test_a_network_may_ask_as_often_as_four_sources_and_others_are_not_slowed():
    """Somebody with an IPv6 /48 has 65,536 sources."""
    pages = Pages(requests_per_source_per_min=10)
    for network in ("203.0.113.{}", "2001:db8:1:{}::1"):
        codes = []
        for source in range(1, 7):
            stranger = pages.another_browser(network.format(source))
            codes += [(await stranger.get("/saml/login/x")).status_code for _ in range(10)]
        assert codes == [404] * 40 + [429] * 20
    assert (await pages.another_browser("203.0.114.1").get("/saml/login/x")).status_code == 404
    assert (await pages.another_browser("2001:db8:2:1::1").get("/saml/login/x")).status_code == 404
    pages.saml.close()


async def test_what_no_browser_does_counts_as_a_request_and_gets_a_page_of_ours():
    pages = Pages(requests_per_source_per_min=10)
    stranger = pages.another_browser("203.0.113.9")
    asked = [("POST", "/"), ("POST", "/saml/login/x"), ("DELETE", "/saml/acs"), ("TRACE", "/x"), ("PUT", "/saml/acs")]
    answers = [await stranger.request(*each) for each in asked * 3]
    assert [each.status_code for each in answers] == [404] * 10 + [429] * 5
    assert all("content-security-policy" in each.headers for each in answers)
    pages.saml.close()
