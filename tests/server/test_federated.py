"""AWS's client at an identity provider: two connections for a login, none for a renegotiation or a restart."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from helpers import certs, saml_idp
from helpers.handshake import client_context
from helpers.relay import Impairment, Weather
from helpers.saml_idp import Asked, Response
from helpers.served import Client, Served
from light_client.generations import generation
from light_client.protocol import Told

from cvpnd.auth.saml.keeper import prepare
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.metadata import parse_metadata
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.tokens import TokenKey
from cvpnd.auth.web_logins import WebLogins
from cvpnd.reasons import Refusal
from cvpnd.server.denied import SAML_TEXT
from cvpnd.server.memory import Reserve, Share
from cvpnd.store import Store
from cvpnd.wire.packet import Transport

METHOD = {"type": "federated-authentication", "saml_provider": "corp"}
PROVIDER = SamlProvider("corp", parse_metadata(saml_idp.metadata()))
KEY = bytes(32)


class Gateway:
    """May be started again, with the store that it had."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.store = Store.open(f"sqlite:///{directory}/state.db")
        self.asserted: list[str] = []
        self._served: Served | None = None

    @property
    def served(self) -> Served:
        assert self._served is not None, "not started"
        return self._served

    def start(self, *, certificates: bool = False, limits: dict[str, int] | None = None, **method: Any) -> Served:
        self.stop()
        served = self._served = Served(
            self._directory, user_method={**METHOD, **method}, certificates=certificates, **(limits or {})
        )
        served.control.saml = SamlLogins(self.store, KEY)
        served.control.saml.replace({"corp": PROVIDER})
        served.control.token_key = TokenKey(KEY)
        served.control.on_assertion = lambda connection: self.asserted.append(connection.connection_id)
        return served

    def stop(self) -> None:
        if self._served is not None and self._served.control.saml is not None:
            self._served.control.saml.close()
            self._served.close()
            assert self._served.errors == []
            self._served = None

    def refusal(self) -> Refusal:
        reason = self.served.ended[-1].end_reason
        assert isinstance(reason, Refusal)
        return reason


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    await asyncio.to_thread(prepare)
    made = Gateway(tmp_path)
    yield made
    made.stop()
    made.store.close()


