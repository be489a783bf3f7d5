"""New keys for a session that goes on: by either side, by both, when it fails, and what becomes of the old ones."""

from __future__ import annotations

import pytest
from helpers.pair import PUSHED, NoisyLink, Pair, client_context, pki, same_keys, server_context, tls_context
from light_client.generations import Habits
from light_client.protocol import PEER_INFO_26, LightClient, Told
from OpenSSL import SSL

from cvpnd.reasons import End, Refusal
from cvpnd.wire.errors import DropReason
from cvpnd.wire.events import (
    CredentialsReceived,
    KeyRetired,
    KeysReady,
    PeerExit,
    RenegotiationFailed,
    RenegotiationStarted,
    SessionClosed,
    UseKey,
)
from cvpnd.wire.messages import EXIT
from cvpnd.wire.packet import ControlPacket, Opcode, Transport, parse_packet, serialise_packet
from cvpnd.wire.session import Session
from cvpnd.wire.settings import SessionSettings


def connected(**kwargs: object) -> tuple[Pair, Session]:
    pair = Pair(**kwargs)  # type: ignore[arg-type]
    pair.connect(seconds=3600)
    pair.run(seconds=1)
    assert pair.session is not None
    return pair, pair.session


def key_ids(pair: Pair, kind: type) -> list[int]:
    return [event.key_id for event in pair.of_server(kind)]


@pytest.mark.parametrize("by", ["server", "client", "both"])
@pytest.mark.parametrize("transport", Transport)
def test_new_key_by_either_side_and_by_both_at_once(by: str, transport: Transport) -> None:
    client = LightClient(client_context(), 0.0, transport=transport)
    pair, session = connected(client=client, transport=transport)
    if by != "client":
        session.renegotiate(pair.now)
    if by != "server":
        pair.client.renegotiate(pair.now)
    pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2, seconds=30)
    pair.run(seconds=1)
    assert key_ids(pair, KeysReady) == [0, 1]
    assert pair.of_server(RenegotiationStarted) == [RenegotiationStarted(1, by_peer=by == "client")]
    assert same_keys(pair)
    assert pair.client.sending_key_id == 1
    assert session.established


@pytest.mark.parametrize("seed", range(10))
def test_renegotiation_over_a_bad_link(seed: int) -> None:
    link = NoisyLink(seed, loss=0.2, duplication=0.2, reordering=0.3)
    settings = SessionSettings(hand_window_s=1800, soft_reset_interval_s=0)
    client = LightClient(client_context(), 0.0, hand_window_s=1800)
    pair, session = connected(client=client, link=link, settings=settings)
    for number in range(1, 4):
        (session if number % 2 else pair.client).renegotiate(pair.now)
        assert pair.run(lambda pair, n=number: len(pair.of_server(KeysReady)) > n, seconds=1700)
        pair.run(seconds=200)
    assert same_keys(pair)


def test_key_ids_count_from_1_to_7_and_again_without_0() -> None:
    pair, session = connected()
    for _ in range(9):
        count = len(pair.of_server(KeysReady))
        session.renegotiate(pair.now)
        assert pair.run(lambda pair, c=count: len(pair.of_server(KeysReady)) > c, seconds=30)
        pair.run(seconds=1)
    assert key_ids(pair, KeysReady) == [0, 1, 2, 3, 4, 5, 6, 7, 1, 2]
    assert key_ids(pair, KeyRetired) == [0, 1, 2, 3, 4, 5, 6, 7], "all but the primary and its lame duck"


def test_second_start_while_one_is_under_way_does_nothing() -> None:
    pair, session = connected()
    session.renegotiate(pair.now)
    session.renegotiate(pair.now)
    pair.run(seconds=2)
    assert len(pair.of_server(RenegotiationStarted)) == 1


def test_server_starts_by_its_timer_up_to_a_tenth_early() -> None:
    def session(jitter: float) -> float:
        pair = Pair(settings=SessionSettings(renegotiate_s=1000))
        pair.run(lambda pair: pair.session is not None)
        assert pair.session is not None
        pair.session._keys._jitter = jitter
        pair.run(lambda pair: len(pair.of_server(RenegotiationStarted)) > 0, seconds=2000)
        return pair.now

    assert session(0.0) == pytest.approx(1000, abs=1)
    assert session(1.0) == pytest.approx(900, abs=1)


