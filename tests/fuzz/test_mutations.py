"""Captured packets, cut and changed: nothing raises, no session changes, nobody is answered, and nothing is kept.

What a client and a gateway said to each other under every wrapping, and the captured packets of openvpn-wire.md section
22, are sent again: every prefix, and so many mutations (``FUZZ_MUTATIONS`` in all; ``make fuzz`` asks for a million).
They meet the functions for strangers, and the very session that the conversation was held with, at every stage of it.
"""

from __future__ import annotations

import os
import random
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from helpers import wire_vectors as v
from helpers.inline_plane import ENDPOINT, LISTENER, InlinePlane, Outlet
from helpers.packets import ClientKey, data_keys, udp
from helpers.pair import CLIENT_ADDRESS, Pair, client_context, server_context
from helpers.wrappings import CASES, NAMES
from light_client.data_channel import is_data
from light_client.protocol import LightClient

from cvpnd.dataplane.api import Drop, PeerSettings, SocketAddress, StrayControl
from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.events import CredentialsReceived, KeysReady
from cvpnd.wire.key_state import KeyState
from cvpnd.wire.packet import Opcode, Transport
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.session import Session
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.stateless import Opening, answer_reset, check_echo, open_stream
from cvpnd.wire.stream import FrameReader, frame

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "50000"))
MEMORY_BYTES = 4 << 20
"""What may come and go in a process that works; one packet kept out of ten would be more."""
CAPTURED = (
    v.V1_PACKET,
    v.V2_PACKET,
    v.V4_RESET_CLIENT_INNER + v.V3_WKC,
    v.V4_RESET_SERVER,
    v.V5_SOFT_RESET,
    v.V9_PACKET,
    v.V10_PACKET,
    v.V13_PACKET,
    *v.V16,
)
INTERESTING = (0, 1, 7, 8, 9, 12, 0x20, 0x28, 0x38, 0x50, 0x58, 0x7F, 0x80, 0xFE, 0xFF)


