"""Whole conversations of a ``Session`` and a light client, in virtual time."""

from __future__ import annotations

import math

import pytest
from helpers.pair import (
    CLIENT_ADDRESS,
    PUSHED,
    NoisyLink,
    Pair,
    accept_everyone,
    client_context,
    pki,
    same_keys,
    server_context,
    tls_context,
)
from light_client.protocol import PEER_INFO_26, LightClient, Told
from OpenSSL import SSL, crypto

from cvpnd.reasons import End, Refusal
from cvpnd.wire.errors import DropReason, UsageError
from cvpnd.wire.events import (
    CredentialsReceived,
    KeyRetired,
    KeysReady,
    MessageReceived,
    PeerExit,
    SessionClosed,
    TlsEstablished,
)
from cvpnd.wire.key_method import Capability
from cvpnd.wire.packet import ControlPacket, Opcode, Transport, parse_packet, serialise_packet
from cvpnd.wire.reliable import payload_limit
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.session import Session
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.stateless import check_echo


def light_client(**kwargs: object) -> LightClient:
    return LightClient(kwargs.pop("context", None) or client_context(), 0.0, **kwargs)  # type: ignore[arg-type]


# -- a handshake


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_handshake(transport: Transport, version: int) -> None:
    pair = Pair(light_client(transport=transport), context=server_context(version), transport=transport)
    pair.connect()
    kinds = [type(event) for event in pair.server_events]
    assert kinds == [TlsEstablished, CredentialsReceived, KeysReady]
    (credentials,) = pair.of_server(CredentialsReceived)
    assert credentials.peer_info.version == "2.6.14"
    assert credentials.certificate == pki().client.certificate
    assert pair.of_server(TlsEstablished)[0].common_name == "client1"
    flags = "protocol-flags cc-exit tls-ekm dyn-tls-crypt"
    assert pair.client.options == (*PUSHED, "peer-id 5", "cipher AES-256-GCM", flags)
    assert same_keys(pair)
    assert pair.session is not None
    assert pair.session.established


@pytest.mark.parametrize("seed", range(25))
def test_handshake_over_a_bad_link(seed: int) -> None:
    """A quarter of the packets lost, some twice, some late: slower, not different."""
    link = NoisyLink(seed, loss=0.25, duplication=0.2, reordering=0.3)
    settings = SessionSettings(hand_window_s=3600)
    pair = Pair(light_client(hand_window_s=3600.0), link=link, settings=settings)
    pair.connect(seconds=3600)
    assert len(pair.of_server(CredentialsReceived)) == 1
    assert same_keys(pair)


def test_nothing_exceeds_the_control_packet_size() -> None:
    pair = Pair(push=[f"route 10.{i}.0.0 255.255.0.0" for i in range(200)])
    pair.connect()
    assert max(map(len, pair.to_client)) + 28 <= 1250
    assert payload_limit(1250, ipv6=True, wrap_overhead=56) == 1250 - 48 - 9 - 25 - 4 - 56


@pytest.mark.parametrize("routes", [1, 30, 1000])
def test_all_routes_arrive(routes: int) -> None:
    pushed = [f"route 10.{i // 256}.{i % 256}.0 255.255.255.0" for i in range(routes)]
    pair = Pair(push=pushed, link=NoisyLink(seed=1, loss=0.05))
    pair.connect(seconds=3600)
    assert [option for option in pair.client.options if option.startswith("route")] == pushed


def test_keys_are_announced_before_the_push_reply_leaves() -> None:
    """The client's first data packet follows the PUSH_REPLY at once and must find its key."""
    pair = Pair()
    assert pair.run(lambda pair: bool(pair.of_server(CredentialsReceived)))
    while not pair.of_server(KeysReady):
        assert not pair.client.connected
        assert pair.run(lambda pair: len(pair.server_events) > 2, seconds=5)
    assert not pair.client.connected


