"""What one source, one network and one identity may have: real handshakes in a minute, failed logins, sessions."""

from __future__ import annotations

import asyncio
import logging

import pytest
from helpers import certs
from helpers.served import Client, Served, wait_until
from light_client.protocol import PEER_INFO_26

from cvpnd.config import StrangersConfig
from cvpnd.reasons import End, Refusal
from cvpnd.server import admission
from cvpnd.server import control as control_module
from cvpnd.server.admission import SourceLimits, prefixes
from cvpnd.wire.errors import DropReason
from cvpnd.wire.packet import Transport

BOTH = pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])


def client(served: Served, transport: Transport, source: str = "127.0.0.1", **options: object) -> Client:
    address = served.udp if transport is Transport.UDP else served.tcp
    return Client(address, transport, source=source, **options)  # type: ignore[arg-type]


async def refused(served: Served, reason: DropReason, one: Client) -> None:
    before = served.control.drops[reason]
    assert await one.until(lambda: served.control.drops[reason] > before)
    assert not one.light.connected
    one.close()


# -- in a minute --------------------------------------------------------------------------------------------


@BOTH
async def test_one_source_begins_so_many_handshakes_in_a_minute(serve, transport, caplog, monkeypatch):
    monkeypatch.setattr(admission, "_warn", admission.RateLimited(admission.log))
    served = serve(strangers=StrangersConfig(handshakes_per_source_per_min=3))
    clients = [await client(served, transport).connect() for _ in range(3)]
    for _ in range(2):
        await refused(served, DropReason.HANDSHAKE_RATE, client(served, transport))
    elsewhere = await client(served, transport, "127.0.0.2").connect()
    named = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(named) == 1 and named[0].startswith("handshake_rate: no new handshake with 127.0.0.1"), named
    for one in (*clients, elsewhere):
        one.close()


@BOTH
async def test_one_network_cannot_do_with_many_addresses_what_one_may_not(serve, transport):
    served = serve(strangers=StrangersConfig(handshakes_per_network_per_min=3))
    clients = [await client(served, transport, f"127.0.0.{n}").connect() for n in range(2, 5)]
    await refused(served, DropReason.HANDSHAKE_RATE, client(served, transport, "127.0.0.9"))
    clients.append(await client(served, transport, "127.0.1.9").connect())
    for one in clients:
        one.close()


@BOTH
@pytest.mark.parametrize("limit", ["source", "network"])
async def test_wrong_certificates_are_tried_so_often_in_a_minute(serve, transport, limit):
    """Two milliseconds of a core each."""
    served = serve(strangers=StrangersConfig(**{f"failed_logins_per_{limit}_per_min": 2}))
    for _ in range(2):
        before = served.control.tally.refusals.total()
        wrong = client(served, transport, certificate=certs.client_of_another_authority())
        assert await wrong.until(lambda before=before: served.control.tally.refusals.total() > before)
        wrong.close()
    same_network = "127.0.0.1" if limit == "source" else "127.0.0.7"
    await refused(served, DropReason.FAILED_LOGINS, client(served, transport, same_network))
    elsewhere = await client(served, transport, "127.0.1.1").connect()
    elsewhere.close()


async def test_logins_that_succeed_or_merely_end_are_not_failures(serve, monkeypatch):
    monkeypatch.setattr(control_module, "ABSORB_S", 0.1)
    served = serve(strangers=StrangersConfig(failed_logins_per_source_per_min=1))
    for _ in range(3):
        one = await client(served, Transport.TCP).connect()
        left = client(served, Transport.TCP)
        before = served.control.tally.refusals.total()
        assert await left.until(lambda: served.control.table.handshakes > 0)
        left.close()
        assert await one.until(lambda before=before: served.control.tally.refusals.total() > before)
        assert await wait_until(lambda: served.control.table.handshakes == 0, 8)
        one.close()
    assert served.control.tally.refusals == {(served.endpoint.id, Refusal.HANDSHAKE_ABANDONED): 3}


def test_who_has_nothing_left_goes_on_at_nobody_elses_cost():
    sources = SourceLimits(StrangersConfig(failed_logins_per_source_per_min=4, failed_logins_per_network_per_min=40))
    for _ in range(600):
        sources.failed("192.0.2.1", 0.0)
    assert sources.has_failed_too_often("192.0.2.1", 0.0)
    assert not sources.has_failed_too_often("192.0.2.2", 0.0)


def test_what_was_used_up_comes_back_evenly():
    sources = SourceLimits(StrangersConfig(handshakes_per_source_per_min=60))
    for _ in range(60):
        assert sources.may_try("192.0.2.7", 0.0) is None
        sources.begins("192.0.2.7", 0.0)
    assert sources.may_try("192.0.2.7", 0.9) is DropReason.HANDSHAKE_RATE
    assert sources.may_try("192.0.2.7", 1.1) is None
    sources.begins("192.0.2.7", 1.1)
    assert sources.may_try("192.0.2.7", 1.2) is DropReason.HANDSHAKE_RATE
    sources.set_limits(StrangersConfig(handshakes_per_source_per_min=60))
    assert sources.may_try("192.0.2.7", 1.2) is DropReason.HANDSHAKE_RATE, "not forgiven"
    sources.set_limits(StrangersConfig(handshakes_per_source_per_min=61))
    assert sources.may_try("192.0.2.7", 1.2) is None