def test_no_push_reply_after_a_renegotiation() -> None:
    pair, session = connected()
    sent = len(pair.to_client)
    session.renegotiate(pair.now)
    pair.run(seconds=100)
    texts = [parse_packet(packet) for packet in pair.to_client[sent:]]
    assert {packet.key_id for packet in texts if packet.opcode is Opcode.CONTROL_V1} == {1}
    assert pair.client.options.count("topology subnet") == 1
    assert not pair.of_client(Told)


@pytest.mark.parametrize(("renegotiate_s", "grace"), [(3600, 60), (40, 20), (0, 60)])
def test_new_key_is_used_for_sending_after_its_grace_time(renegotiate_s: float, grace: float) -> None:
    pair, session = connected(settings=SessionSettings(renegotiate_s=renegotiate_s))
    session.renegotiate(pair.now)
    started = pair.now
    pair.run(lambda pair: bool(pair.of_server(UseKey)), seconds=100)
    assert pair.of_server(UseKey) == [UseKey(1)]
    assert pair.now == pytest.approx(started + grace)


def test_confirmed_key_needs_no_grace_time() -> None:
    pair, session = connected()
    session.renegotiate(pair.now)
    pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2)
    session.key_confirmed(0, pair.now)
    session.key_confirmed(1, pair.now)
    pair.run(seconds=200)
    assert not pair.of_server(UseKey)


def test_lame_duck_expires_after_the_transition_window() -> None:
    pair, session = connected(settings=SessionSettings(renegotiate_s=0, tran_window_s=300))
    started = pair.now
    session.renegotiate(pair.now)
    pair.run(lambda pair: bool(pair.of_server(KeyRetired)), seconds=1000)
    assert pair.of_server(KeyRetired) == [KeyRetired(0)]
    assert pair.now == pytest.approx(started + 300)
    assert session.established


@pytest.mark.parametrize("confirmed", [True, False])
def test_tls_object_of_an_old_key_is_dropped_once_the_client_has_left_it(confirmed: bool) -> None:
    pair, session = connected()
    session.renegotiate(pair.now)
    pair.run(lambda _pair: session._keys.lame_duck is not None)
    assert session._keys.lame_duck is not None
    assert session._keys.lame_duck.tls is not None, "OpenVPN 3 goes on with it"
    if confirmed:
        session.key_confirmed(1, pair.now)
    else:
        pair.run(seconds=SessionSettings().hand_window_s + 1)
    assert session._keys.lame_duck is not None
    assert session._keys.lame_duck.tls is None
    assert session._keys.primary is not None
    assert session._keys.primary.tls is not None
    assert session._keys.primary.client_source is None, "secrets of the exchange are gone"


def test_no_further_key_of_ours_before_the_client_has_left_the_old_one() -> None:
    """It would take the place of the key that the client still sends with."""
    pair, session = connected(settings=SessionSettings(renegotiate_s=5))
    pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2)
    pair.run(seconds=55)
    assert (key_ids(pair, RenegotiationStarted), pair.of_server(KeyRetired)) == ([1], [])
    pair.run(lambda pair: len(pair.of_server(KeysReady)) == 3, seconds=10)
    session.key_confirmed(2, pair.now)
    pair.run(seconds=6)
    assert key_ids(pair, RenegotiationStarted) == [1, 2, 3], "as often as is wanted once it has"
    assert key_ids(pair, KeyRetired) == [0, 1]


@pytest.mark.parametrize("kind", ["close notify", "nonsense"])
def test_what_goes_wrong_with_an_old_key_leaves_the_session_alone(kind: str) -> None:
    pair, session = connected()
    session.renegotiate(pair.now)
    pair.run(lambda _pair: session._keys.lame_duck is not None)
    pair.run(seconds=1)
    old = pair.client._keys[0]
    if kind == "close notify":
        old.tls.send(b"farewell\0")
        old.tls._connection.shutdown()
        old.flush()
    else:
        old.reliable.queue_stream(b"nonsense" * 20)
    pair.run(seconds=1)
    assert session._keys.lame_duck is not None and session._keys.lame_duck.tls is None
    assert session.established and not pair.of_server(PeerExit)
    pair.client.exit()
    pair.run(lambda pair: bool(pair.of_server(PeerExit)), seconds=2)


