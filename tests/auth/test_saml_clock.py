"""Answers of identity providers while the wall clock is put ahead and back: what was used stays used, and a request is
good for as long as was said."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from helpers import saml_idp
from helpers.saml_idp import ACS, Asked, Response

from cvpnd.auth.challenge import Challenged
from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.metadata import parse_metadata
from cvpnd.auth.saml.model import Assertion
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.saml.state import Visitor
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret
from cvpnd.store import Store

PROVIDER = SamlProvider("corp", parse_metadata(saml_idp.metadata()))
HERE = Visitor("cvpn-endpoint-1", "corp", "", "")


class Desk:
    def __init__(self, store: Store) -> None:
        self.away = self.passed = 0.0
        self.logins = SamlLogins(store, bytes(32), lambda: 1000.0 + self.passed, self.wall)
        self.logins.replace({"corp": PROVIDER})

    def wall(self) -> float:
        return time.time() + self.passed + self.away

    def ask(self) -> tuple[str, str]:
        """By AWS's client: its state, and the address that its browser opens."""
        sent = self.logins.send_away(HERE, "ACS::35001")
        assert isinstance(sent, Challenged)
        _, _, state, _, url = sent.text.split(":", 4)
        return state, url

    async def bring(self, state: str, response: str) -> Refusal | str:
        brought = self.logins.taken_back(HERE, Secret.of_text(f"CRV1::{state}::{quote(response, safe='')}"))
        assert not isinstance(brought, Refused)
        return outcome(await self.logins.accept(*brought[:3], source="a", within_s=30))


def outcome(answer: Assertion | Refused) -> Refusal | str:
    return answer.refusal if isinstance(answer, Refused) else answer.name


@pytest.fixture
def desk(tmp_path: Path):
    with closing(Store.open(f"sqlite:///{tmp_path}/state.db")) as store:
        made = Desk(store)
        yield made
        made.logins.close()


@pytest.mark.parametrize("away", [7200.0, 40 * 365 * 86_400.0])
async def test_what_was_used_stays_used(desk: Desk, away: float) -> None:
    state, url = desk.ask()
    response = saml_idp.answer(url)
    assert await desk.bring(state, response) == "anna@example.com"
    request, other_url = PROVIDER.begin(desk.wall(), ACS)
    again = Response(Asked.of(other_url).id, assertion_id="_once").encoded()
    assert outcome(await desk.logins.accept(PROVIDER, again, request, source="a", within_s=30)) == "anna@example.com"
    desk.away = away
    late, _ = PROVIDER.begin(desk.wall(), ACS)
    assert isinstance(await desk.logins.accept(PROVIDER, "", late, source="a", within_s=30), Refused)
    desk.away = 0
    assert await desk.bring(state, response) is Refusal.SAML_REQUEST_USED
    request, other_url = PROVIDER.begin(desk.wall(), ACS)
    replayed = Response(Asked.of(other_url).id, assertion_id="_once").encoded()
    answer = await desk.logins.accept(PROVIDER, replayed, request, source="a", within_s=30)
    assert outcome(answer) is Refusal.SAML_REPLAYED


async def test_a_request_is_over_after_its_time_though_the_clock_was_put_back_by_as_much(desk: Desk) -> None:
    state, url = desk.ask()
    response = saml_idp.answer(url)
    desk.passed = PROVIDER.login_time_s + 1
    desk.away = -desk.passed
    assert await desk.bring(state, response) is Refusal.SAML_REQUEST_EXPIRED
    desk.passed, desk.away = -7200.0, 7200.0  # as another clock of this kind, or a database of yesterday
    assert await desk.bring(state, response) is Refusal.SAML_REQUEST_EXPIRED


async def test_a_request_goes_on_being_good_when_the_clock_is_set_meanwhile(desk: Desk) -> None:
    desk.away = -7200
    state, url = desk.ask()
    desk.away = 0
    await asyncio.sleep(0)
    now = time.time()
    response = Response(Asked.of(url).id, acs_url="http://127.0.0.1:35001", now=now).encoded()
    assert await desk.bring(state, response) == "anna@example.com"
