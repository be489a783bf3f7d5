"""Login, data plane and session stay of one mind, whatever fails on the way."""

from __future__ import annotations

import asyncio
import gc
import logging
import time

import pytest
from helpers import certs
from helpers.served import Client, wait_until

from cvpnd.dataplane.api import SocketAddress
from cvpnd.reasons import End, Refusal
from cvpnd.server import control as control_module
from cvpnd.server import session_events
from cvpnd.server.connection import Connection, Phase
from cvpnd.server.doorman import ControlDatagram
from cvpnd.server.link import TcpLink, UdpLink
from cvpnd.wire.packet import Transport, parse_packet
from cvpnd.wire.session import Session


def address(served, transport):
    return served.udp if transport is Transport.UDP else served.tcp


@pytest.fixture(params=[Transport.UDP, Transport.TCP])
def transport(request):
    return request.param


async def test_client_gets_in_and_gives_everything_back(served, transport):
    client = await Client(address(served, transport), transport).connect()
    assert (len(served.established), served.leases_used, served.control.table.handshakes) == (1, 1, 0)
    client.light.exit()
    if transport is Transport.TCP:
        client.close()  # which is all the goodbye there is
        assert await wait_until(lambda: len(served.ended) == 1)
    assert await client.until(lambda: len(served.ended) == 1)
    assert served.ended[0].end_reason is (End.CLIENT_EXIT if transport is Transport.UDP else End.TCP_CLOSED)
    assert served.leases_used == 0
    client.close()


async def test_what_was_counted_of_an_endpoint_that_is_gone_is_forgotten(served):
    client = await Client(served.udp).connect()
    client.light.exit()
    assert await client.until(lambda: len(served.ended) == 1)
    client.close()
    control, endpoint_id = served.control, served.ended[0].endpoint.id

    def counted() -> int:
        places = [value for each in (control.tally, control.tally.stages) for value in vars(each).values()]
        keys = [key for place in places if isinstance(place, dict) for key in place]
        return sum(endpoint_id in (key if isinstance(key, tuple) else (key,)) for key in keys)

    assert counted() >= 6
    control.tally.forget(endpoint_id)
    assert counted() == 0


async def test_nothing_of_a_client_that_is_gone_waits_for_the_garbage_collector(served, transport, monkeypatch):
    """Thousands of clients come and go between two of its looks, and their secrets would stay as long."""
    monkeypatch.setattr(control_module, "ABSORB_S", 0.05)

    def kept() -> list[str]:
        kinds = (Connection, Session, TcpLink)
        return [type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds)]

    gc.collect()
    gc.disable()
    try:
        others = kept()
        for _ in range(3):
            silent = Client(address(served, transport), transport)
            client = await Client(address(served, transport), transport).connect()
            silent.close()
            client.light.exit()
            client.step()
            client.close()
            assert await wait_until(lambda: len(served.ended) == 1)
            served.established.clear()
            served.ended.clear()
        assert await wait_until(lambda: not len(served.control.table), 15.0)
        assert kept() == others
    finally:
        gc.enable()


async def test_what_a_client_sent_together_is_acknowledged_together(served, monkeypatch):
    client = await Client(served.udp).connect()
    await client.until(lambda: False, 0.1)
    flight = []
    for text in ("one", "two", "three"):
        client.light.send_message(text)
        flight += client.light.packets_to_send(time.monotonic())
    source = SocketAddress(*client.socket.getsockname())
    waiting = [ControlDatagram(1, source, "127.0.0.1", packet) for packet in flight]
    monkeypatch.setattr(served.door, "fetch", lambda: waiting)
    served.control._control_packets()
    answers = []
    assert await wait_until(lambda: answers.extend(client._received()) or answers)
    (answer,) = map(parse_packet, answers)
    assert set(answer.acks) >= {parse_packet(packet).packet_id for packet in flight}
    client.close()


@pytest.mark.parametrize("verb", ["add_peer", "set_remote", "install_key", "attach_tcp"])
async def test_no_push_reply_leaves_when_the_data_plane_fails(served, transport, verb, caplog):
    if (verb, transport) in [("set_remote", Transport.TCP), ("attach_tcp", Transport.UDP)]:
        pytest.skip("not a verb of this transport")
    served.plane.broken.add(verb)
    client = Client(address(served, transport), transport)
    assert await client.until(lambda: len(served.ended) == 1)
    await client.until(lambda: False, 0.3)
    assert client.light.options == ()
    assert served.leases_used == 0
    assert served.control.tally.sessions[served.endpoint.id] == 0
    connection = served.ended[0]
    assert connection.phase is Phase.ENDED
    assert connection.peer_id is None
    assert connection.session.closed or not connection.session.established
    served.plane.broken.clear()
    again = await Client(address(served, transport), transport).connect()
    assert again.light.connected
    client.close()
    again.close()


