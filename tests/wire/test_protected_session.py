"""Whole sessions under every wrapping, who is answered at all, and what an attacker can do to them: nothing."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import wire_vectors as v
from helpers.pair import CLIENT_ADDRESS, NoisyLink, Pair, client_context, same_keys
from helpers.wrappings import CASES, NAMES, SERVER_KEY, Case, tls_auth, tls_crypt, tls_crypt_v2
from light_client.data_channel import is_data
from light_client.generations import generation
from light_client.protocol import PEER_INFO_26, LightClient

from cvpnd.wire.channel import ReferenceChannel
from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.events import KeysReady, MessageReceived, PeerExit, SessionClosed
from cvpnd.wire.packet import ControlPacket, Opcode, Transport, parse_packet
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.session import Session
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.stateless import Established, Opening, answer_reset, check_echo, open_stream
from cvpnd.wire.tls import TlsConnection
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.protection import ControlProtection
from cvpnd.wire.wrap.tls_crypt import TlsCrypt
from cvpnd.wire.wrap.tls_crypt_v2 import RESEND_WKC, TlsCryptV2Client
from cvpnd.wire.wrap.wrapping import ReplayId, Wrapping

COOKIE = ResetCookie(b"s" * 32)
EARLY = ReplayId(0x0F000001, 1000)
LATE = ReplayId(1, 1000)
SID = b"client-1"
V4_WITH_FOREIGN_KEY = v.V4_RESET_CLIENT_INNER + bytes(reversed(v.V3_WKC[2:])) + v.V3_WKC[-2:]
WITHOUT_DYNAMIC = PEER_INFO_26 | {"IV_PROTO": "478"}


def pair_of(case: Case, transport: Transport = Transport.UDP, **kwargs: object) -> Pair:
    client_options = kwargs.pop("client_options", {})
    client = LightClient(client_context(), 0.0, transport=transport, wrapping=case.client, **client_options)  # type: ignore[arg-type]
    return Pair(client, transport=transport, protection=case.protection, **kwargs)  # type: ignore[arg-type]


def session_of(pair: Pair) -> Session:
    assert pair.session is not None
    return pair.session


def dropped(pair: Pair) -> Counter[DropReason]:
    """But for data packets, which a real listener does not hand to the session."""
    return Counter({reason: n for reason, n in session_of(pair).drops.items() if reason is not DropReason.BAD_OPCODE})


def reset(case: Case, count: ReplayId = EARLY, **changes: object) -> bytes:
    v2 = isinstance(case.client, TlsCryptV2Client)
    opcode = Opcode.HARD_RESET_CLIENT_V3 if v2 else Opcode.HARD_RESET_CLIENT_V2
    return case.client.seal(ControlPacket(opcode, 0, SID, packet_id=0)._replace(**changes), count)


# -- whole sessions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "static"])
def test_session_and_renegotiations_by_both_sides(name: str, transport: Transport, dynamic: bool) -> None:
    case = CASES[name]
    info = PEER_INFO_26 if dynamic else WITHOUT_DYNAMIC
    pair = pair_of(case, transport, client_options={"peer_info": info})
    pair.connect()
    for number in (1, 2, 3):
        pair.run(seconds=10)
        session_of(pair).renegotiate(pair.now) if number % 2 else pair.client.renegotiate(pair.now)
        assert pair.run(lambda pair, n=number: len(pair.of_server(KeysReady)) > n, seconds=30)
    pair.run(seconds=1)
    assert same_keys(pair)
    assert dropped(pair) == Counter()
    assert not pair.client.drops
    first_key = [p for p in pair.to_server if p[0] & 7 == 0 and not is_data(p)]
    later_keys = [p for p in pair.to_server if p[0] & 7 != 0 and not is_data(p)]
    static = session_of(pair)._key_maker._wrap.wrapping
    assert all(opens(static, packet) for packet in first_key)
    if dynamic and name != "plain":
        assert not any(opens(static, packet) for packet in later_keys)
    if not dynamic:
        assert all(opens(static, packet) for packet in later_keys)
    assert later_keys


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("name", NAMES)
def test_openvpn3_says_goodbye_with_its_old_key_in_its_only_wrapping(name: str, transport: Transport) -> None:
    played = generation("openvpn3")
    pair = pair_of(CASES[name], transport, client_options={"peer_info": played.peer_info, "habits": played.habits})
    pair.connect()
    pair.run(seconds=1)
    session_of(pair).renegotiate(pair.now)
    assert pair.run(lambda pair: len(pair.of_server(KeysReady)) > 1, seconds=30)
    pair.run(seconds=1)
    sent = len(pair.to_server)
    pair.client.exit()
    assert pair.run(lambda pair: bool(pair.of_server(PeerExit)), seconds=5)
    assert {packet[0] & 7 for packet in pair.to_server[sent:] if not is_data(packet)} == {0}
    pair.run(seconds=2)
    assert dropped(pair) == Counter() and not pair.client.drops, "the acknowledgement is wrapped likewise"


def test_a_packet_in_the_later_wrapping_is_taken_once() -> None:
    case, played = CASES["tls-crypt"], generation("openvpn3")
    pair = pair_of(case, client_options={"peer_info": played.peer_info, "habits": played.habits})
    pair.connect()
    pair.run(seconds=1)
    session_of(pair).renegotiate(pair.now)
    assert pair.run(lambda pair: len(pair.of_server(KeysReady)) > 1, seconds=30)
    pair.run(seconds=1)
    sent = len(pair.to_server)
    pair.client.send_message("INFO,hello")
    pair.run(lambda pair: bool(pair.of_server(MessageReceived)), seconds=5)
    (said,) = (packet for packet in pair.to_server[sent:] if not is_data(packet) and packet[0] & 7 == 0)
    session_of(pair).receive_packet(said, pair.now)
    assert dropped(pair) == Counter({DropReason.REPLAYED: 1})


def opens(wrapping: Wrapping, packet: bytes) -> bool:
    try:
        wrapping.open(packet)
    except PeerError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_handshake_over_a_bad_link(name: str, seed: int) -> None:
    link = NoisyLink(seed, loss=0.2, duplication=0.3, reordering=0.3)
    pair = pair_of(
        CASES[name], link=link, settings=SessionSettings(hand_window_s=1800), client_options={"hand_window_s": 1800.0}
    )
    pair.connect(seconds=1800)
    assert same_keys(pair)


@pytest.mark.parametrize("name", NAMES)
def test_no_control_packet_is_longer_than_allowed(name: str) -> None:
    pair = pair_of(CASES[name], push=[f"route 10.{i}.0.0 255.255.0.0" for i in range(200)])
    pair.connect()
    assert max(map(len, pair.to_client)) <= 1250 - 28
    assert max(map(len, pair.to_server)) <= 1250 - 28


def test_replay_ids_go_on_from_the_stateless_reply() -> None:
    pair = pair_of(CASES["tls-crypt"])
    pair.connect()
    client = TlsCrypt(v.V0_STATIC_KEY, server=False)
    opened = [client.open(packet).replay_id for packet in pair.to_client]
    assert [count.id for count in opened if count] == list(range(1, len(opened) + 1))


# -- tls-crypt-v2 -------------------------------------------------------------------------------------------


def test_early_negotiation_needs_no_state_and_asks_for_the_key_again() -> None:
    case = tls_crypt_v2()
    reply = answer_reset(reset(case), CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
    assert isinstance(reply, bytes)
    answer = case.client.open(reply)
    assert answer.packet.payload == RESEND_WKC
    assert answer.replay_id is not None
    assert answer.replay_id.id == 1
    assert len(reply) <= len(reset(case))


@pytest.mark.parametrize("fits", [True, False], ids=["hello beside the key", "key alone"])
def test_the_key_comes_again_with_the_first_packet(fits: bool) -> None:
    case = CASES["tls-crypt-v2" if fits else "tls-crypt-v2 with the longest metadata"]
    pair = pair_of(case)
    pair.connect()
    with_key = [p for p in pair.to_server if p[0] >> 3 == Opcode.CONTROL_WKC_V1]
    assert len(with_key) == 1
    assert session_of(pair).drops == Counter()


def test_2_5_gets_its_session_at_once_and_one_answer_for_each_reset() -> None:
    pair = pair_of(CASES["tls-crypt-v2"], client_options={"early_negotiation": False})
    pair.connect()
    assert not [p for p in pair.to_server if p[0] >> 3 == Opcode.CONTROL_WKC_V1]
    assert same_keys(pair)


@pytest.mark.parametrize("transport", Transport)
def test_unproven_address_hears_no_more_than_it_says(transport: Transport) -> None:
    """CVE-2021-4234: a forged source must not get retransmissions. Over TCP the kernel has proven it."""
    case = tls_crypt_v2()
    packet = reset(case, LATE)
    outcome = (
        answer_reset(packet, CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
        if transport is Transport.UDP
        else open_stream(packet, case.protection)
    )
    assert isinstance(outcome, Opening)
    pair = pair_of(case)
    session = Session(
        SessionSettings(), 0.0, ssl_context=lambda: pair.context, remote_session_id=SID, local_session_id=b"server-1",
        wrap=outcome.wrap, transport=transport,
    )  # fmt: skip
    sent = []
    now = 0.0
    session.receive_packet(packet, now)
    while not session.closed:
        sent += session.packets_to_send(now)
        timeout = session.next_timeout()
        assert timeout is not None
        now = timeout
        session.handle_timeout(now)
    assert sum(map(len, sent)) <= len(packet) or transport is Transport.TCP
    assert (len(sent) == 1) == (transport is Transport.UDP)
    assert now == 60.0


def test_unproven_address_hears_no_tls_before_it_acknowledges_our_reset() -> None:
    """A holder of one client key forged resets and hellos of others, who got a flight of 2 to 4 kB for each."""
    case = tls_crypt_v2()
    outcome = answer_reset(reset(case, LATE), CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
    assert isinstance(outcome, Opening)
    pair = pair_of(case)
    session = Session(
        SessionSettings(), 0.0, ssl_context=lambda: pair.context, remote_session_id=SID, local_session_id=b"server-1",
        wrap=outcome.wrap,
    )  # fmt: skip
    session.receive_packet(reset(case, LATE), 0.0)
    (our_reset,) = session.packets_to_send(0.0)
    tls = TlsConnection(client_context(), server=False)
    tls.start()
    hello = tls.output()
    said, heard, now = [reset(case, LATE)], [our_reset], 1.0
    for number, at in enumerate(range(0, len(hello), 1100), 1):
        piece = ControlPacket(Opcode.CONTROL_V1, 0, SID, packet_id=number, payload=hello[at : at + 1100])
        said.append(case.client.seal(piece, ReplayId(LATE.id + number, LATE.time)))
        session.receive_packet(said[-1], now)
        heard += session.packets_to_send(now)
    while (due := session.next_timeout()) is not None and due < 40.0:
        now = due
        session.handle_timeout(now)
        heard += session.packets_to_send(now)
    assert sum(map(len, heard)) <= sum(map(len, said)) + 12
    assert max(map(len, heard)) <= len(our_reset) + 4 * len(said), "the reset, and what it acknowledges"
    acknowledgement = ControlPacket(Opcode.ACK_V1, 0, SID, acks=(0,), remote_session_id=b"server-1")
    session.receive_packet(case.client.seal(acknowledgement, ReplayId(LATE.id + 9, LATE.time)), now)
    assert sum(map(len, session.packets_to_send(now))) > 500, "its flight, now that somebody lives there"


def test_each_repeated_reset_of_2_5_gets_one_more_answer() -> None:
    case = tls_crypt_v2()
    outcome = answer_reset(reset(case, LATE), CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
    assert isinstance(outcome, Opening)
    session = Session(
        SessionSettings(), 0.0, ssl_context=lambda: pair_of(case).context, remote_session_id=SID,
        local_session_id=b"server-1", wrap=outcome.wrap,
    )  # fmt: skip
    counts = []
    for number in range(1, 4):
        session.receive_packet(reset(case, ReplayId(number, 1000)), float(number))
        counts.append(len(session.packets_to_send(float(number))))
        counts.append(len(session.packets_to_send(number + 0.5)))
    assert counts == [1, 0, 1, 0, 1, 0]


class LosingAcknowledgements(NoisyLink):
    """Of those in packets of their own, in the first seconds."""

    lost = 0

    def arrivals(self, now: float) -> list[float]:
        times = super().arrivals(now)
        bare = bool(self.pair.to_server) and self.sent != len(self.pair.to_server)
        self.sent = len(self.pair.to_server)
        if now < 5.0 and bare and self.pair.to_server[-1][0] >> 3 == Opcode.ACK_V1:
            self.lost += 1
            return []
        return times

    def watch(self, pair: Pair) -> None:
        self.pair, self.sent = pair, 0


def test_a_reset_whose_acknowledgement_was_lost_is_repeated_once_the_address_is_proven() -> None:
    """2.5 acknowledges once, and the flight in one packet brings too few acknowledgements of later packets."""
    link = LosingAcknowledgements()
    pair = pair_of(
        CASES["tls-crypt-v2"],
        client_options={
            "peer_info": generation("2.5").peer_info,
            "habits": generation("2.5").habits,
            "early_negotiation": False,
        },
        settings=SessionSettings(max_packet_bytes=1600),
        link=link,
    )
    link.watch(pair)
    pair.connect(seconds=30.0)
    assert link.lost


def test_2_5_is_turned_away_where_state_is_not_allowed() -> None:
    case = tls_crypt_v2(allow_stateful=False)
    refused = answer_reset(reset(case, LATE), CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
    assert refused is DropReason.STATE_NEEDED
    assert isinstance(open_stream(reset(case, LATE), case.protection), Opening), "over TCP state costs nobody else"


def test_client_keys_are_judged_after_the_cookie_and_before_any_state() -> None:
    judged: list[bytes] = []

    def check(metadata: bytes) -> DropReason | None:
        judged.append(metadata)
        return DropReason.CLIENT_KEY_REVOKED

    case = tls_crypt_v2(b"\0alice", check=check)
    reply = answer_reset(reset(case), CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
    assert isinstance(reply, bytes)
    assert judged == [], "a reset proves nothing"
    good = ControlPacket(Opcode.CONTROL_WKC_V1, 0, SID, (0,), reply[1:9], 1)
    wrong = good._replace(remote_session_id=b"a guess!")
    assert (
        check_echo(case.client.seal(wrong, EARLY), CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
        is DropReason.BAD_COOKIE
    )
    assert judged == []
    assert (
        check_echo(case.client.seal(good, EARLY), CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
        is DropReason.CLIENT_KEY_REVOKED
    )
    assert answer_reset(reset(case, LATE), CLIENT_ADDRESS, 0.0, COOKIE, case.protection) is judged_reason(judged, 2)
    assert open_stream(reset(case), case.protection) is judged_reason(judged, 3)
    assert set(judged) == {b"\0alice"}


def judged_reason(judged: list[bytes], times: int) -> DropReason:
    assert len(judged) == times
    return DropReason.CLIENT_KEY_REVOKED


def test_a_second_client_key_in_mid_session_changes_nothing() -> None:
    """CVE-2025-2704: a genuine but different WKc on a live session."""
    pair = pair_of(CASES["tls-crypt-v2"])
    pair.connect()
    session = session_of(pair)
    events = len(pair.server_events)
    stranger = tls_crypt_v2()
    for opcode in (Opcode.HARD_RESET_CLIENT_V3, Opcode.CONTROL_WKC_V1):
        packet = ControlPacket(opcode, 0, pair.client.session_id, packet_id=0)
        session.receive_packet(stranger.client.seal(packet, ReplayId(0x0F00FFFF, 2**32 - 1)), pair.now)
    assert session.drops == Counter({DropReason.NOT_AUTHENTIC: 2})
    pair.run(seconds=1)
    assert len(pair.server_events) == events
    session.renegotiate(pair.now)
    assert pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2, seconds=10)


# -- strangers ----------------------------------------------------------------------------------------------


def protections() -> dict[str, tuple[ControlProtection, set[str]]]:
    """Which clients each combination lets in."""
    shared_crypt, shared_auth = tls_crypt().protection.shared, tls_auth(0, "SHA1").protection.shared
    return {
        "plain": (ControlProtection(), {"plain"}),
        "tls-auth": (ControlProtection(shared_auth), {"tls-auth 0 SHA1"}),
        "tls-crypt": (ControlProtection(shared_crypt), {"tls-crypt"}),
        "v2": (ControlProtection(None, SERVER_KEY), {"tls-crypt-v2"}),
        "v2+tls-crypt": (ControlProtection(shared_crypt, SERVER_KEY), {"tls-crypt-v2", "tls-crypt"}),
        "v2+tls-auth": (ControlProtection(shared_auth, SERVER_KEY), {"tls-crypt-v2", "tls-auth 0 SHA1"}),
        "v2+plain": (ControlProtection(PLAIN, SERVER_KEY), {"tls-crypt-v2", "plain"}),
    }


@pytest.mark.parametrize("combination", protections())
@pytest.mark.parametrize("client", ["plain", "tls-auth 0 SHA1", "tls-auth 1 SHA256", "tls-crypt", "tls-crypt-v2"])
@pytest.mark.parametrize("transport", Transport)
def test_who_may_come_in_and_nobody_else_hears_a_word(combination: str, client: str, transport: Transport) -> None:
    protection, welcome = protections()[combination]
    pair = pair_of(replace(CASES[client], protection=protection), transport)
    connected = pair.run(lambda pair: pair.client.connected, seconds=70)
    assert connected is (client in welcome)
    if not connected:
        assert pair.to_client == []
        assert pair.session is None
        assert len(pair.refused) >= 5, "it tried all the time"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "plain"])
def test_a_reset_that_differs_in_one_bit_gets_no_reply(name: str) -> None:
    """Each compare is there: of the HMAC, the tag, and the tag of the client key."""
    case = CASES[name]
    packet = reset(case)
    for bit in range(8 * len(packet)):
        changed = bytearray(packet)
        changed[bit // 8] ^= 1 << bit % 8
        assert isinstance(answer_reset(bytes(changed), CLIENT_ADDRESS, 0.0, COOKIE, case.protection), DropReason)
        assert isinstance(open_stream(bytes(changed), case.protection), DropReason)
    assert isinstance(answer_reset(packet, CLIENT_ADDRESS, 0.0, COOKIE, case.protection), bytes)


@pytest.mark.parametrize("name", NAMES)
def test_an_echo_that_differs_in_one_bit_opens_no_session(name: str) -> None:
    case = CASES[name]
    reply = answer_reset(reset(case), CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
    assert isinstance(reply, bytes)
    opcode = Opcode.CONTROL_WKC_V1 if reset(case)[0] >> 3 == Opcode.HARD_RESET_CLIENT_V3 else Opcode.CONTROL_V1
    packet = case.client.seal(ControlPacket(opcode, 0, SID, (0,), reply[1:9], 1), EARLY)
    # Without a wrapping nothing binds the ids of acknowledgements and packets; whoever sees them can change them.
    bits = range(8 * len(packet)) if name != "plain" else range(8 * 9 + 8 * 5, 8 * 9 + 8 * 13)
    for bit in bits:
        changed = bytearray(packet)
        changed[bit // 8] ^= 1 << bit % 8
        assert isinstance(check_echo(bytes(changed), CLIENT_ADDRESS, 0.0, COOKIE, case.protection), DropReason)
    assert isinstance(check_echo(packet, CLIENT_ADDRESS, 0.0, COOKIE, case.protection), Established)


@pytest.mark.parametrize("name", NAMES)
def test_replies_are_bounded(name: str) -> None:
    case = CASES[name]
    reply = answer_reset(reset(case), CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
    assert isinstance(reply, bytes)
    assert len(reply) <= len(reset(case)) + 12


@pytest.mark.parametrize("payload", [b"x", bytes(1000)])
def test_a_reset_with_acks_or_a_number_is_not_one(payload: bytes) -> None:
    for name in NAMES:
        case = CASES[name]
        for changes in ({"packet_id": 1}, {"acks": (0,), "remote_session_id": b"server-1"}):
            packet = reset(case, payload=payload, **changes)
            assert answer_reset(packet, CLIENT_ADDRESS, 0.0, COOKIE, case.protection) is DropReason.LATE_PACKET


def test_resets_by_the_thousand_leave_nothing_behind() -> None:
    """CVE-2026-35058, CVE-2026-12932 and CVE-2026-13698 were leaks of tls-crypt-v2 key handling."""
    case = CASES["tls-crypt-v2"]
    good = reset(case)
    bad_tag, bad_key = bytearray(good), bytearray(good)
    bad_tag[20] ^= 1
    bad_key[100] ^= 1
    packets = [good, bytes(bad_tag), bytes(bad_key), good[:200], V4_WITH_FOREIGN_KEY]

    def flood(rounds: int) -> None:
        for _ in range(rounds):
            for packet in packets:
                answer_reset(packet, CLIENT_ADDRESS, 0.0, COOKIE, case.protection)
                check_echo(packet, CLIENT_ADDRESS, 0.0, COOKIE, case.protection)

    flood(100)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    resident = Path("/proc/self/statm").read_text().split()[1]
    flood(5000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 4096, "of Python's memory"
    pages = int(Path("/proc/self/statm").read_text().split()[1]) - int(resident)
    assert pages * 4096 < 4 << 20, "of OpenSSL's, too"


# -- an attacker on the path of a live session --------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if name != "plain"])
def test_everything_sent_again_is_a_replay_and_changes_nothing(name: str) -> None:
    pair = pair_of(CASES[name])
    pair.connect()
    session = session_of(pair)
    session.renegotiate(pair.now)
    pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2, seconds=30)
    pair.run(seconds=1)
    events, sent = len(pair.server_events), list(pair.to_server)
    for packet in sent:
        if packet[0] >> 3 not in (Opcode.HARD_RESET_CLIENT_V2, Opcode.HARD_RESET_CLIENT_V3):
            session.receive_packet(packet, pair.now)
    assert session.packets_to_send(pair.now) == [], "not even an acknowledgement"
    assert set(session.drops) == {DropReason.REPLAYED}
    assert len(pair.server_events) == events


@pytest.mark.parametrize("name", [name for name in NAMES if name != "plain"])
def test_forged_packets_move_no_replay_window(name: str) -> None:
    """A packet with the highest of ids and a wrong tag, and another client's that is authentic under a shared key."""
    case = CASES[name]
    pair = pair_of(case)
    pair.connect()
    session = session_of(pair)
    last = ReplayId(0xFFFFFFFF, 0xFFFFFFFF)
    own = ControlPacket(Opcode.ACK_V1, 0, pair.client.session_id, (0,), session.local_session_id)
    forged = bytearray(case.client.seal(own, last))
    forged[-1] ^= 1
    session.receive_packet(bytes(forged), pair.now)
    session.receive_packet(case.client.seal(own._replace(session_id=b"somebody"), last), pair.now)
    assert session.drops == Counter({DropReason.NOT_AUTHENTIC: 1, DropReason.UNROUTABLE: 1})
    pair.client.send_message("INFO,still here")
    pair.run(seconds=1)
    assert session.drops.total() == 2