@pytest.mark.parametrize(("proto", "exporter"), [(990, True), (6, False), (2, False)])
def test_key_derivation_follows_what_the_client_can(proto: int, exporter: bool) -> None:
    pair = Pair(light_client(peer_info=PEER_INFO_26 | {"IV_PROTO": str(proto)}))
    pair.connect()
    assert same_keys(pair)
    assert ("tls-ekm" in " ".join(pair.client.options)) is exporter


def test_client_that_does_not_ask_gets_its_reply_and_one_that_asks_too_gets_one() -> None:
    """2.5 has IV_PROTO bit 2 and sends PUSH_REQUEST all the same."""
    pair = Pair()
    pair.connect()
    before = len(pair.to_client)
    pair.client.send_message("PUSH_REQUEST")
    pair.run(seconds=20)
    assert pair.session is not None
    replies = [p for p in pair.to_client[before:] if parse_packet(p).opcode is Opcode.CONTROL_V1]
    assert replies == []
    pair.run(seconds=20)
    pair.client.send_message("PUSH_REQUEST")
    pair.run(seconds=5)
    replies = [p for p in pair.to_client[before:] if parse_packet(p).opcode is Opcode.CONTROL_V1]
    assert len(replies) == 1, "after 30 s it is answered again"


def test_push_request_before_login_has_decided_is_answered_after() -> None:
    decided: list[CredentialsReceived] = []
    pair = Pair(light_client(peer_info=PEER_INFO_26 | {"IV_PROTO": "2"}), decide=lambda _, event: decided.append(event))
    pair.run(seconds=17)
    assert decided
    assert not pair.client.connected
    accept_everyone(pair, decided[0])
    assert pair.run(lambda pair: pair.client.connected, seconds=1)


def test_login_may_take_longer_than_the_hand_window() -> None:
    decided: list[CredentialsReceived] = []
    pair = Pair(light_client(hand_window_s=600.0), decide=lambda _, event: decided.append(event))
    pair.run(seconds=300)
    assert not pair.of_server(SessionClosed) and pair.session is not None
    due = pair.session.next_timeout()
    assert due is None or due > pair.now, "it wakes nobody for a time that is over"
    accept_everyone(pair, decided[0])
    assert pair.run(lambda pair: pair.client.connected, seconds=1)


# -- refusals


def test_wrong_cookie_makes_no_session() -> None:
    pair = Pair()
    pair.run(lambda pair: len(pair.to_server) > 1)
    assert pair.session is None
    echo = pair.to_server[1]
    cookie = ResetCookie(bytes(range(32)))
    forged = bytearray(echo)
    forged[14] ^= 1  # in the receiver's session id: opcode, sid, count, one ack of four bytes
    assert not isinstance(check_echo(echo, CLIENT_ADDRESS, pair.now, cookie), DropReason)
    assert check_echo(bytes(forged), CLIENT_ADDRESS, pair.now, cookie) is DropReason.BAD_COOKIE
    assert check_echo(echo, ("192.0.2.8", 40000), pair.now, cookie) is DropReason.BAD_COOKIE


def test_auth_failed_comes_after_the_key_exchange_and_the_session_closes_after_five_seconds() -> None:
    def deny(pair: Pair, event: CredentialsReceived) -> None:
        assert pair.session is not None
        pair.session.refuse("not today", pair.now, Refusal.SESSION_LIMIT)

    pair = Pair(decide=deny)
    pair.run(lambda pair: pair.client.failed is not None)
    assert pair.client.failed == "AUTH_FAILED,not today"
    assert not pair.of_server(KeysReady)
    told_at = pair.now
    pair.run(seconds=60)
    (closed,) = pair.of_server(SessionClosed)
    assert (closed.reason, closed.detail) == (Refusal.SESSION_LIMIT, "not today")
    assert pair.session is not None
    assert pair.session.next_timeout() is None
    assert told_at < 1