def mutate(packet: bytes, others: tuple[bytes, ...], dice: random.Random) -> bytes:
    changed = bytearray(packet)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        at = dice.randrange(len(changed) + 1)
        match dice.randrange(7):
            case 0 | 1 if at < len(changed):
                changed[at] ^= 1 << dice.randrange(8)
            case 2 if at < len(changed):
                changed[at] = dice.choice(INTERESTING)
            case 3:
                del changed[at : at + dice.randint(1, 9)]
            case 4:
                changed[at:at] = dice.randbytes(dice.randint(1, 12))
            case 5:  # the end of another packet, as from somebody who hopes that two halves make a whole
                other = dice.choice(others)
                changed[at:] = other[dice.randrange(len(other)) :]
            case _:
                changed[0:1] = bytes((dice.randrange(256),))
    return bytes(changed)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def bounded(packets: Iterator[bytes], use: Callable[[bytes], None]) -> None:
    """After a tenth of them, memory does not grow any more."""
    settled_at = max(1000, MUTATIONS // len(NAMES) // 10)
    start = 0
    for number, packet in enumerate(packets):
        use(packet)
        if number == settled_at:
            start = resident_bytes()
    assert not start or resident_bytes() - start < MEMORY_BYTES


# -- one conversation under each wrapping -------------------------------------------------------------------

STAGES: dict[str, Callable[[Pair], bool]] = {
    "handshake": lambda pair: pair.session is not None and not pair.session.tls_version and pair.now > 0.03,
    "login": lambda pair: bool(pair.of_server(CredentialsReceived)),
    "established": lambda pair: pair.client.connected,
    "renegotiating": lambda pair: pair.session is not None and pair.session._keys.pending is not None,
    "renegotiated": lambda pair: len(pair.of_server(KeysReady)) == 2,
}


def conversation(name: str, stage: str) -> Pair:
    """As far as ``stage`` and no further."""
    case = CASES[name]
    pair = Pair(LightClient(client_context(), 0.0, wrapping=case.client), protection=case.protection)
    if stage == "login":
        pair.decide = lambda pair, event: None
    elif stage.startswith("reneg"):
        pair.connect()
        pair.run(seconds=1)
        assert pair.session is not None
        pair.client.renegotiate(pair.now)
    assert pair.run(STAGES[stage], seconds=30)
    return pair


def state_of(session: Session) -> tuple[object, ...]:
    """All that a packet could change."""
    told = session.closed, session.ending.begun, len(session.events), len(session._farewell)
    return (
        [state_of_key(state) for state in session._keys.states],
        session._channel.inspect(),
        (*told, session._keys._renegotiate_at),
    )


def state_of_key(state: KeyState) -> tuple[object, ...]:
    return (
        (state.key_id, state.negotiation, state.authentication, state.slot, state.has_data_keys),
        (state.started_at, state.expires_at),
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "plain"])
@pytest.mark.timeout(1200)
def test_wrapped_conversation_cannot_be_changed_from_outside(name: str) -> None:
    """Nothing that differs from a packet in one bit is that packet, and one that is the same has been here before."""
    dice = random.Random(name)
    protection = CASES[name].protection
    cookie = ResetCookie(bytes(range(32)))
    genuine = set(CAPTURED)
    for stage in STAGES:
        pair = conversation(name, stage)
        session = pair.session
        assert session is not None
        on_its_way = {packet for _, _, for_server, packet in pair._wire if for_server}
        said = tuple(packet for packet in pair.to_server if not is_data(packet) and packet not in on_its_way)
        originals = (*said, *(packet for packet in pair.to_client if not is_data(packet)), *CAPTURED)
        genuine.update(said)
        for packet in said:  # its reset, which was answered before there was a session, may come once more
            session.receive_packet(packet, pair.now)
        # what names a later key has its wrapping made, which happens once and is not to be told from outside
        session.receive_packet(bytes((Opcode.CONTROL_V1 << 3 | 1,)), pair.now)
        session.packets_to_send(pair.now)
        while session.next_event() is not None:
            pass
        before = state_of(session)

        def attack(
            packet: bytes, now: float = pair.now + 0.001, session: Session = session, before: tuple = before
        ) -> None:
            session.receive_packet(packet, now)
            assert state_of(session) == before
            if packet not in genuine:
                assert isinstance(answer_reset(packet, CLIENT_ADDRESS, now, cookie, protection), DropReason)
                assert isinstance(check_echo(packet, CLIENT_ADDRESS, now, cookie, protection), DropReason)
                assert isinstance(open_stream(packet, protection), DropReason)

        bounded(packets(originals, MUTATIONS // len(NAMES) // len(STAGES), dice), attack)
        assert session.next_event() is None
        assert session.drops


def packets(originals: tuple[bytes, ...], count: int, dice: random.Random) -> Iterator[bytes]:
    """Every prefix of each, then so many mutations."""
    for packet in originals:
        yield from (packet[:length] for length in range(len(packet) + 1))
    for _ in range(count):
        yield mutate(dice.choice(originals), originals, dice)


@pytest.mark.timeout(1200)
def test_plain_conversation_may_end_but_never_lets_anybody_in() -> None:
    """Without a wrapping whoever knows the session ids can break a handshake; and that is all."""
    dice = random.Random(16)
    cookie = ResetCookie(bytes(range(32)))
    originals: tuple[bytes, ...] = CAPTURED
    for stage in STAGES:
        pair = conversation("plain", stage)
        originals += tuple(packet for packet in (*pair.to_server, *pair.to_client) if not is_data(packet))
    sessions: list[Session] = []
    drops: Counter[DropReason] = Counter()

    def attack(packet: bytes) -> None:
        reply = answer_reset(packet, CLIENT_ADDRESS, 0.0, cookie)
        assert isinstance(reply, DropReason) or (isinstance(reply, bytes) and len(reply) <= len(packet) + 12)
        assert isinstance(open_stream(packet), DropReason | Opening)
        echo = check_echo(packet, CLIENT_ADDRESS, 0.0, cookie)
        assert isinstance(echo, DropReason) or echo.local_session_id in packet
        if not sessions or sessions[0].closed or dice.random() < 0.02:
            sessions[:] = [new_session(dice.choice(originals), drops, dice)]
        sessions[0].receive_packet(packet[:1] + sessions[0].remote_session_id + packet[9:], 0.0)
        sessions[0].packets_to_send(0.0)
        while (event := sessions[0].next_event()) is not None:
            assert not isinstance(event, KeysReady)

    bounded(packets(originals, MUTATIONS // len(NAMES), dice), attack)
    assert len(drops) > 5


def new_session(packet: bytes, drops: Counter[DropReason], dice: random.Random) -> Session:
    return Session(
        SessionSettings(),
        0.0,
        ssl_context=server_context,
        remote_session_id=packet[1:9] if packet[1:9] != bytes(8) else b"client-1",
        local_session_id=packet[-12:-4],
        transport=dice.choice(tuple(Transport)),
        cookie_echoed=dice.random() < 0.5,
        drops=drops,
    )


@pytest.mark.timeout(1200)
def test_streams_of_changed_frames() -> None:
    """However a stream is cut, its packets are what it was made of, up to where it is refused."""
    dice = random.Random(17)
    originals = tuple(frame(packet) for packet in CAPTURED)
    for _ in range(MUTATIONS // 20):
        stream = b"".join(mutate(dice.choice(originals), originals, dice) for _ in range(3))
        reader, taken, at = FrameReader(), b"", 0
        try:
            while at < len(stream):
                size = dice.randint(1, len(stream) - at)
                taken += b"".join(map(frame, reader.feed(stream[at : at + size])))
                at += size
        except PeerError as error:
            assert error.reason is DropReason.BAD_FRAME
        assert stream.startswith(taken)


# -- data packets -------------------------------------------------------------------------------------------


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("cipher", "digest"), [("AES-256-GCM", ""), ("CHACHA20-POLY1305", ""), ("AES-256-CBC", "SHA256")]
)
def test_changed_data_packets_pass_nowhere(cipher: str, digest: str) -> None:
    """The decisions of the data plane, without sockets; ``tests/dataplane`` and the C fuzzers try those with."""
    plane = InlinePlane(Outlet(lambda packet, address: None), lambda: 0.0)
    try:
        home, away = SocketAddress("192.0.2.7", 40000), SocketAddress("203.0.113.66", 6666)
        plane.set_rules(ENDPOINT, [(ip_network("0.0.0.0/0"), 1)])
        plane.add_peer(5, PeerSettings(ENDPOINT, (ip_address("10.100.0.2"),), 1, 0, 0))
        key = ClientKey(0, data_keys("mutations", cipher, digest=digest))
        plane.install_key(5, 0, key.keys)
        plane.set_remote(5, LISTENER, home, "")
        originals = tuple(key.seal(5, udp("10.100.0.2", "10.20.0.7", bytes(n))) for n in (0, 8, 40))
        for packet in originals:
            plane.receive(packet, home)
        assert len(plane.delivered) == len(originals)
        plane.delivered.clear()
        dice = random.Random(cipher)

        def attack(packet: bytes) -> None:
            before = plane.forwarder.drops.total()
            plane.receive(packet, dice.choice((home, away)))
            events = plane.poll_events()
            assert plane.forwarder.drops.total() + len(events) == before + 1
            assert all(isinstance(event, StrayControl) and event.source == home for event in events)

        bounded(packets((*originals, *CAPTURED), MUTATIONS // len(NAMES), dice), attack)
        assert not plane.delivered
        assert {Drop.AUTH_FAILED, Drop.REPLAYED, Drop.TRUNCATED, Drop.UNKNOWN_PEER} <= set(plane.forwarder.drops)
    finally:
        plane.close()