def test_authentication_error_on_tcp_ends_the_connection() -> None:
    pair = pair_of(CASES["tls-crypt"], Transport.TCP)
    pair.connect()
    session = session_of(pair)
    session.receive_packet(b"\x20" + pair.client.session_id + bytes(60), pair.now)
    pair.run(seconds=1)
    assert pair.of_server(SessionClosed)


def test_dynamic_key_is_not_the_static_one_and_differs_by_session() -> None:
    later = []
    for _ in range(2):
        pair = pair_of(CASES["tls-crypt"])
        pair.new_channel = ReferenceChannel
        pair.connect()
        session_of(pair).renegotiate(pair.now)
        pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2, seconds=30)
        channel = session_of(pair)._channel
        assert isinstance(channel, ReferenceChannel)
        later += [channel._wraps.of(1).wrapping.key2]
        assert channel._wraps.of(0).wrapping.key2 == v.V0_STATIC_KEY
    assert len({*later, v.V0_STATIC_KEY}) == 3


def test_without_wrapping_renegotiations_are_wrapped_all_the_same() -> None:
    pair = pair_of(CASES["plain"])
    pair.connect()
    session_of(pair).renegotiate(pair.now)
    pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2, seconds=30)
    later = [packet for packet in pair.to_client if packet[0] & 7 == 1]
    assert later
    first = ControlPacket(Opcode.SOFT_RESET_V1, 1, session_of(pair).local_session_id, packet_id=0)
    assert len(later[0]) == len(PLAIN.seal(first, LATE)) + 40
    assert all(parse_packet(packet) for packet in pair.to_client if packet[0] & 7 == 0)
