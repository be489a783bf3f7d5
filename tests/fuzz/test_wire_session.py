"""Mutated, shuffled and invented packets: a ``Session`` and a light client survive them all without an exception."""

from __future__ import annotations

import pytest
from helpers import wire_vectors as v
from helpers.pair import CLIENT_ADDRESS, Pair, client_context, server_context
from helpers.wire_vectors import V16
from helpers.wrappings import CASES, NAMES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from light_client.protocol import PEER_INFO_26, LightClient

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.events import KeysReady, SessionClosed
from cvpnd.wire.key_method import parse_key_message
from cvpnd.wire.packet import ControlPacket, Opcode, parse_packet, serialise_packet
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.session import Session
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.stateless import Established, answer_reset, check_echo, open_stream
from cvpnd.wire.stream import FrameReader
from cvpnd.wire.wrap.tls_crypt_v2 import TlsCryptV2Client
from cvpnd.wire.wrap.wrapping import ReplayId

COOKIE = ResetCookie(b"c" * 32)
V4_ECHO = TlsCryptV2Client(v.V3_KC, v.V3_WKC).seal(
    ControlPacket(Opcode.CONTROL_WKC_V1, 0, b"client-1", (0,), b"a guess!", 1, b"hello"), ReplayId(0x0F000002, 1)
)
SHORT = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def mutated(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """A real packet with bytes changed, cut out or put in."""
    packet = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(packet)))
        match draw(st.integers(0, 2)):
            case 0 if at < len(packet):
                packet[at] = draw(st.integers(0, 255))
            case 1:
                del packet[at : at + draw(st.integers(1, 8))]
            case _:
                packet[at:at] = draw(st.binary(max_size=12))
    return bytes(packet)


@SHORT
@given(mutated(V16))
def test_mutated_packet_parses_or_is_refused(packet: bytes) -> None:
    try:
        parsed = parse_packet(packet)
    except PeerError:
        return
    if parsed.opcode is not Opcode.ACK_V1:  # bytes behind a bare ACK are ignored
        assert serialise_packet(parsed) == packet


@SHORT
@given(mutated(V16))
def test_stranger_gets_at_most_twelve_bytes_more_and_never_a_session(packet: bytes) -> None:
    reply = answer_reset(packet, CLIENT_ADDRESS, 0.0, COOKIE)
    assert isinstance(reply, DropReason) or len(reply) <= len(packet) + 12
    assert not isinstance(check_echo(packet, CLIENT_ADDRESS, 0.0, COOKIE), Established)


@SHORT
@given(mutated((v.V1_PACKET, v.V4_RESET_CLIENT_INNER + v.V3_WKC, V4_ECHO)), st.sampled_from(NAMES))
def test_nothing_but_the_real_packet_passes_a_wrapping(packet: bytes, name: str) -> None:
    """V-1 and V-4 mutated, against protections of which only some know their keys."""
    protection = CASES[name].protection
    for outcome in (
        answer_reset(packet, CLIENT_ADDRESS, 0.0, COOKIE, protection),
        check_echo(packet, CLIENT_ADDRESS, 0.0, COOKIE, protection),
        open_stream(packet, protection),
    ):
        genuine = packet == v.V4_RESET_CLIENT_INNER + v.V3_WKC and "v2" in name
        assert isinstance(outcome, DropReason) or genuine or name == "plain"


@SHORT
@given(st.lists(st.binary(max_size=80), max_size=10))
def test_random_stream_is_cut_or_refused(chunks: list[bytes]) -> None:
    reader = FrameReader()
    try:
        for chunk in chunks:
            assert all(reader.feed(chunk))
    except PeerError as error:
        assert error.reason is DropReason.BAD_FRAME


@SHORT
@given(st.binary(max_size=400), st.booleans())
def test_random_key_message_parses_or_waits_or_is_refused(data: bytes, well_begun: bool) -> None:
    raw = b"\0\0\0\0\x02" + bytes(112) + data if well_begun else data
    try:
        parse_key_message(raw, from_client=True)
    except PeerError as error:
        assert error.fatal


@pytest.fixture(scope="module")
def conversation() -> tuple[bytes, ...]:
    """What a client sends in a handshake and a renegotiation."""
    pair = Pair()
    pair.connect()
    pair.client.renegotiate(pair.now)
    pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2)
    return tuple(pair.to_server)


@SHORT
@given(data=st.data())
def test_session_survives_any_packets(data: st.DataObject, conversation: tuple[bytes, ...]) -> None:
    """Mutations of a real conversation, readdressed to this session, in any order and with time passing."""
    session = Session(
        SessionSettings(),
        0.0,
        ssl_context=server_context,
        remote_session_id=conversation[0][1:9],
        local_session_id=b"\x02" * 8,
        cookie_echoed=data.draw(st.booleans()),
    )
    now = 0.0
    for _ in range(data.draw(st.integers(1, 12))):
        session.receive_packet(data.draw(mutated(conversation)), now)
        session.packets_to_send(now)
        now += data.draw(st.floats(0, 30))
        session.handle_timeout(now)
        timeout = session.next_timeout()
        assert timeout is None or timeout >= 0
    while (event := session.next_event()) is not None:
        assert not isinstance(event, KeysReady), "nobody has logged in"
        if isinstance(event, SessionClosed):
            assert session.closed


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_established_session_survives_any_mixture(data: st.DataObject) -> None:
    """Resets, soft resets, renegotiations, text, time, and packets that somebody invents with the right session id."""
    without_dynamic_tls_crypt = PEER_INFO_26 | {"IV_PROTO": "478"}  # which nobody could invent packets for
    client = LightClient(client_context(), 0.0, peer_info=without_dynamic_tls_crypt)
    pair = Pair(client, settings=SessionSettings(soft_reset_interval_s=0))
    pair.connect()
    session = pair.session
    assert session is not None
    opcodes = st.sampled_from([o for o in Opcode if o not in (Opcode.DATA_V1, Opcode.DATA_V2)])
    for _ in range(data.draw(st.integers(1, 10))):
        match data.draw(st.integers(0, 4)):
            case 0:
                opcode = data.draw(opcodes)
                invented = ControlPacket(
                    opcode,
                    data.draw(st.integers(0, 7)),
                    pair.client.session_id,
                    acks := tuple(data.draw(st.lists(st.integers(0, 12), max_size=4))),
                    session.local_session_id if acks else b"",
                    None if opcode is Opcode.ACK_V1 else data.draw(st.integers(0, 14)),
                    b"" if opcode is Opcode.ACK_V1 else data.draw(st.binary(max_size=20)),
                )
                session.receive_packet(serialise_packet(invented), pair.now)
            case 1:
                session.renegotiate(pair.now)
            case 2:
                pair.client.renegotiate(pair.now)
            case 3:
                session.change_options((), ["ping 7"])
            case _:
                pair.run(seconds=data.draw(st.floats(0, 100)))
    pair.run(seconds=10)
    live = {state.key_id for state in session._keys.states}
    assert len(live) == len(session._keys.states), "no two key states under one key id"
    assert len(live) <= 3
