"""Whole recorded conversations, sent again by whoever listened: from where they came and from elsewhere, while the
client is there, after it has gone, and after the gateway has started anew. And session ids that are somebody else's."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from pathlib import Path

import pytest
from helpers.served import Client, Served, wait_until
from helpers.wrappings import CASES, Case

from cvpnd.reasons import End
from cvpnd.server.connection import Connection, Phase
from cvpnd.server.doorman import Doorman
from cvpnd.wire.errors import DropReason
from cvpnd.wire.packet import Opcode

WRAPPINGS = ["plain", "tls-auth 0 SHA1", "tls-crypt", "tls-crypt-v2"]


class Recorded(Client):
    """Everything that it says is written down."""

    def send(self, packet: bytes) -> None:
        self.said = [*getattr(self, "said", []), packet]
        super().send(packet)


def under(served: Served, name: str) -> Case:
    case = CASES[name]
    served.endpoint.protection = case.protection
    served.udp_listener.protection_changed()
    return case


async def recorded(served: Served, case: Case, early: bool) -> tuple[Recorded, Connection]:
    """A client with two keys, who said all that there is to say."""
    client = Recorded(served.udp, wrapping=case.client, early_negotiation=early)
    await client.connect()
    (connection,) = served.established
    client.light.renegotiate(time.monotonic())
    assert await client.until(lambda: client.light.key_id == 1 and not client.light._negotiating)
    return client, connection


async def still_serves(client: Client, connection: Connection) -> None:
    """Data and a new key."""
    assert connection.phase is Phase.ESTABLISHED and connection.session.established
    before = client.light.key_id
    connection.session._keys._soft_reset_at = None  # a while later
    client.light.renegotiate(time.monotonic())
    assert await client.until(lambda: client.light.key_id != before and not client.light._negotiating)


async def answers_to(sock: Client, packets: list[bytes]) -> list[int]:
    """How many bytes come back."""
    for packet in packets:
        sock.socket.send(packet)
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    return [len(packet) for packet in sock._received()]


@pytest.mark.parametrize("early", [True, False], ids=["2.6", "2.5"])
@pytest.mark.parametrize("name", WRAPPINGS)
async def test_a_conversation_that_is_sent_again_changes_nothing(served: Served, name: str, early: bool) -> None:
    client, connection = await recorded(served, under(served, name), early)
    said = list(client.said)
    keys = connection.session._keys
    generation = client.light.key_id
    rng = random.Random(name)
    for times in range(3):
        packets = said if times == 0 else rng.sample(said, len(said))
        await answers_to(client, packets)
        elsewhere = Client(served.udp, source="127.3.0.1")
        heard = await answers_to(elsewhere, packets)
        resets = sum(packet[0] >> 3 in (Opcode.HARD_RESET_CLIENT_V2, Opcode.HARD_RESET_CLIENT_V3) for packet in packets)
        assert len(heard) <= resets, "an answer to each reset, and to nothing else"
        elsewhere.close()
    assert connection.session._keys is keys and client.light.key_id == generation
    assert [one for one in served.established if one.phase is Phase.ESTABLISHED] == [connection]
    assert served.leases_used == 1
    await still_serves(client, connection)
    client.close()


@pytest.mark.parametrize("early", [True, False], ids=["2.6", "2.5"])
@pytest.mark.parametrize("name", WRAPPINGS)
async def test_nor_does_it_let_anybody_in_after_the_client_has_left_or_the_gateway_was_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, early: bool
) -> None:
    monkeypatch.setattr("helpers.served.Doorman", lambda _secret, limits: Doorman(secrets.token_bytes(32), limits))
    before, after = Served(tmp_path), Served(tmp_path)
    case = under(before, name)
    under(after, name)
    client, connection = await recorded(before, case, early)
    said = list(client.said)
    before.control.close(connection, End.CLIENT_EXIT)
    await answers_to(client, said)
    before.control._forget(connection)
    await answers_to(client, said)
    client.socket.connect(after.udp)  # from the same address and port
    await answers_to(client, said)
    await answers_to(client, said[1:])
    assert before.established == [connection] and not after.established
    assert before.leases_used == after.leases_used == 0
    if early:
        assert not list(after.control.table), "it gives out other cookies"
    client.close()
    for served in (before, after):
        served.close()
        assert served.errors == []


def with_id(served: Served, case: Case, session_id: bytes, source: str) -> Client:
    """The first random bytes that a client takes are its session id."""
    chosen = iter([session_id])

    def random_bytes(size: int) -> bytes:
        return next(chosen, None) or secrets.token_bytes(size)

    return Client(served.udp, source=source, wrapping=case.client, random=random_bytes)


@pytest.mark.parametrize("whose", ["its client's", "its gateway's"])
@pytest.mark.parametrize("name", WRAPPINGS)
async def test_who_takes_the_session_id_of_another_has_a_session_beside_it(
    served: Served, name: str, whose: str
) -> None:
    """At an address of its own, with its own keys."""
    case = under(served, name)
    client, connection = await recorded(served, case, True)
    session = connection.session
    taken = session.remote_session_id if whose == "its client's" else session.local_session_id
    other = with_id(served, case, taken, "127.3.0.1")
    await other.connect()
    assert len(served.established) == 2 and served.leases_used == 2
    await still_serves(client, connection)
    for each in (client, other):
        each.close()


@pytest.mark.parametrize("name", WRAPPINGS)
async def test_a_session_id_of_zero_is_none(served: Served, name: str) -> None:
    case = under(served, name)
    nobody = with_id(served, case, bytes(8), "127.0.0.1")
    assert not await nobody.until(lambda: bool(list(served.control.table)), 0.3)
    assert await wait_until(lambda: served.control.all_drops()[DropReason.BAD_SESSION_ID] > 0)
    nobody.close()