async def test_failure_of_one_session_does_not_stop_the_clock_of_the_others(served, monkeypatch, caplog):
    """Two handshakes wait; the first one's timer raises. The second must still time out."""
    caplog.set_level(logging.CRITICAL, "cvpnd.server.control")
    object.__setattr__(served.settings, "hand_window_s", 1)
    clients = [Client(served.udp) for _ in range(2)]
    assert await clients[0].until(lambda: len(served.control.table) == 1)
    assert await clients[1].until(lambda: len(served.control.table) == 2)
    first, second = list(served.control.table)

    def broken(_now):
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(first.session), "handle_timeout", _for(first.session, broken))
    assert await wait_until(lambda: len(served.ended) == 2)
    assert first.end_reason is Refusal.INTERNAL_ERROR
    assert second.end_reason is Refusal.HANDSHAKE_TIMEOUT


@pytest.mark.parametrize("where", ["session", "link"])
@pytest.mark.parametrize("verb", ["halt", "restart"])
async def test_whoever_cannot_be_told_is_ended_as_decided_and_not_asked_back(served, monkeypatch, caplog, verb, where):
    caplog.set_level(logging.CRITICAL, "cvpnd.server.control")
    clients = [await Client(served.udp).connect() for _ in range(2)]
    first, second = served.established

    def break_for_first(owner, method, whose):
        words = getattr(owner, method)

        def say(self, *arguments, **options):
            if self is whose:
                raise RuntimeError("a bug")
            words(self, *arguments, **options)

        monkeypatch.setattr(owner, method, say)

    if where == "session":
        break_for_first(Session, verb, first.session)
    else:
        break_for_first(UdpLink, "send", first.link)
    for connection in (first, second):  # as whoever ends many does
        getattr(served.control, verb)(connection, End.TERMINATED, *(["Go"] if verb == "halt" else []))
    assert [each.end_reason for each in served.ended] == [End.TERMINATED] * 2
    assert served.control.tally.sessions[served.endpoint.id] == served.leases_used == 0
    assert await clients[1].until(lambda: clients[1].light.failed is not None)
    monkeypatch.undo()
    assert not await clients[0].until(lambda: clients[0].light.failed is not None, 1), "RESTART would ask it back"
    for client in clients:
        client.close()


async def test_words_that_are_on_their_way_reach_whoever_a_mistake_ends_meanwhile(
    served, transport, monkeypatch, caplog
):
    caplog.set_level(logging.CRITICAL, "cvpnd.server.control")
    client = await Client(address(served, transport), transport).connect()
    (connection,) = served.established

    def broken(*_arguments):
        raise OSError("a key cannot be removed")

    monkeypatch.setattr(served.plane, "remove_key", broken)
    served.control.halt(connection, End.TERMINATED, "Go")
    assert await client.until(lambda: client.light.failed is not None)
    assert client.light.failed == "HALT,Go"
    (ended,) = served.ended
    assert ended is connection and ended.end_reason is End.TERMINATED and served.leases_used == 0
    monkeypatch.undo()
    client.close()


def _for(session, replacement):
    original = type(session).handle_timeout

    def handle_timeout(self, now):
        return replacement(now) if self is session else original(self, now)

    return handle_timeout


def _revoke(served):
    served.write_crl(certs.client("stolen"))
    return Refusal.CERTIFICATE_REVOKED


def _take_the_authority_away(served):
    (served.directory / "ca.crt").write_bytes(certs.authority("Another CA").certificate_pem)
    (served.directory / "crl.pem").write_bytes(
        certs.crl_pem(certs.certificate_revocation_list(certs.authority("Another CA")))
    )
    return Refusal.CERTIFICATE_UNKNOWN_CA


@pytest.mark.parametrize("change", [_revoke, _take_the_authority_away])
async def test_certificate_that_loses_trust_during_the_handshake_does_not_get_in(served, change):
    """It was in order in the TLS handshake, and is not any more when the credentials come."""
    stolen = certs.client("stolen")
    client = Client(served.udp, certificate=stolen)
    held: list[bytes] = []
    light_send = client.send
    client.send = lambda packet: held.append(packet) if established() else light_send(packet)  # type: ignore[method-assign]

    def established() -> bool:
        return client.light._newest.tls.established

    assert await client.until(established)
    client.step()
    reason = change(served)
    served.keeper.reload()
    client.send = light_send  # type: ignore[method-assign]
    for packet in held:
        client.send(packet)
    assert await client.until(lambda: len(served.ended) == 1)
    assert not client.light.connected
    assert served.ended[0].end_reason is reason
    assert served.established == []
    client.close()