@pytest.mark.parametrize(
    ("version", "proto", "elsewhere", "told"),
    [
        ("2.6.14", "990", False, "AUTH_FAILED,TEMP[backoff 9,advance no]:full"),
        ("2.6.14", "990", True, "AUTH_FAILED,TEMP[backoff 9,advance remote]:full"),
        ("2.5.1", "6", False, "RESTART,[P]:full"),
        ("2.5.1", "6", True, "RESTART,[PN]:full"),
        ("3.8", "6", True, "RESTART,[P]:full"),
    ],
)
def test_refusal_that_passes_is_told_so_that_the_client_comes_back(
    version: str, proto: str, elsewhere: bool, told: str
) -> None:
    """Every generation in its own way: to OpenVPN 2.5 any AUTH_FAILED is the end."""

    def deny(pair: Pair, event: CredentialsReceived) -> None:
        assert pair.session is not None
        pair.session.refuse("full", pair.now, Refusal.SESSION_LIMIT, retry_after_s=9, elsewhere=elsewhere)

    pair = Pair(light_client(peer_info=PEER_INFO_26 | {"IV_VER": version, "IV_PROTO": proto}), decide=deny)
    pair.run(lambda pair: pair.client.failed is not None)
    assert pair.client.failed == told
    assert not pair.of_server(KeysReady)


def test_refused_client_gets_no_push_whatever_it_asks() -> None:
    pair = Pair(decide=lambda pair, event: pair.session.refuse("", pair.now, Refusal.SESSION_LIMIT))  # type: ignore[union-attr]
    pair.run(lambda pair: pair.client.failed is not None)
    pair.client.failed = None  # a client that pretends not to have heard
    pair.client.send_message("PUSH_REQUEST")
    pair.run(seconds=3)
    assert pair.client.options == ()
    assert not pair.of_server(KeysReady)


def test_client_that_cannot_be_served_is_refused_by_accept() -> None:
    pair = Pair(light_client(peer_info=PEER_INFO_26 | {"IV_CIPHERS": "AES-256-CBC"}))
    pair.run(seconds=30)
    assert pair.client.failed == "AUTH_FAILED,Data channel cipher negotiation failed (no shared cipher)"
    assert pair.of_server(SessionClosed)[0].reason is Refusal.NO_SHARED_CIPHER


def test_refused_certificate_closes_with_the_verdict_and_the_client_gets_the_alert() -> None:
    def verify(connection: SSL.Connection, leaf: crypto.X509, error: int, depth: int, ok: int) -> bool:
        if depth > 0:
            return bool(ok)
        verdict = connection.get_app_data()
        verdict.refusal, verdict.detail, verdict.certificate = Refusal.CERTIFICATE_REVOKED, "revoked in May", leaf
        return False

    pair = Pair(context=tls_context(pki().server, server=True, verify=verify))
    pair.run(seconds=5)
    (closed,) = pair.of_server(SessionClosed)
    assert (closed.reason, closed.detail) == (Refusal.CERTIFICATE_REVOKED, "revoked in May")
    assert pair.session is not None
    assert pair.session.verdict.common_name == "client1"
    assert pair.client.failed is not None
    assert "alert" in pair.client.failed


def test_missing_certificate_is_named() -> None:
    pair = Pair(light_client(context=tls_context(None, server=False)))
    pair.run(seconds=5)
    assert pair.of_server(SessionClosed)[0].reason is Refusal.CERTIFICATE_MISSING


def test_unfinished_handshake_ends_with_the_hand_window() -> None:
    pair = Pair()
    pair.run(lambda pair: pair.session is not None)
    pair.link.loss = 1.0
    pair.run(seconds=120)
    (closed,) = pair.of_server(SessionClosed)
    assert closed.reason is Refusal.HANDSHAKE_TIMEOUT


def test_garbage_instead_of_tls_is_a_tls_failure() -> None:
    session = direct_session()
    session.receive_packet(packet(1, b"GET / HTTP/1.0\r\n\r\n"), 0.0)
    assert session.next_event() == SessionClosed(Refusal.TLS_FAILURE, "http request")
    assert session.closed


