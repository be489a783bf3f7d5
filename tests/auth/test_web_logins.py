"""Who may go on with a login in a browser, and who may not."""

from __future__ import annotations

import asyncio

import pytest

from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.model import Assertion, PendingRequest
from cvpnd.auth.web_logins import MOST_OPENINGS, SECRET_CHARACTERS, Stage, Waiting, WebLogin, WebLogins
from cvpnd.reasons import PortalRefusal, Refusal

WAITING = Waiting("staff", "Linux, OpenVPN 2.6.14", "192.0.2.7", "")
ANNA = Assertion("_1", "anna@example.org", frozenset({"eng"}))
REQUEST = PendingRequest("_r", "https://vpn.example.com/saml/acs", 0.0, 300.0)


async def offered(logins: WebLogins, until: float = 180.0) -> WebLogin:
    outcome = asyncio.get_running_loop().create_future()
    login = WebLogin("corp", "cvpn-connection-1", WAITING, until, outcome, lambda: None)
    logins.offer(login)
    return login


def cookie_of(login: WebLogin) -> dict[str, str]:
    return {login.cookie: login.browser}


def opened(logins: WebLogins, login: WebLogin) -> str:
    relay_state = logins.open(login)
    assert logins.ask(login, relay_state, REQUEST)
    return relay_state


def proven(logins: WebLogins, login: WebLogin) -> str:
    assert logins.check(opened(logins, login), 1.0) is login
    ticket = logins.prove(login, ANNA)
    assert ticket is not None
    return ticket


@pytest.fixture
def logins() -> WebLogins:
    return WebLogins("https://vpn.example.com", 180)


async def test_the_browser_that_opened_the_link_and_brought_the_assertion_decides(logins):
    for allowed, outcome in ((True, ANNA), (False, Refusal.LOGIN_DECLINED)):
        login = await offered(logins)
        assert logins.link(login) == f"https://vpn.example.com/saml/login/{login.secret}"
        assert logins.find(login.secret, {}, 1.0) is login
        ticket = proven(logins, login)
        assert logins.proven(ticket, cookie_of(login), 1.0) is login
        consent = login.consent
        for wrong in ("", "x", login.ticket, login.secret, "\udc80"):
            assert not logins.decide(login, wrong, True) and not login.outcome.done()
        assert logins.decide(login, consent, allowed)
        result = login.outcome.result()
        assert (result.refusal if isinstance(result, Refused) else result) is outcome
        assert not logins.decide(login, consent, True), "once"
        assert logins.proven(ticket, cookie_of(login), 1.0) is PortalRefusal.LINK_UNKNOWN
    assert len(logins) == 0


async def test_a_link_that_another_browser_opened_is_worth_nothing(logins):
    login = await offered(logins)
    opened(logins, login)
    for cookies in ({}, {login.cookie: "x" * 43}, {login.cookie: ""}, {"another": login.browser}):
        assert logins.find(login.secret, cookies, 1.0) is PortalRefusal.BROWSER_MISMATCH
    assert logins.find(login.secret, cookie_of(login), 1.0) is login, "the same one may start over"
    assert login.stage is Stage.OPENED and not login.outcome.done()


async def test_an_assertion_that_another_browser_brings_ends_the_login(logins):
    """The way in for whoever opens the link themselves and sends somebody else to the identity provider."""
    login = await offered(logins)
    ticket = proven(logins, login)
    assert logins.proven(ticket, {}, 1.0) is PortalRefusal.BROWSER_MISMATCH
    assert login.outcome.result().refusal is Refusal.BROWSER_MISMATCH
    assert logins.proven(ticket, cookie_of(login), 1.0) is PortalRefusal.LINK_UNKNOWN, "nor does the first one get in"


async def test_the_first_browser_gets_nowhere_without_the_ticket_of_the_one_with_the_assertion(logins):
    login = await offered(logins)
    proven(logins, login)
    for guess in (login.secret, login.relay_state, login.browser, "", "x" * SECRET_CHARACTERS):
        assert logins.proven(guess, cookie_of(login), 1.0) is PortalRefusal.LINK_UNKNOWN
    assert logins.find(login.secret, cookie_of(login), 1.0) is PortalRefusal.LINK_USED
    assert not login.outcome.done()


async def test_each_request_takes_one_answer_and_only_the_latest_counts(logins):
    login = await offered(logins)
    assert logins.find(login.secret, {}, 1.0) is login
    first = opened(logins, login)
    second = opened(logins, login)
    assert not logins.ask(login, first, REQUEST)
    assert logins.check(first, 1.0) is PortalRefusal.RELAY_STATE_UNKNOWN
    assert logins.check(second, 1.0) is login
    assert logins.check(second, 1.0) is PortalRefusal.RELAY_STATE_UNKNOWN, "it is being looked at"
    for secret in (login.secret, "", "x", "x" * SECRET_CHARACTERS, "\x00" * SECRET_CHARACTERS, "ü" * SECRET_CHARACTERS):
        assert logins.check(secret, 1.0) is PortalRefusal.RELAY_STATE_UNKNOWN
    logins.withdraw(login)
    assert logins.prove(login, ANNA) is None, "nobody waits any more"


async def test_the_number_of_requests_and_the_time_are_limited(logins):
    login = await offered(logins, until=100.0)
    for _ in range(MOST_OPENINGS):
        assert logins.find(login.secret, cookie_of(login), 99.0) is login
        opened(logins, login)
    assert logins.find(login.secret, cookie_of(login), 99.0) is PortalRefusal.LINK_USED
    assert logins.find(login.secret, cookie_of(login), 100.0) is PortalRefusal.LINK_UNKNOWN
    assert logins.check(login.relay_state, 100.0) is PortalRefusal.RELAY_STATE_UNKNOWN
    logins.withdraw(login)
    assert len(logins) == 0 and not login.outcome.done()


async def test_no_secret_is_in_what_a_log_would_show(logins):
    login = await offered(logins)
    proven(logins, login)
    for secret in (login.secret, login.relay_state, login.ticket, login.browser, login.consent):
        assert len(secret) == SECRET_CHARACTERS and secret not in repr(login)
    assert len({login.secret, login.relay_state, login.ticket, login.browser, login.consent}) == 5