async def test_renegotiation_refused_ends_an_established_connection_for_good(served):
    client = await Client(served.udp).connect()
    connection = served.established[0]
    served.write_crl(certs.client())
    served.keeper.reload()
    connection.session.renegotiate(asyncio.get_running_loop().time())
    served.control.pump(connection, asyncio.get_running_loop().time())
    assert await client.until(lambda: len(served.ended) == 1)
    assert await client.until(lambda: client.light.failed is not None)
    assert not connection.session.established
    client.close()


async def test_a_later_key_is_judged_by_the_authorities_and_shown_the_certificate_of_now(served):
    """Each was another when the session began: one authority is no longer trusted, and the server has a new key."""
    other, mine = certs.authority("Another CA"), certs.authority()
    (served.directory / "ca.crt").write_bytes(mine.certificate_pem + other.certificate_pem)
    served.keeper.reload()
    stays = await Client(served.udp).connect()
    goes = await Client(served.udp, certificate=certs.client_of_another_authority()).connect()
    (served.directory / "ca.crt").write_bytes(mine.certificate_pem)
    certs.server("renewed.example.com").write(served.directory, "server")
    served.keeper.reload()
    now = asyncio.get_running_loop().time()
    for connection in served.established:
        connection.session.renegotiate(now)
        served.control.pump(connection, now)
    assert await goes.until(lambda: len(served.ended) == 1)
    assert served.ended == [served.established[1]]
    assert served.ended[0].end_reason is Refusal.CERTIFICATE_UNKNOWN_CA
    kept = served.established[0]
    assert await stays.until(lambda: kept.session._keys.primary.key_id == 1)
    shown = stays.light._newest.tls.peer_certificate()
    assert shown == certs.server("renewed.example.com").certificate
    stays.close()
    goes.close()


async def test_closed_session_absorbs_what_is_still_under_way(served, monkeypatch):
    monkeypatch.setattr(control_module, "ABSORB_S", 3.0)
    client = Client(served.udp, certificate=certs.client_of_another_authority())
    assert await client.until(lambda: len(served.ended) == 1)
    assert len(served.control.table) == 1
    await client.until(lambda: False, 2.2)  # beyond the first retransmission's deadline
    assert len(served.control.table) == 1, "forgotten at the wake-up of a timer that had been set before the end"
    assert await wait_until(lambda: len(served.control.table) == 0)
    client.close()


async def test_push_request_yields_nothing_until_login_has_ended_with_a_yes(served, transport, monkeypatch):
    """While login decides, and after it said no."""
    decided = asyncio.Event()
    waiting: list[object] = []

    async def slow_log_in(control, connection, credentials):
        waiting.append(connection)
        await decided.wait()
        control.refuse(connection, Refusal.CERTIFICATE_REVOKED)

    monkeypatch.setattr(session_events, "log_in", slow_log_in)
    monkeypatch.setattr(session_events, "takes_time", lambda _endpoint: True)
    client = Client(address(served, transport), transport)
    assert await client.until(lambda: bool(waiting))
    assert await client.until(lambda: client.light._newest.server is not None)
    for _ in range(3):
        client.light.send_message("PUSH_REQUEST")
        await client.until(lambda: False, 0.1)
    assert client.light.options == () and client.light.failed is None
    assert served.established == [] and served.leases_used == 0
    decided.set()
    assert await client.until(lambda: client.light.failed is not None)
    assert client.light.failed == "AUTH_FAILED"
    client.light.failed = None  # it does not take no for an answer
    for _ in range(3):
        client.light.send_message("PUSH_REQUEST")
        await client.until(lambda: False, 0.1)
    assert client.light.options == () and not client.light.connected
    assert served.established == [] and served.leases_used == 0
    client.close()


async def test_push_request_in_place_of_credentials_is_no_way_around_them(served, transport):
    client = Client(address(served, transport), transport)
    send = client.light._receive_tls

    def asks_at_once(key, data, now):
        """The first application data is not the key method 2 message but a text."""
        records = key.tls.receive(data)
        key.flush()
        if key.tls.established and not records:
            client.light.send_message("PUSH_REQUEST")

    client.light._receive_tls = asks_at_once  # type: ignore[method-assign]
    await client.until(lambda: len(served.ended) == 1, 1.0)
    client.light._receive_tls = send  # type: ignore[method-assign]
    await client.until(lambda: False, 0.2)
    assert client.light.options == ()
    assert served.established == [] and served.leases_used == 0
    client.close()


async def test_second_session_from_one_address_replaces_the_first_once_it_is_proven(served):
    first = await Client(served.udp).connect()
    before = served.established[0]
    second = Client(served.udp, certificate=certs.client())
    second.socket.close()
    second.socket = first.socket
    await second.until(lambda: False, 0.3)
    assert before.established, "its own session has been asked, and has not had the time to answer"
    assert await second.until(lambda: second.light.connected, 6)
    assert before.end_reason is End.CLIENT_RECONNECTED
    assert served.leases_used == 1
    assert served.established[1].grant.lease == before.grant.lease
    second.close()