@pytest.mark.parametrize(
    "settings",
    [
        SessionSettings(max_packets_before_login=3),
        SessionSettings(max_bytes_before_login=1000),
        SessionSettings(max_tls_bytes=2000),
        SessionSettings(max_key_method_bytes=100),
    ],
)
def test_what_a_handshake_may_cost_is_bounded(settings: SessionSettings) -> None:
    pair = Pair(settings=settings)
    pair.run(seconds=5)
    (closed,) = pair.of_server(SessionClosed)
    assert closed.reason is Refusal.PROTOCOL_VIOLATION


def test_zero_data_key_ends_the_session_instead_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvpnd.wire.key_state.export_key2", lambda _tls: bytearray(256))
    pair = Pair()
    pair.run(seconds=5)
    assert pair.of_server(SessionClosed)[0].reason is Refusal.PROTOCOL_VIOLATION
    assert not pair.of_server(KeysReady)


# -- packets of somebody else


def direct_session(transport: Transport = Transport.UDP, settings: SessionSettings | None = None) -> Session:
    return Session(
        settings or SessionSettings(),
        0.0,
        ssl_context=server_context,
        remote_session_id=b"\x01" * 8,
        local_session_id=b"\x02" * 8,
        transport=transport,
        cookie_echoed=True,
    )


def packet(
    packet_id: int,
    payload: bytes = b"",
    *,
    opcode: Opcode = Opcode.CONTROL_V1,
    key_id: int = 0,
    sid: bytes = b"\x01" * 8,
) -> bytes:
    return serialise_packet(ControlPacket(opcode, key_id, sid, (), b"", packet_id, payload))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (packet(1, sid=b"\x09" * 8), DropReason.UNROUTABLE),
        (packet(1, key_id=1), DropReason.UNKNOWN_KEY_ID),
        (packet(0, opcode=Opcode.SOFT_RESET_V1, key_id=1), DropReason.EARLY_SOFT_RESET),
        (packet(1, opcode=Opcode.HARD_RESET_CLIENT_V2), DropReason.LATE_PACKET),
        (packet(0, opcode=Opcode.HARD_RESET_SERVER_V2), DropReason.BAD_OPCODE),
        (packet(20), DropReason.BEYOND_WINDOW),
        (packet(0), DropReason.DUPLICATE),
        (b"\x20short", DropReason.TRUNCATED),
        (b"\x48\0\0\0" + bytes(30), DropReason.BAD_OPCODE),
    ],
)
def test_useless_packet_costs_a_counter_and_nothing_else(raw: bytes, reason: DropReason) -> None:
    session = direct_session()
    session.receive_packet(raw, 0.0)
    assert session.drops == {reason: 1}
    assert session.next_event() is None
    assert not session.closed


def test_malformed_packet_ends_a_tcp_session() -> None:
    session = direct_session(Transport.TCP)
    session.receive_packet(b"\x20short", 0.0)
    event = session.next_event()
    assert isinstance(event, SessionClosed)
    assert event.reason is Refusal.PROTOCOL_VIOLATION
    session.receive_packet(packet(1), 0.0)
    assert session.drops[DropReason.CLOSED] == 1


def test_decision_without_credentials_is_our_mistake_and_one_after_the_end_is_not() -> None:
    session = direct_session()
    with pytest.raises(UsageError):
        session.accept([], 0.0)
    pair = Pair(decide=lambda *_: None)
    pair.run(lambda pair: bool(pair.of_server(CredentialsReceived)))
    assert pair.session is not None
    pair.session.close(Refusal.SHUTTING_DOWN)
    pair.session.accept(PUSHED, pair.now)
    pair.session.refuse("late", pair.now, Refusal.SESSION_LIMIT)
    pair.run(seconds=1)
    assert [type(event) for event in pair.server_events][-1] is SessionClosed


# -- text and the end


def test_exit_message_ends_service_at_once_and_the_session_later() -> None:
    pair = Pair()
    pair.connect()
    pair.client.exit()
    pair.run(lambda pair: bool(pair.of_server(PeerExit)), seconds=2)
    assert pair.of_server(KeyRetired) == [KeyRetired(0)]
    assert not pair.of_server(SessionClosed)
    pair.run(seconds=6)
    assert pair.of_server(SessionClosed)[0].reason is End.CLIENT_EXIT