@pytest.mark.parametrize(
    ("host", "near", "far"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2::7", "20010db800010002/64", "20010db80001/48"),
        ("fe80::1", "fe80000000000000/64", "fe8000000000/48"),
    ],
)
def test_prefixes(host, near, far):
    assert prefixes(host) == (near, far)


def test_neighbours_share_a_prefix_and_others_do_not():
    assert prefixes("2001:db8:1:2::7") == prefixes("2001:db8:1:2:ffff::9")
    assert prefixes("2001:db8:1:2::7")[1] == prefixes("2001:db8:1:3::7")[1]
    assert prefixes("2001:db8:1:2::7")[1] != prefixes("2001:db8:2:2::7")[1]
    assert prefixes("192.0.2.7")[1] == prefixes("192.0.2.250")[1] != prefixes("192.0.3.7")[1]


def test_memory_of_sources_is_bounded_and_forgets_the_quietest(monkeypatch):
    monkeypatch.setattr(admission, "PREFIXES_KEPT", 64)
    sources = SourceLimits(StrangersConfig(handshakes_per_source_per_min=1))
    sources.begins("192.0.2.7", 0.0)
    for number in range(1000):
        sources.begins(f"2001:db8:{number:x}::1", 0.0)
        assert sources.may_try("192.0.2.7", 0.0) is DropReason.HANDSHAKE_RATE
    assert len(sources._handshakes._buckets) <= 64 and len(sources._failures._buckets) <= 64


def test_who_only_asks_costs_no_memory():
    sources = SourceLimits(StrangersConfig())
    assert sources.may_try("192.0.2.7", 0.0) is None and not sources.has_failed_too_often("192.0.2.7", 0.0)
    assert not sources._handshakes._buckets and not sources._failures._buckets


# -- of one identity ----------------------------------------------------------------------------------------


async def test_one_identity_has_so_many_sessions_and_the_next_is_refused(serve):
    served = serve(sessions_per_identity=2)
    first = [await client(served, Transport.UDP).connect() for _ in range(2)]
    third = client(served, Transport.UDP)
    assert await third.until(lambda: third.light.failed is not None)
    assert "AUTH_FAILED" in third.light.failed and not third.light.options
    assert served.control.tally.refusals == {(served.endpoint.id, Refusal.IDENTITY_SESSION_LIMIT): 1}
    bob = await client(served, Transport.UDP, certificate=certs.client("bob")).connect()
    first[0].light.exit()
    assert await first[0].until(lambda: len(served.ended) == 2)
    again = await client(served, Transport.UDP).connect()
    assert served.leases_used == 3
    for one in (*first, third, bob, again):
        one.close()


async def test_one_identity_is_one_however_its_name_is_spelled(serve):
    """As an identity provider may write it today and tomorrow, and certificates of two authorities."""
    served = serve(sessions_per_identity=2)
    spelled = [certs.client(name) for name in ("Zo\u00eb", "ZO\u00cb", "zoe\u0308")]
    first = [await client(served, Transport.UDP, certificate=each).connect() for each in spelled[:2]]
    third = client(served, Transport.UDP, certificate=spelled[2])
    assert await third.until(lambda: third.light.failed is not None)
    assert served.control.tally.refusals == {(served.endpoint.id, Refusal.IDENTITY_SESSION_LIMIT): 1}
    other = await client(served, Transport.UDP, certificate=certs.client("Zoe")).connect()
    for one in (*first, third, other):
        one.close()


async def test_or_the_oldest_goes_and_is_told_to_stay_away(serve):
    served = serve(sessions_per_identity=2, too_many_of_identity="replace-oldest")
    first, second = [await client(served, Transport.UDP).connect() for _ in range(2)]
    third = await client(served, Transport.UDP).connect()
    assert await first.until(lambda: first.light.failed is not None)
    assert first.light.failed.startswith("HALT")
    assert served.control.tally.ends == {(served.endpoint.id, End.IDENTITY_SESSION_LIMIT): 1}
    assert served.ended == [served.established[0]]
    await asyncio.sleep(0)
    assert second.light.failed is None and len(served.control.table.sessions_of(1, "alice")) == 2
    for one in (first, second, third):
        one.close()


async def test_a_client_that_comes_back_takes_its_own_place_and_nobody_elses(serve):
    """A session that this one replaces anyway does not count."""
    served = serve(sessions_per_identity=1)
    laptop = PEER_INFO_26 | {"IV_HWADDR": "02:00:00:00:00:01"}
    first = await client(served, Transport.UDP, peer_info=laptop).connect()
    second = await client(served, Transport.UDP, peer_info=laptop).connect()
    assert served.control.tally.ends == {(served.endpoint.id, End.CLIENT_RECONNECTED): 1}
    for one in (first, second):
        one.close()