class LossyClient(Client):
    """Loses packets of both directions, by dice that fall the same way each time."""

    def __init__(self, *arguments: Any, loss: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._out, self._in = (Impairment(Weather(loss=loss), seed) for seed in (1, 2))

    def send(self, packet: bytes) -> None:
        if self._out.delivery_times(len(packet), 0.0):
            super().send(packet)

    def _received(self) -> list[bytes]:
        return [packet for packet in super()._received() if self._in.delivery_times(len(packet), 0.0)]


def client(
    served: Served,
    password: str,
    transport: Transport = Transport.UDP,
    *,
    plays: str = "aws",
    certificate: certs.TestCertificate | None = None,
    loss: float = 0.0,
    sso: str = "",
    **options: Any,
) -> Client:
    played = generation(plays)
    address = served.udp if transport is Transport.UDP else served.tcp
    kind: Callable[..., Client] = Client if not loss else LossyClient
    return kind(
        address,
        transport,
        context=client_context(certificate),
        username="N/A",
        password=password,
        peer_info={**played.peer_info, **({"IV_SSO": sso} if sso else {})},
        options=played.options(transport),
        habits=played.habits,
        **({"loss": loss} if loss else {}),
        **options,
    )


async def sent_away(served: Served, transport: Transport = Transport.UDP, **options: Any) -> tuple[str, str]:
    """The first connection: state id and address."""
    first = client(served, "ACS::35001", transport, **options)
    before = len(served.ended)
    assert await first.until(lambda: first.light.failed is not None)
    first.close()
    word, flags, state, name, url = (first.light.failed or "").split(":", 4)
    assert (word, flags, base64.b64decode(name)) == ("AUTH_FAILED,CRV1", "R", b"N/A")
    assert [c.end_reason for c in served.ended[before:]] == [Refusal.WAITING_FOR_ASSERTION]
    return state, url


def brought(state: str, response: str) -> str:
    return f"CRV1::{state}::{quote(response, safe='')}"


async def refused(served: Served, password: str, **options: Any) -> str:
    """What the client is told."""
    second = client(served, password, **options)
    assert await second.until(lambda: second.light.failed is not None)
    second.close()
    assert not served.established
    return second.light.failed or ""


@pytest.fixture(params=[Transport.UDP, Transport.TCP])
def transport(request):
    return request.param


def of_length(url: str, characters: int) -> str:
    """A good response of that many characters in base64, or up to 3 fewer."""
    asked = Asked.of(url)
    response = Response(asked.id, asked.acs_url)
    missing = (characters - len(response.encoded())) * 3 // 4
    response.attributes["LastName"] = ("Ende" + "e" * max(0, missing - 4),)
    encoded = response.encoded()
    assert characters - 16 < len(encoded) <= characters
    return encoded


@pytest.mark.parametrize("kilobytes", [0, 128])
async def test_login_by_two_connections(gateway, transport, kilobytes):
    served = gateway.start()
    state, url = await sent_away(served, transport)
    response = of_length(url, kilobytes * 1024) if kilobytes else saml_idp.answer(url)
    second = await client(served, brought(state, response), transport).connect()
    (connection,) = served.established
    assert gateway.asserted == [connection.connection_id]
    assert (connection.username, connection.grant.groups) == ("anna@example.com", {"eng", "all"})
    assert connection.memory is not None and served.control._reserve.used == 0
    token = second.light.option("auth-token")
    assert token and len(token) <= 127
    second.close()


async def test_long_answer_arrives_over_a_bad_network_and_counts_after_a_restart(gateway):
    state, url = await sent_away(gateway.start(), loss=0.02)
    served = gateway.start()
    second = client(served, brought(state, of_length(url, 128 * 1024)), loss=0.02)
    assert await second.until(lambda: second.light.connected, 30), (second.light.failed, second.light.drops)
    second.close()


async def test_stock_framing_goes_on_working_beside_it(gateway, transport):
    served = gateway.start()
    state, url = await sent_away(served, transport, plays="2.6")
    second = await client(served, brought(state, saml_idp.answer(url)), transport, plays="2.6").connect()
    second.close()


async def test_what_is_no_answer_and_one_byte_too_many_are_refused_in_words(gateway, transport):
    served = gateway.start()
    state, _ = await sent_away(served, transport)
    assert SAML_TEXT in await refused(served, brought(state, "A" * 2048), transport=transport)
    assert gateway.refusal() is Refusal.SAML_MALFORMED
    state, url = await sent_away(served)
    response = of_length(url, 128 * 1024)
    told = await refused(served, brought(state, response + " " * (128 * 1024 + 1 - len(response))))
    assert "larger than 128 kB" in told and gateway.refusal() is Refusal.SAML_TOO_LARGE


async def test_token_is_as_good_as_a_browser_until_the_session_timeout(gateway):
    """At a renegotiation, and after a restart, whatever name comes with it; then no more."""
    served = gateway.start()
    state, url = await sent_away(served)
    second = await client(served, brought(state, saml_idp.answer(url))).connect()
    token = second.light.option("auth-token")
    second.light.password = token
    await renegotiate(second)
    second.close()
    served = gateway.start()
    for name in ("N/A", "anna@example.com", ""):
        again = client(served, token)
        again.light.username = name
        await again.connect()
        assert served.established[-1].username == "anna@example.com"
        assert served.established[-1].grant.groups == {"eng", "all"}
        again.close()
    served.established.clear()
    object.__setattr__(served.settings, "session_timeout_s", 1)
    await asyncio.sleep(1.1)
    assert "token expired" in await refused(served, token)
    assert gateway.refusal() is Refusal.TOKEN_EXPIRED
    with_other_end = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    assert "token expired" in await refused(served, with_other_end)
    assert gateway.refusal() is Refusal.TOKEN_INVALID


async def renegotiate(connected: Client) -> None:
    before = connected.light.key_id
    connected.light.renegotiate(time.monotonic())
    assert await connected.until(lambda: connected.light.sending_key_id not in (before, None)), connected.light.failed


async def test_client_that_takes_no_token_says_again_what_it_brought(gateway):
    served = gateway.start()
    state, url = await sent_away(served)
    first = brought(state, saml_idp.answer(url))
    second = await client(served, first).connect()
    second.light.password = first
    await renegotiate(second)
    second.light.password = brought(state, saml_idp.answer(url))  # the request is used, by whatever is another response
    (connection,) = served.established
    assert await second.until(lambda: connection.session._keys.pending is None)  # our side of the first has ended too
    now = asyncio.get_running_loop().time()
    connection.session.renegotiate(now)  # a client may begin one only every few seconds
    served.control.pump(connection, now)
    assert await second.until(lambda: second.light.failed is not None)
    assert gateway.refusal() is Refusal.SAML_REQUEST_USED
    second.close()


@pytest.mark.parametrize(
    ("idp", "expected"),
    [
        (replace(PROVIDER.idp, entity_id="urn:another"), Refusal.SAML_WRONG_ISSUER),
        (replace(PROVIDER.idp, certificates=("another", *PROVIDER.idp.certificates)), None),
    ],
    ids=["another", "it has one more key"],
)
async def test_identity_provider_that_changes_during_a_login_lets_in_whom_it_still_vouches_for(
    gateway, monkeypatch, idp, expected
):
    served = gateway.start()
    saml = served.control.saml
    state, url = await sent_away(served)
    remember = saml.remember

    async def meanwhile(*arguments):
        await remember(*arguments)
        saml.replace({"corp": replace(PROVIDER, idp=idp)})

    monkeypatch.setattr(saml, "remember", meanwhile)
    if expected is None:
        (await client(served, brought(state, saml_idp.answer(url))).connect()).close()
    else:
        assert await refused(served, brought(state, saml_idp.answer(url))) == f"AUTH_FAILED,{SAML_TEXT}"
        assert gateway.refusal() is expected


async def test_key_that_is_withdrawn_while_an_answer_is_looked_at_lets_nobody_in(gateway, monkeypatch):
    served = gateway.start()
    saml = served.control.saml
    state, url = await sent_away(served)
    accept = saml.accept

    async def slowly(*arguments, **more):
        answer = await accept(*arguments, **more)
        new = parse_metadata(saml_idp.metadata(saml_idp.key("new")))
        saml.replace({"corp": replace(PROVIDER, idp=new)})
        return answer

    monkeypatch.setattr(saml, "accept", slowly)
    assert await refused(served, brought(state, saml_idp.answer(url))) == f"AUTH_FAILED,{SAML_TEXT}"
    assert gateway.refusal() is Refusal.SAML_SIGNATURE_INVALID


async def test_stolen_state_id_is_worth_nothing_elsewhere_and_costs_its_owner_nothing(gateway):
    served = gateway.start()
    state, url = await sent_away(served)
    response = saml_idp.answer(url)
    assert "another address" in await refused(served, brought(state, response), source="127.0.1.2")
    assert gateway.refusal() is Refusal.SAML_OTHER_ADDRESS
    second = await client(served, brought(state, response)).connect()
    second.close()


@pytest.mark.parametrize(("login_source", "source"), [("network", "127.0.0.2"), ("any", "127.9.9.9")])
async def test_people_may_change_their_address_where_the_operator_says_so(gateway, login_source, source):
    served = gateway.start(login_source=login_source)
    state, url = await sent_away(served)
    second = await client(served, brought(state, saml_idp.answer(url)), source=source).connect()
    second.close()


async def test_nothing_counts_twice_also_after_a_restart(gateway):
    served = gateway.start()
    state, url = await sent_away(served)
    response = saml_idp.answer(url, assertion_id="_once")
    (await client(served, brought(state, response)).connect()).close()
    served = gateway.start()
    assert await refused(served, brought(state, response)) == f"AUTH_FAILED,{SAML_TEXT}"
    assert gateway.refusal() is Refusal.SAML_REQUEST_USED
    state, url = await sent_away(served)
    await refused(served, brought(state, saml_idp.answer(url, assertion_id="_once")))
    assert gateway.refusal() is Refusal.SAML_REPLAYED
    state, url = await sent_away(served)
    await refused(served, brought(state, "AAAA"))
    assert gateway.refusal() is Refusal.SAML_MALFORMED
    await refused(served, brought(state, saml_idp.answer(url)))
    assert gateway.refusal() is Refusal.SAML_REQUEST_USED, "also by a response that was not good"


async def test_with_certificates_the_login_is_bound_to_the_certificate(gateway):
    served = gateway.start(certificates=True)
    anna, berta = certs.client("anna@example.com"), certs.client("berta")
    state, url = await sent_away(served, certificate=anna)
    response = saml_idp.answer(url)
    await refused(served, brought(state, response), certificate=berta)
    assert gateway.refusal() is Refusal.SAML_REQUEST_UNKNOWN
    second = await client(served, brought(state, response), certificate=anna).connect()
    token = second.light.option("auth-token")
    second.close()
    served.established.clear()
    await refused(served, token, certificate=berta)
    assert gateway.refusal() is Refusal.TOKEN_INVALID
    await refused(served, "ACS::35001")
    assert gateway.refusal() is Refusal.CERTIFICATE_MISSING


async def test_whoever_asks_for_something_else_is_told_what_to_use(gateway):
    served = gateway.start()
    for password, reason in (
        ("secret", Refusal.SAML_CLIENT_UNSUITED),
        ("", Refusal.SAML_CLIENT_UNSUITED),
        ("ACS::", Refusal.CHALLENGE_UNEXPECTED),
        ("ACS::0", Refusal.CHALLENGE_UNEXPECTED),
        ("ACS::65536", Refusal.CHALLENGE_UNEXPECTED),
        ("ACS::35001@evil.example", Refusal.CHALLENGE_UNEXPECTED),
        ("CRV1::x", Refusal.SAML_REQUEST_UNKNOWN),
        ("CRV1::x::AAAA", Refusal.SAML_REQUEST_UNKNOWN),
        ("CRV1::::", Refusal.SAML_REQUEST_UNKNOWN),
    ):
        told = await refused(served, password)
        assert gateway.refusal() is reason, password
        assert ("AWS VPN Client" in told) is (reason is Refusal.SAML_CLIENT_UNSUITED)
    assert served.control.saml is not None
    served.control.saml.replace({})
    await refused(served, "ACS::35001")
    assert gateway.refusal() is Refusal.SAML_UNAVAILABLE


def test_reserve_is_shared_out_by_source():
    reserve = Reserve(100, 60)
    first, second, elsewhere = Share(reserve, "a"), Share(reserve, "a"), Share(reserve, "b")
    assert first.hold(40) and not second.hold(30) and second.hold(20)
    assert first.hold(10) and second.hold(50) and elsewhere.hold(40) and not elsewhere.hold(41)
    assert reserve.used == 100
    for share in (first, second, elsewhere):
        share.close()
        assert not share.hold(1)
    assert reserve.used == 0


async def test_nobody_keeps_more_of_a_long_key_exchange_in_memory_than_their_share(gateway):
    served = gateway.start()
    served.control._reserve = Reserve(1 << 20, 100_000)
    state, _ = await sent_away(served)
    second = client(served, brought(state, "A" * 128 * 1024))
    assert await second.until(lambda: bool(served.ended) and served.ended[-1].end_reason is Refusal.PROTOCOL_VIOLATION)
    assert served.control._reserve.used == 0
    second.close()


ANNOUNCED = {
    "webauth,openurl,crtext": "WEB_AUTH:external:https://",  # OpenVPN Connect 3, OpenVPN 3 for Linux
    "openurl,webauth,crtext": "WEB_AUTH:external:https://",  # OpenVPN for Android, OpenVPN GUI
    "openurl,crtext": "OPEN_URL:https://",  # the same of some years ago
    "webauth": "WEB_AUTH:external:https://",  # Tunnelblick, and profiles that say so
    "proxy_url, openurl": "OPEN_URL:https://",
    "crtext": None,
    "webauthn": None,
}


@pytest.mark.parametrize("sso", ANNOUNCED)
async def test_clients_are_sent_to_a_browser_in_the_words_that_they_announce(gateway, sso):
    served, expected = gateway.start(), ANNOUNCED[sso]
    served.control.web_logins = WebLogins("https://vpn.example.com", 180)
    asked = client(served, "", plays="2.6", sso=sso)
    told: list[str] = []

    def answered() -> bool:
        told.extend(event.text for event in iter(asked.light.next_event, None) if isinstance(event, Told))
        return any(text.startswith("INFO_PRE") for text in told) or asked.light.failed is not None

    assert await asked.until(answered)
    if expected is None:
        assert "logs in with a browser" in (asked.light.failed or "")
        assert not any(text.startswith("INFO_PRE") for text in told)
        assert gateway.refusal() is Refusal.SAML_CLIENT_UNSUITED
    else:
        (pending,) = (text for text in told if text.startswith("AUTH_PENDING"))
        assert pending.startswith("AUTH_PENDING,timeout ")
        assert [text for text in told if text.startswith(f"INFO_PRE,{expected}")], told
    asked.close()


async def test_a_few_addresses_take_all_places_and_the_next_person_has_one_all_the_same(gateway):
    """Everybody may connect where there are no certificates, and wait for a browser that never comes."""
    served = gateway.start(limits={"waiting_logins": 8, "waiting_logins_per_source": 4})
    served.control.web_logins = WebLogins("https://vpn.example.com", 180)

    async def waits(source: str) -> Client:
        waiting = client(served, "", plays="2.6", sso="webauth", source=source)
        seen = lambda: (served.control.places.waiting(served.endpoint.id), len(served.ended))  # noqa: E731
        before = seen()
        assert await waiting.until(lambda: seen() != before)
        return waiting

    attackers = [await waits(f"127.1.{number % 2}.1") for number in range(8)]
    assert served.control.places.waiting(served.endpoint.id) == 8 and not served.ended
    person = await waits("127.2.0.1")
    for number in range(2):
        attackers.append(await waits(f"127.1.{number}.1"))
    assert [each.end_reason for each in served.ended] == [Refusal.TOO_MANY_LOGINS] * 3
    assert not any(each.link.remote.host == "127.2.0.1" for each in served.ended)
    told: list[str] = []

    def has_link() -> bool:
        told.extend(event.text for event in iter(person.light.next_event, None) if isinstance(event, Told))
        return any("WEB_AUTH" in text and "https://vpn.example.com/saml/login/" in text for text in told)

    assert await person.until(has_link), told
    assert person.light.failed is None
    for each in (*attackers, person):
        each.close()