def test_text_during_a_renegotiation_goes_over_the_new_key() -> None:
    """A client reads nothing on the old key once it has seen the soft reset."""
    pair, session = connected()
    session.renegotiate(pair.now)
    pair.run(lambda pair: pair.client.key_id == 1)
    session.change_options(PUSHED, ["ping 7"])
    sent = len(pair.to_client)
    pair.run(lambda pair: bool(pair.of_client(Told)), seconds=10)
    assert pair.of_client(Told) == [Told("PUSH_UPDATE,ping 7")]
    after = [parse_packet(packet) for packet in pair.to_client[sent:]]
    assert {packet.key_id for packet in after if packet.opcode is Opcode.CONTROL_V1} == {1}


def updates_told(pair: Pair) -> list[str]:
    return [event.text for event in pair.of_client(Told)]


@pytest.mark.parametrize("transport", Transport)
def test_updates_that_cross_a_soft_reset_are_said_again_over_the_key_that_it_begins(transport: Transport) -> None:
    """Nothing else would tell the client: the gateway believes that it has its routes."""
    pair, session = connected(client=LightClient(client_context(), 0.0, transport=transport), transport=transport)
    pair.client.renegotiate(pair.now)
    for option in ("ping 7", "ping 8"):
        session.change_options(PUSHED, [option])
        session.packets_to_send(pair.now)  # which are lost besides
    pair.run(lambda pair: len(key_ids(pair, KeysReady)) == 2, seconds=30)
    session.change_options(PUSHED, ["ping 9"])
    pair.run(seconds=10)
    assert updates_told(pair) == [f"PUSH_UPDATE,ping {number}" for number in (7, 8, 9)]
    assert not session._outbox.holds_text, "and none is kept"


@pytest.mark.parametrize("by", ["server", "client"])
def test_an_update_that_was_acknowledged_is_said_once(by: str) -> None:
    pair, session = connected()
    session.change_options(PUSHED, ["ping 7"])
    pair.run(seconds=2)
    assert not session._outbox.holds_text
    session.ask_alive()  # something else that is not acknowledged yet
    (session if by == "server" else pair.client).renegotiate(pair.now)
    pair.run(lambda pair: len(key_ids(pair, KeysReady)) == 2, seconds=30)
    pair.run(seconds=10)
    assert updates_told(pair) == ["PUSH_UPDATE,ping 7"]


def test_an_update_that_a_client_reads_on_its_old_key_is_said_once() -> None:
    """As OpenVPN 3 does."""
    client = LightClient(client_context(), 0.0, habits=Habits(keeps_old_key_s=60.0))
    pair, session = connected(client=client)
    pair.client.renegotiate(pair.now)
    session.change_options(PUSHED, ["ping 7"])
    pair.run(seconds=20)
    assert key_ids(pair, KeysReady) == [0, 1]
    assert updates_told(pair) == ["PUSH_UPDATE,ping 7"]


def test_last_words_during_a_renegotiation_go_over_both_keys() -> None:
    pair, session = connected()
    session.renegotiate(pair.now)
    pair.run(lambda pair: pair.client.key_id == 1)
    session.halt("bye", pair.now, End.TERMINATED)
    pair.run(lambda pair: bool(pair.of_server(SessionClosed)), seconds=10)
    assert pair.client.failed == "HALT,bye"
    assert session.closed


@pytest.mark.parametrize("transport", Transport)
def test_last_words_that_cross_a_soft_reset_go_over_the_key_that_it_begins(transport: Transport) -> None:
    """From its soft reset on a client reads nothing on the old key: it would go on until it misses our pings."""
    pair, session = connected(client=LightClient(client_context(), 0.0, transport=transport), transport=transport)
    pair.client.renegotiate(pair.now)
    session.halt("bye", pair.now, End.TERMINATED)
    ended_at = pair.now
    pair.run(lambda pair: bool(pair.client.failed), seconds=10)
    assert pair.client.failed == "HALT,bye"
    pair.run(lambda pair: bool(pair.of_server(SessionClosed)), seconds=20)
    assert pair.now <= ended_at + 2 * pair.settings.exit_delay_s
    assert key_ids(pair, KeysReady) == [0] and key_ids(pair, KeyRetired) == [0], "there is no service any more"