class DeadLink(NoisyLink):
    """Loses all that is sent before ``alive_at``."""

    alive_at = 0.0

    def arrivals(self, now: float) -> list[float]:
        return super().arrivals(now) if now >= self.alive_at else []


GOODBYES = pytest.mark.parametrize(
    ("verb", "text", "reason"), [("halt", "HALT,bye", End.TERMINATED), ("restart", "RESTART,[P]:bye", End.SHUTDOWN)]
)


@GOODBYES
@pytest.mark.parametrize("dead_s", [0.0, 1.0])
def test_goodbye_is_repeated_until_it_arrives(verb: str, text: str, reason: End, dead_s: float) -> None:
    pair = Pair(link=DeadLink())
    pair.connect()
    assert pair.session is not None
    pair.link.alive_at = pair.now + dead_s
    getattr(pair.session, verb)("bye", pair.now, reason)
    getattr(pair.session, verb)("bye again", pair.now, reason)
    told_at = pair.now
    assert pair.run(lambda pair: bool(pair.of_client(Told)), seconds=10)
    assert [event.text for event in pair.of_client(Told)] == [text]
    pair.run(lambda pair: bool(pair.of_server(SessionClosed)), seconds=10)
    assert pair.now == pytest.approx(told_at + 5)
    assert pair.of_server(SessionClosed) == [SessionClosed(reason, text)]


@GOODBYES
@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("dead_s", [0.0, 3.0, 12.0])
@pytest.mark.parametrize("accepted", [True, False])
def test_goodbye_before_our_key_message_is_acknowledged_is_heard(
    verb: str, text: str, reason: End, transport: Transport, dead_s: float, accepted: bool
) -> None:
    """Whatever login has said by then, and however late the acknowledgement comes; no key and no option go with it."""
    client = LightClient(client_context(), 0.0, transport=transport)
    pair = Pair(client, link=DeadLink(), transport=transport, decide=accept_everyone if accepted else lambda *_: None)
    assert pair.run(lambda pair: bool(pair.of_server(CredentialsReceived)))
    assert pair.session is not None
    assert (pair.session.negotiated is not None) is accepted and not pair.of_server(KeysReady)
    pair.link.alive_at = pair.now + dead_s
    getattr(pair.session, verb)("bye", pair.now, reason)
    assert pair.run(lambda pair: bool(pair.of_client(Told)), seconds=35)
    assert [event.text for event in pair.of_client(Told)] == [text]
    assert not pair.client.options and not pair.of_server(KeysReady)
    assert pair.run(lambda pair: bool(pair.of_server(SessionClosed)), seconds=6)
    assert pair.of_server(SessionClosed) == [SessionClosed(reason, text)]


def test_goodbye_to_a_client_that_never_acknowledges_our_key_message_waits_a_few_repetitions() -> None:
    pair = Pair(link=DeadLink())
    assert pair.run(lambda pair: bool(pair.of_server(CredentialsReceived)))
    assert pair.session is not None
    pair.link.alive_at = math.inf
    sent_away_at = pair.now
    pair.session.halt("bye", pair.now, End.TERMINATED)
    assert pair.run(lambda pair: bool(pair.of_server(SessionClosed)), seconds=100)
    assert pair.now == pytest.approx(sent_away_at + pair.settings.last_ack_s, abs=0.1)


def test_goodbye_before_the_key_exchange_just_closes() -> None:
    pair = Pair(decide=lambda *_: None)
    assert pair.run(lambda pair: pair.session is not None)
    assert pair.session is not None and not pair.of_server(TlsEstablished)
    pair.session.restart("", pair.now, End.SHUTDOWN)
    pair.run(seconds=1)
    assert pair.of_server(SessionClosed)[0].reason is End.SHUTDOWN


