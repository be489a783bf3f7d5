"""Two gateways on one PostgreSQL: whoever is sent away by one comes back to the other, and nothing counts twice."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from helpers import saml_idp
from helpers.handshake import client_context
from helpers.postgresql import PostgreSql, installed
from helpers.saml_idp import Asked, Response
from helpers.served import Client, Served
from light_client.generations import generation

from cvpnd.auth.identity import Refused
from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.auth.saml.keeper import prepare
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.metadata import parse_metadata
from cvpnd.auth.saml.model import Assertion
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.tokens import TokenKey
from cvpnd.endpoints.timekeeping import KEPT_EVERY_S, Timekeeper
from cvpnd.reasons import Refusal
from cvpnd.store import Store
from cvpnd.wire.packet import Transport

pytestmark = pytest.mark.skipif(not installed(), reason="PostgreSQL is not installed, or this is not root")

METHOD = {"type": "federated-authentication", "saml_provider": "corp"}
PROVIDER = SamlProvider("corp", parse_metadata(saml_idp.metadata()))
ROUNDS = 2


class Gateway:
    """Has nothing of its own but its addresses: its keys are the store's too."""

    def __init__(self, directory: Path, url: str, key_file: Path) -> None:
        directory.mkdir()
        self.store = Store.open(url, key_file)
        self.served = Served(directory, user_method=METHOD, certificates=False)
        self.saml = self.served.control.saml = SamlLogins(self.store, self.store.gateway_secret("saml-state"))
        self.saml.replace({"corp": PROVIDER})
        self.served.control.token_key = TokenKey(self.store.gateway_secret("auth-token"))

    def close(self) -> None:
        self.saml.close()
        self.served.close()
        self.store.close()
        assert self.served.errors == []

    def client(self, password: str) -> Client:
        played = generation("aws")
        return Client(
            self.served.udp,
            Transport.UDP,
            context=client_context(None),
            username="N/A",
            password=password,
            peer_info=played.peer_info,
            options=played.options(Transport.UDP),
            habits=played.habits,
        )

    async def told(self, password: str) -> str:
        """Why nobody gets in."""
        client = self.client(password)
        assert await client.until(lambda: client.light.failed is not None)
        client.close()
        return client.light.failed or ""

    def refusal(self) -> Refusal:
        reason = self.served.ended[-1].end_reason
        assert isinstance(reason, Refusal)
        return reason


@pytest.fixture
async def gateways(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    await asyncio.to_thread(prepare)
    with PostgreSql() as server:
        url = server.new_database("state")
        both = tuple(Gateway(tmp_path / name, url, tmp_path / "state.key") for name in ("one", "two"))
        yield both[0], both[1]
        for gateway in both:
            gateway.close()


async def test_who_is_sent_away_by_one_comes_back_to_the_other_and_nothing_counts_twice(gateways):
    one, two = gateways
    word, _, state, name, url = (await one.told("ACS::35001")).split(":", 4)
    assert (word, base64.b64decode(name)) == ("AUTH_FAILED,CRV1", b"N/A")
    brought = f"CRV1::{state}::{quote(saml_idp.answer(url), safe='')}"
    client = await two.client(brought).connect()
    token = client.light.option("auth-token")
    client.close()
    for gateway in gateways:
        await gateway.told(brought)
        assert gateway.refusal() is Refusal.SAML_REQUEST_USED
    for gateway in gateways:
        (await gateway.client(token).connect()).close()
        assert gateway.served.established[-1].username == "anna@example.com"
        assert gateway.served.established[-1].grant.groups == {"eng", "all"}

    (session, *_) = one.served.established
    for replaced, why in (
        (replace(PROVIDER.idp, certificates=parse_metadata(saml_idp.metadata(saml_idp.key("next"))).certificates), ""),
        (replace(PROVIDER.idp, entity_id="urn:another"), "another one under the same id"),
        (None, "none"),
    ):
        one.saml.replace({} if replaced is None else {"corp": replace(PROVIDER, idp=replaced)})
        assert session.vouched_by is not None and one.saml.replaced(session.vouched_by) is why.startswith("another")
        if why:
            await one.told(token)
            assert one.refusal() is Refusal.TOKEN_INVALID, why
        else:
            (await one.client(token).connect()).close()
    (await two.client(token).connect()).close()

    await both_at_once(one, two)


async def test_who_was_sent_away_by_a_gateway_whose_clock_is_ahead_is_not_in_at_one_that_ended_them_since(gateways):
    one, two = gateways
    ahead, clock = 0.9 * KEPT_EVERY_S, two.served.control.clock
    one.saml._steady, two.saml._steady = lambda: clock.now() + ahead, clock.now
    assert Timekeeper(clock, two.store) and clock.apart_s == KEPT_EVERY_S, "as far as they go apart"
    for ended in (False, True):
        _, _, state, _, url = (await one.told("ACS::35001")).split(":", 4)
        if ended:
            two.served.control.revoked_logins.add(
                RevokedLogins.new_marks({RevokedLogins.of_user("anna@example.com")}), clock.now()
            )
        brought = f"CRV1::{state}::{quote(saml_idp.answer(url), safe='')}"
        if ended:
            await two.told(brought)
            assert two.refusal() is Refusal.TERMINATED
        else:
            (await two.client(brought).connect()).close()


async def both_at_once(one: Gateway, two: Gateway) -> None:
    """The same response, and then the same assertion in answers to two requests."""
    one.saml.replace({"corp": PROVIDER})
    for number in range(ROUNDS):
        request, url = PROVIDER.begin(time.time(), saml_idp.ACS)
        response = saml_idp.answer(url)
        answers = await asyncio.gather(
            *(each.saml.accept(PROVIDER, response, request, source="a", within_s=30) for each in (one, two))
        )
        assert sorted(map(_outcome, answers)) == ["in", Refusal.SAML_REQUEST_USED], answers

        begun = [PROVIDER.begin(time.time(), saml_idp.ACS) for _ in range(2)]
        answers = await asyncio.gather(
            *(
                gateway.saml.accept(
                    PROVIDER,
                    Response(Asked.of(url).id, assertion_id=f"_once{number}").encoded(),
                    request,
                    source="a",
                    within_s=30,
                )
                for gateway, (request, url) in zip((one, two), begun, strict=True)
            )
        )
        assert sorted(map(_outcome, answers)) == ["in", Refusal.SAML_REPLAYED], answers


def _outcome(answer: Assertion | Refused) -> str:
    return "in" if isinstance(answer, Assertion) else answer.refusal