def test_who_is_told_that_it_is_over_can_begin_one_key_and_no_second_one() -> None:
    pair, session = connected(settings=SessionSettings(soft_reset_interval_s=0))
    session.halt("bye", pair.now, End.TERMINATED)
    pair.client.renegotiate(pair.now)
    pair.run(lambda pair: bool(pair.client.failed), seconds=10)
    pair.client.renegotiate(pair.now)
    pair.run(lambda pair: bool(pair.of_server(SessionClosed)), seconds=20)
    assert key_ids(pair, RenegotiationStarted) == [1]
    assert session.drops[DropReason.EARLY_SOFT_RESET] >= 1


def test_who_has_said_goodbye_begins_no_key() -> None:
    pair, session = connected()
    pair.client.send_message(EXIT)
    pair.run(lambda pair: bool(pair.of_server(PeerExit)), seconds=10)
    pair.client.renegotiate(pair.now)
    pair.run(lambda pair: bool(pair.of_server(SessionClosed)), seconds=20)
    assert not pair.of_server(RenegotiationStarted)
    assert session.drops[DropReason.EARLY_SOFT_RESET] >= 1


# -- when it fails


def test_failed_attempt_keeps_the_old_key_and_is_repeated_with_the_same_id() -> None:
    pair, session = connected(settings=SessionSettings(renegotiate_s=100))
    pair.link.loss = 1.0
    pair.run(lambda pair: bool(pair.of_server(RenegotiationFailed)), seconds=300)
    assert session.established
    pair.link.loss = 0.0
    pair.run(lambda _pair: session._keys.lame_duck is not None, seconds=300)
    assert key_ids(pair, RenegotiationStarted) == [1, 1]
    assert key_ids(pair, KeysReady) == [0, 1]
    assert same_keys(pair)


def test_session_ends_when_the_last_key_expires_without_a_successor() -> None:
    pair, session = connected(settings=SessionSettings(renegotiate_s=100, tran_window_s=400))
    pair.link.loss = 1.0
    pair.run(lambda pair: bool(pair.of_server(SessionClosed)), seconds=2000)
    assert pair.now == pytest.approx(500, abs=2)
    assert pair.of_server(SessionClosed)[0].reason is End.RENEGOTIATION_FAILED
    assert pair.of_server(KeyRetired) == [KeyRetired(0)]
    assert session.closed


def test_refused_renegotiation_ends_the_session() -> None:
    pair, session = connected()
    pair.decide = lambda pair, event: session.refuse("expired", pair.now, End.CERTIFICATE_REVOKED)
    session.renegotiate(pair.now)
    pair.run(seconds=10)
    assert pair.client.failed == "AUTH_FAILED,expired"
    assert pair.of_server(KeyRetired) == [KeyRetired(0)]
    assert pair.of_server(SessionClosed)[0].reason is End.CERTIFICATE_REVOKED
    assert len(pair.of_server(KeysReady)) == 1


def test_other_certificate_in_a_renegotiation_is_refused() -> None:
    pair, session = connected()
    pair.client._context = tls_context(pki().other_client, server=False)
    session.renegotiate(pair.now)
    pair.run(seconds=10)
    assert pair.of_server(SessionClosed)[0].reason is Refusal.IDENTITY_CHANGED
    assert len(pair.of_server(CredentialsReceived)) == 1, "login is not even asked"
    assert pair.client.failed is not None
    assert pair.client.failed.startswith("AUTH_FAILED")


def test_other_username_in_a_renegotiation_is_refused() -> None:
    pair, session = connected()
    pair.client.username = "somebody else"
    session.renegotiate(pair.now)
    pair.run(seconds=10)
    assert pair.of_server(SessionClosed)[0].reason is Refusal.IDENTITY_CHANGED