def test_what_has_not_left_before_the_last_words_is_not_said() -> None:
    """Keys that cannot be installed: the PUSH_REPLY that goes with them must not follow the failure."""
    pair = Pair()
    assert pair.run(lambda pair: bool(pair.of_server(CredentialsReceived)))
    session = pair.session
    assert session is not None
    pump, announced = pair._pump, []

    def installs_nothing() -> None:
        announced.extend(event for event in session.events if isinstance(event, KeysReady))
        if announced:
            session.restart("bye", pair.now, Refusal.INTERNAL_ERROR)
        pump()

    pair._pump = installs_nothing  # type: ignore[method-assign]
    assert pair.run(lambda pair: bool(pair.of_client(Told)))
    assert announced and not pair.client.options
    assert [event.text for event in pair.of_client(Told)] == ["RESTART,[P]:bye"]


@pytest.mark.parametrize(
    ("version", "flags"), [("2.4.7", "PN"), ("2.6.14", "PN"), ("2.7_git", "PN"), ("3.11.1", "P"), ("", "P")]
)
def test_openvpn_2_is_told_when_it_is_to_come_back_elsewhere(version: str, flags: str) -> None:
    """It would try where nobody listens for a minute, over UDP. OpenVPN 3 goes on to its next remote, and takes no
    other flags."""
    pair = Pair(light_client(peer_info=PEER_INFO_26 | {"IV_VER": version}))
    pair.connect()
    assert pair.session is not None
    pair.session.restart("bye", pair.now, End.CONFIGURATION_CHANGED, elsewhere=True)
    pair.run(lambda pair: bool(pair.of_client(Told)), seconds=10)
    assert [event.text for event in pair.of_client(Told)] == [f"RESTART,[{flags}]:bye"]


def test_options_that_change_before_they_are_pushed_are_pushed_as_they_are_then() -> None:
    """No update comes before the PUSH_REPLY, whoever takes updates; and the token is the client's own."""
    token = ("auth-token secret",)

    def decide(pair: Pair, event: CredentialsReceived) -> None:
        assert pair.session is not None and event.key_id == 0
        pair.session.accept(PUSHED, pair.now, peer_id=5, token=token)
        assert pair.session.can_change_options
        pair.session.change_options([*PUSHED[:-1], "ping 7"], ["ping 7"])

    pair = Pair(decide=decide)
    pair.connect()
    pair.run(seconds=5)
    assert not pair.of_client(Told) and pair.client.options[:4] == (*PUSHED[:-1], "ping 7", *token)
    assert pair.session is not None and not pair.session.can_change_options, "2.6"
    pair.session.change_options(["ping 8"], ["ping 8"])
    pair.run(seconds=30)
    pair.client.send_message("PUSH_REQUEST")
    pair.run(seconds=5)
    assert pair.client.options[:2] == ("ping 8", *token)


def test_who_takes_updates_is_whom_options_can_be_changed_for() -> None:
    takes = int(PEER_INFO_26["IV_PROTO"]) | Capability.PUSH_UPDATE
    for proto in (PEER_INFO_26["IV_PROTO"], str(takes)):
        pair = Pair(light_client(peer_info=PEER_INFO_26 | {"IV_PROTO": proto}))
        pair.connect()
        pair.run(seconds=5)
        assert pair.session is not None
        assert pair.session.can_change_options is (int(proto) == takes)


def test_text_goes_both_ways() -> None:
    pair = Pair()
    pair.connect()
    assert pair.session is not None
    pair.session.change_options(PUSHED, ["ping 7"])
    pair.client.send_message("CR_RESPONSE,Zm9v")
    pair.run(seconds=2)
    assert pair.of_client(Told) == [Told("PUSH_UPDATE,ping 7")]
    assert pair.of_server(MessageReceived) == [MessageReceived("CR_RESPONSE,Zm9v")]


def test_idle_session_wakes_nobody_until_its_renegotiation() -> None:
    pair = Pair(settings=SessionSettings(renegotiate_s=3600))
    pair.connect()
    pair.run(seconds=3)
    assert pair.session is not None
    timeout = pair.session.next_timeout()
    assert timeout is not None
    assert 3590 < timeout < 3601
