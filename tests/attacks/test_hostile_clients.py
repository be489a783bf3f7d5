"""What somebody does who has a certificate, or at least a cookie, and means ill: makes us answer, repeat, remember and
compute for little of his own. Each test names the class of attack."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from collections import Counter

import pytest
from helpers.dear_certificates import usual_key
from helpers.pair import Pair, client_context, pki, tls_context
from helpers.served import Client, Served, wait_until
from key_updates import CountedTls, KeyLog, KeyUpdates
from light_client.data_channel import PING
from light_client.protocol import PEER_INFO_26, LightClient
from OpenSSL import SSL

from cvpnd.dataplane.api import FloatSeen, SocketAddress
from cvpnd.reasons import End, Refusal
from cvpnd.server import link as link_module
from cvpnd.server import listener as listener_module
from cvpnd.server.link import TcpLink
from cvpnd.server.plane_events import plane_told
from cvpnd.wire.errors import DropReason
from cvpnd.wire.events import CredentialsReceived, MessageReceived, RenegotiationStarted, SessionClosed
from cvpnd.wire.messages import PUSH_REQUEST, serialise_message
from cvpnd.wire.packet import ControlPacket, Opcode, Transport, serialise_packet
from cvpnd.wire.session import Session
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.stream import frame


def session_of(pair: Pair) -> Session:
    assert pair.session is not None
    return pair.session


# -- memory -------------------------------------------------------------------------------------------------


def test_answers_do_not_pile_up_for_who_acknowledges_nothing() -> None:
    """Memory exhaustion: TLS answers each key update and we each PUSH_REQUEST, and all of it waits for acknowledgements
    that never come."""
    settings = SessionSettings(push_repeat_s=0.0, max_backlog_bytes=64 * 1024)
    pair = Pair(settings=settings, push=[f"route 10.{n}.0.0 255.255.0.0" for n in range(100)])
    pair.connect()
    pair.run(seconds=1.0)
    session, key = session_of(pair), pair.client._newest
    session.packets_to_send(pair.now)
    packet_id = key.reliable._next_id
    most = 0
    for number in range(2000):
        key.tls.send(serialise_message(PUSH_REQUEST))
        said = ControlPacket(
            Opcode.CONTROL_V1, 0, pair.client.session_id, packet_id=packet_id + number, payload=key.tls.output()
        )
        session.receive_packet(serialise_packet(said), pair.now)
        session.packets_to_send(pair.now)
        if session.closed:
            break
        most = max(most, session._channel.backlog_bytes())
    assert 32 * 1024 < most < 72 * 1024
    assert session.closed and session.drops[DropReason.UNACKNOWLEDGED] == 1
    ended = [event for event in iter(session.next_event, None) if isinstance(event, SessionClosed)]
    assert [event.reason for event in ended] == [End.PROTOCOL_VIOLATION]


class Updating:
    """A connected client that asks TLS for new keys, again and again."""

    def __init__(self) -> None:
        context = tls_context(pki().client, server=False, version=SSL.TLS1_3_VERSION)
        log = KeyLog(context)
        self.pair = Pair(LightClient(context, 0.0))
        key = self.pair.client._newest
        tls = key.tls
        key.tls = CountedTls(tls)  # type: ignore[assignment]
        self.pair.connect()
        self.pair.run(seconds=1.0)
        self._updates = KeyUpdates(log.take(tls._connection), tls.cipher, key.tls.records)  # type: ignore[attr-defined]

    def packet(self, number: int = 40) -> bytes:
        return b"".join(self._updates.record() for _ in range(number))


def test_a_storm_of_key_updates_ends_the_session() -> None:
    """Forty fit into a packet, TLS has no limit on them, and each costs new keys."""
    updating = Updating()
    pair, session = updating.pair, session_of(updating.pair)
    pair.client._newest.reliable.queue_payload(Opcode.CONTROL_V1, updating.packet())
    pair.run(seconds=1.0)
    assert not session.closed and session.established, "some are nobody's harm"
    pair.client._newest.reliable.queue_payload(Opcode.CONTROL_V1, updating.packet())
    pair.run(seconds=1.0)
    assert session.closed and session.drops[DropReason.TLS_FAILURE] == 1
    assert [event.reason for event in pair.of_server(SessionClosed)] == [End.PROTOCOL_VIOLATION]


def test_text_in_records_of_its_own_is_no_storm() -> None:
    pair = Pair()
    pair.connect()
    for _ in range(100):  # each record ends in the second packet
        pair.client._newest.tls.send(2 * serialise_message("x" * 1000))
        pair.client._newest.flush()
        pair.run(seconds=0.2)
    assert not session_of(pair).closed and len(pair.of_server(MessageReceived)) == 200


def test_whoever_acknowledges_may_ask_for_ever() -> None:
    pair = Pair(settings=SessionSettings(push_repeat_s=0.0, max_backlog_bytes=16 * 1024))
    pair.connect()
    for _ in range(200):
        pair.client._newest.tls.send(serialise_message(PUSH_REQUEST))
        pair.client._newest.flush()
        pair.run(seconds=0.2)
    assert not session_of(pair).closed and len(pair.to_client) > 200


# -- traffic ------------------------------------------------------------------------------------------------


def in_flight(session: Session) -> list[int]:
    """Packets of the first key."""
    ((_, _, _, sent, *_),) = session._channel.inspect()[2]
    return [packet_id for packet_id, _, _ in sent]


@pytest.mark.parametrize("acknowledged", [1, 2, 3])
def test_repeated_acknowledgements_do_not_multiply_traffic(acknowledged: int) -> None:
    """Amplification behind the cookie: three acknowledgements of later packets mean that one was lost, and eight of
    them fit into 50 bytes that anybody on the path can say again."""
    pair = Pair()
    session: Session | None = None
    while session is None or not session._keys.pending or len(in_flight(session)) < 2:
        pair.run(lambda pair: bool(pair.session and in_flight(pair.session)), seconds=5)
        session = session_of(pair)
        if session._keys.pending is None:
            pytest.fail("the server's flight was never under way")
    lowest = in_flight(session)[0]
    ack = ControlPacket(
        Opcode.ACK_V1, 0, pair.client.session_id, (lowest + acknowledged,) * 8, session.local_session_id
    )
    session.packets_to_send(pair.now)
    answers = 0
    for _ in range(100):
        session.receive_packet(serialise_packet(ack), pair.now)
        answers += len(session.packets_to_send(pair.now))
    assert answers <= 1
    pair.connect()


# -- work ---------------------------------------------------------------------------------------------------


class Bytewise:
    """A TLS connection that writes each byte before the peer info as a record of its own. (A message that ends a record
    right behind the password has none.)"""

    def __init__(self, tls: object) -> None:
        self._tls = tls

    def __getattr__(self, name: str) -> object:
        return getattr(self._tls, name)

    def send(self, plaintext: bytes) -> None:
        single = plaintext.find(b"IV_") - 3
        for at in range(max(0, single)):
            self._tls.send(plaintext[at : at + 1])  # type: ignore[attr-defined]
        self._tls.send(plaintext[max(0, single) :])  # type: ignore[attr-defined]


@pytest.mark.parametrize("username", ["", "u" * 900])
def test_a_key_message_in_records_of_one_byte_is_read(username: str) -> None:
    """Work that grows with the square of what came: each byte of the message is a TLS record."""
    pair = Pair(LightClient(client_context(), 0.0, username=username, password="p"))
    pair.client._newest.tls = Bytewise(pair.client._newest.tls)  # type: ignore[assignment]
    pair.connect()
    assert [event.username for event in pair.of_server(CredentialsReceived)] == [username]


def test_a_peer_info_of_64_kilobytes_ends_the_handshake() -> None:
    pair = Pair(LightClient(client_context(), 0.0, peer_info={f"UV_{n}": "x" * 500 for n in range(120)}))
    assert pair.run(lambda pair: bool(pair.of_server(SessionClosed)), seconds=30)
    assert pair.of_server(SessionClosed)[0].reason is Refusal.PROTOCOL_VIOLATION
    assert not pair.of_server(CredentialsReceived)


@pytest.mark.parametrize(
    ("beside", "size", "reason"),
    [
        (16, 950, None),
        (16, 1250, Refusal.CERTIFICATE_INVALID),
        (17, 300, Refusal.CERTIFICATE_INVALID),
        (100, 300, Refusal.CERTIFICATE_INVALID),
        (16, 3000, Refusal.TLS_FAILURE),
    ],
)
def test_a_chain_of_many_or_long_certificates_ends_the_handshake(
    beside: int, size: int, reason: Refusal | None
) -> None:
    """Work for nothing: OpenSSL decodes each certificate before it asks who has signed it. The longest real chains have
    20 kB."""
    context = tls_context(pki().client, server=False)
    for _ in range(beside):
        context.add_extra_chain_cert(usual_key(size))
    pair = Pair(LightClient(context, 0.0))
    pair.run(lambda pair: pair.client.connected or bool(pair.of_server(SessionClosed)), seconds=30)
    assert pair.client.connected is (reason is None)
    if reason is not None:
        (closed,) = pair.of_server(SessionClosed)
        assert closed.reason is reason and session_of(pair).drops[DropReason.TLS_FAILURE]
        assert session_of(pair).verdict.certificate is None, "none was looked at"


def test_a_storm_of_soft_resets_costs_a_handshake_now_and_then() -> None:
    """Renegotiation storms: each reset of an authentic client costs us a TLS handshake."""
    pair = Pair(
        LightClient(client_context(), 0.0, peer_info=PEER_INFO_26 | {"IV_PROTO": "478"})
    )  # no dynamic tls-crypt
    pair.connect()
    pair.run(seconds=1.0)
    session, begun = session_of(pair), pair.now
    for number in range(3000):
        reset = ControlPacket(Opcode.SOFT_RESET_V1, 1 + number % 7, pair.client.session_id, packet_id=0)
        session.receive_packet(serialise_packet(reset), pair.now)
        session.handle_timeout(pair.now)
        for event in iter(session.next_event, None):
            pair.server_events.append(event)
        session.packets_to_send(pair.now)
        pair.now += 0.01
    assert pair.now - begun > 29
    assert 1 <= len(pair.of_server(RenegotiationStarted)) <= 7, session.drops
    assert not session.closed and session.established


async def test_keys_that_look_used_up_cost_a_handshake_now_and_then(served: Served) -> None:
    """Renegotiation storms that we begin ourselves: packet ids are the client's, and with one near the end each key
    asks for the next."""
    client = await Client(served.udp).connect()
    (connection,) = served.control.table
    light, used_up = client.light, dict[int, float]()

    def use_up() -> bool:
        if (key_id := light.sending_key_id) not in used_up:
            used_up[key_id] = time.monotonic()
            light._sending.skip_to(0xFFFFFF00)
            light.send_tunnel_packet(PING)
        return len(used_up) > 1 and time.monotonic() > max(used_up.values()) + 1

    assert await client.until(use_up)
    keys = served.control.tally.renegotiations[connection.endpoint.id]
    assert keys == 1 and len(used_up) == 2, "the first one may be honest"
    due = max(used_up.values()) + SessionSettings().soft_reset_interval_s
    assert connection.session.established and connection.session.next_timeout() < due, "it gets the next one then"
    client.close()


async def test_a_client_that_moves_to_and_fro_fills_no_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Disk exhaustion: two sockets, a packet from each in turn, and the client has moved five times a second."""
    caplog.set_level(logging.INFO)
    client = await Client(served.udp).connect()
    (connection,) = served.control.table
    assert connection.peer_id is not None
    places = [SocketAddress("127.0.0.1", 9), connection.link.remote]
    for number in range(50):
        seen = FloatSeen(connection.peer_id, served.udp_listener.index, places[number % 2], "127.0.0.1")
        plane_told(served.control, connection, seen, time.monotonic())
        assert connection.link.remote == places[number % 2], "it moves, whatever the log says"
    assert sum(" moved from " in message for message in caplog.messages) == 5
    client.close()