def test_certificate_revoked_meanwhile_ends_the_session() -> None:
    revoked: list[bool] = []

    def verify(connection: SSL.Connection, certificate: object, error: int, depth: int, ok: int) -> bool:
        if revoked:
            connection.get_app_data().refusal = Refusal.CERTIFICATE_REVOKED
        return not revoked

    pair, session = connected(context=tls_context(pki().server, server=True, verify=verify))
    revoked.append(True)
    session.renegotiate(pair.now)
    pair.run(seconds=10)
    assert pair.of_server(SessionClosed)[0].reason is Refusal.CERTIFICATE_REVOKED
    assert pair.of_server(KeyRetired) == [KeyRetired(0)]


def test_garbage_in_a_renegotiation_costs_only_the_attempt() -> None:
    without_dynamic_tls_crypt = PEER_INFO_26 | {"IV_PROTO": "478"}
    pair, session = connected(client=LightClient(client_context(), 0.0, peer_info=without_dynamic_tls_crypt))
    session.renegotiate(pair.now)
    session.packets_to_send(pair.now)  # lost
    garbage = ControlPacket(Opcode.CONTROL_V1, 1, pair.client.session_id, (), b"", 1, b"garbage, not TLS")
    reset = ControlPacket(Opcode.SOFT_RESET_V1, 1, pair.client.session_id, (), b"", 0)
    for packet in (reset, garbage):
        session.receive_packet(serialise_packet(packet), pair.now)
    pair.run(lambda pair: bool(pair.of_server(RenegotiationFailed)), seconds=1)
    assert pair.of_server(RenegotiationFailed)
    assert session.established


def test_soft_resets_of_the_client_are_rate_limited() -> None:
    pair, session = connected(settings=SessionSettings(soft_reset_interval_s=10, renegotiate_s=0))
    for _ in range(2):
        pair.client.renegotiate(pair.now)
        pair.run(seconds=1)
    assert len(pair.of_server(KeysReady)) == 2
    assert session.drops[DropReason.RATE_LIMITED] > 0
    pair.run(seconds=15)
    assert len(pair.of_server(KeysReady)) == 3, "it repeats the dropped one"


def test_a_client_that_counts_whole_seconds_and_renews_every_five_is_never_held_up() -> None:
    pair, session = connected(settings=SessionSettings(renegotiate_s=0))
    for keys in (2, 3, 4):
        pair.client.renegotiate(pair.now)
        pair.run(seconds=4.1)
        assert len(pair.of_server(KeysReady)) == keys
    assert session.drops[DropReason.RATE_LIMITED] == 0


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_prf_and_exporter_stay_as_negotiated(version: int) -> None:
    for proto in ("990", "6"):
        info = {"IV_PROTO": proto, "IV_NCP": "2"}
        client = LightClient(client_context(version), 0.0, peer_info=info)
        pair, session = connected(client=client, context=server_context(version))
        pair.client._peer_info = {"IV_PROTO": "2"}  # what it says later changes nothing
        session.renegotiate(pair.now)
        pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2)
        pair.run(seconds=1)
        assert same_keys(pair)


def test_data_keys_of_a_renegotiation_are_ready_before_the_client_can_use_them() -> None:
    """A client whose other keys are younger than its grace time sends with the new one as soon as it has our key
    message; over TCP its data and its last acknowledgement then share a segment."""
    pair, session = connected()
    session.renegotiate(pair.now)
    pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2)
    assert session._keys.pending is not None, "the client has not even acknowledged the key message"
    assert pair.client.key_id == 1
    assert pair.client.sending_key_id == 0


def test_data_under_the_new_key_stands_in_for_a_lost_acknowledgement() -> None:
    pair, session = connected()
    session.renegotiate(pair.now)
    pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2)
    session.key_confirmed(1, pair.now)
    assert session._keys.pending is None
    assert session._keys.lame_duck is not None


def test_abandoned_renegotiation_takes_its_data_keys_back() -> None:
    pair, session = connected()
    session.renegotiate(pair.now)
    pair.run(lambda pair: len(pair.of_server(KeysReady)) == 2)
    pair.link.loss = 1.0
    pair.run(lambda pair: bool(pair.of_server(RenegotiationFailed)), seconds=100)
    assert [event.key_id for event in pair.of_server(KeyRetired)] == [1]
    assert session.established