# -- turns --------------------------------------------------------------------------------------------------


async def test_tiny_frames_leave_the_others_their_turn(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starvation of the event loop: one read holds hundreds of the smallest frames."""
    most, since_tick, ticking = 0, 0, True
    packet_received = served.control.packet_received

    def counted(connection: object, packet: bytes) -> None:
        nonlocal most, since_tick
        since_tick += 1
        most = max(most, since_tick)
        packet_received(connection, packet)  # type: ignore[arg-type]

    async def tick() -> None:
        nonlocal since_tick
        while ticking:
            since_tick = 0
            await asyncio.sleep(0)

    monkeypatch.setattr(served.control, "packet_received", counted)
    ticks = asyncio.create_task(tick())
    with socket.create_connection(served.tcp) as hostile:
        client_id = b"hostile!"
        hostile.send(frame(serialise_packet(ControlPacket(Opcode.HARD_RESET_CLIENT_V2, 0, client_id, packet_id=0))))
        assert await wait_until(lambda: len(served.control.table) == 1)
        (connection,) = served.control.table
        ack = ControlPacket(Opcode.ACK_V1, 0, client_id, (0,), connection.session.local_session_id)
        hostile.send(frame(serialise_packet(ack)) * 400)
        genuine = await Client(served.tcp, Transport.TCP).connect()
        assert await wait_until(lambda: connection.session._before_login._packets == 401), "none of them is lost"
        genuine.close()
    ticking = False
    await ticks
    assert most <= 4 * link_module.FRAMES_PER_WAKE_UP


async def test_tiny_frames_are_forgotten_with_their_connection(served: Served) -> None:
    """Memory exhaustion: the session outlives its end, with all that was read and not looked at."""
    with socket.create_connection(served.tcp) as hostile:
        reset = ControlPacket(Opcode.HARD_RESET_CLIENT_V2, 0, b"hostile!", packet_id=0)
        hostile.send(frame(serialise_packet(reset)) + frame(b"\x28") * 5000)
        assert await wait_until(lambda: bool(served.ended))
    (connection,) = served.ended
    assert isinstance(connection.link, TcpLink) and not connection.link._read


async def test_silent_connections_leave_the_last_files_to_others(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File descriptor exhaustion: who says nothing makes room, also for who connects and speaks."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(listener_module, "FILES_KEPT_FREE", soft - 60)
    silent: list[socket.socket] = []
    try:
        for _ in range(60):
            silent.append(socket.create_connection(served.tcp))
            await asyncio.sleep(0)
        assert await wait_until(lambda: served.control.drops[DropReason.TCP_SILENT] > 10)
        client = await Client(served.tcp, Transport.TCP).connect()
        client.close()
        sockets = [link._socket for link in served.tcp_listener._waiting]
        assert sockets and all(sock is not None and sock.fileno() < 60 for sock in sockets)
    finally:
        for each in silent:
            each.close()


async def test_frames_that_wait_for_their_turn_go_to_the_worker() -> None:
    """The turn ends in the middle of what was read, and in that middle is the hand-over."""
    taken: list[bytes] = []

    class Plane:
        def attach_tcp(self, peer_id: int, fd: int, received: bytes) -> None:
            socket.socket(fileno=fd).close()
            taken.append(received)

    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as far:
        near, address = listening.accept()
        near.setblocking(False)
        link = TcpLink(near, SocketAddress(*address), Counter())
        got: list[bytes] = []

        def on_packet(packet: bytes) -> None:
            got.append(packet)
            if len(got) == 20:
                link.hand_over(Plane(), 1)  # type: ignore[arg-type]

        link.serve(on_packet, lambda detail: None)
        packets = [b"packet %d" % number for number in range(100)]
        far.send(b"".join(map(frame, packets)) + b"\x00\x40half a frame")
        assert await wait_until(lambda: bool(taken))
        assert got == packets[:20]
        assert taken == [b"".join(map(frame, packets[20:])) + b"\x00\x40half a frame"]


# -- mistakes of ours ---------------------------------------------------------------------------------------


async def test_a_packet_that_finds_a_mistake_of_ours_takes_no_other_with_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Denial of service by one poisonous packet: the loop's callback handles those of many clients."""
    check_echo, poison = listener_module.stateless.check_echo, b"poison!!"

    def faulty(packet: bytes, *arguments: object) -> object:
        if packet[1:9] == poison:
            raise ZeroDivisionError
        return check_echo(packet, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(listener_module.stateless, "check_echo", faulty)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(served.udp)
        stranger.setblocking(False)
        for number in range(3):
            stranger.send(b"\x38" + poison + bytes(5))
            reply = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stranger, 2048), 2)
            stranger.send(b"\x20" + poison + b"\x01" + bytes(4) + reply[1:9] + b"\x00\x00\x00\x01hello")
            assert await wait_until(lambda number=number: served.control.drops[DropReason.INTERNAL_ERROR] == number + 1)
        client = await Client(served.udp).connect()
        client.close()
    assert len(served.control.table) == 1


async def test_the_same_over_tcp(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> object:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(listener_module.stateless, "open_stream", faulty)
        with socket.create_connection(served.tcp) as stranger:
            stranger.send(frame(b"\x38" + b"poison!!" + bytes(5)))
            assert await wait_until(lambda: served.control.drops[DropReason.INTERNAL_ERROR] == 1)
            stranger.setblocking(False)
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stranger, 1), 2) == b"", "it is closed"
    assert served.control.table.handshakes_from("127.0.0.1") == 0
    client = await Client(served.tcp, Transport.TCP).connect()
    client.close()
