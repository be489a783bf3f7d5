"""What attackers found in other VPN servers, tried on ours: ``KNOWN`` says where each is tried."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import wire_vectors as v
from helpers.pair import CLIENT_ADDRESS, NoisyLink, Pair, client_context, server_context
from helpers.places import check_place
from helpers.story import STRANGER
from helpers.world import SETTLING_S, Device, World
from helpers.wrappings import CASES, NAMES
from light_client.protocol import PEER_INFO_26, Connected, LightClient, Told

from cvpnd.dataplane.api import Drop, SocketAddress
from cvpnd.reasons import End, Refusal
from cvpnd.server.connection import Phase
from cvpnd.server.control import ABSORB_S
from cvpnd.wire.errors import DropReason
from cvpnd.wire.events import CredentialsReceived, KeysReady, MessageReceived, SessionClosed
from cvpnd.wire.key_method import parse_peer_info
from cvpnd.wire.messages import serialise_message
from cvpnd.wire.negotiation import Unsupported, negotiate
from cvpnd.wire.packet import ControlPacket, Opcode, serialise_packet
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.session import Session
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.stateless import answer_reset, check_echo, open_stream

ROOT = Path(__file__).parents[2]
HERE = "attacks/test_known_attacks.py"

KNOWN: dict[str, tuple[str, ...]] = {
    "CVE-2017-7478 oversize control packet": (
        f"{HERE}::test_control_packet_of_any_size_is_taken_or_dropped",
        "wire/test_packet.py::test_payload_beyond_any_receive_buffer_is_refused",
    ),
    "CVE-2017-7479 packet id rollover": (
        f"{HERE}::test_packet_ids_that_run_out_bring_a_new_key",
        "wire/test_reliable.py::test_ids_wrap_around",
        "wire/test_replay.py::test_used_up_ids_begin_again_with_a_later_time",
        "dataplane/test_keys.py::test_sending_asks_for_a_new_key_and_stops_at_the_limit",
    ),
    "CVE-2017-7508 CVE-2017-7520 CVE-2017-7521 CVE-2017-7522 parsing of certificates and inner headers": (
        "auth/test_identity.py::test_a_name_that_is_no_text_is_refused_and_raises_nothing",
        "dataplane/test_hostile.py::test_random_payloads_of_an_authentic_client_reach_nothing",
        "dataplane/test_hostile.py::test_damaged_syn_segments_pass_whole_and_harm_nothing",
        "native/fuzz_link.c",
        "native/fuzz_tun.c",
    ),
    "CVE-2020-11810 float before keys exist": (f"{HERE}::test_data_before_the_keys_exist_moves_nobody",),
    "CVE-2020-15078 CVE-2022-0547 access before login has decided": (
        f"{HERE}::test_nothing_is_pushed_before_login_has_decided",
        f"{HERE}::test_data_passes_only_after_login",
        "wire/test_key_state.py::test_only_yes_leads_to_authenticated",
        "wire/test_session.py::test_refused_client_gets_no_push_whatever_it_asks",
    ),
    "CVE-2021-4234 amplification": (
        f"{HERE}::test_a_reset_from_anywhere_gets_one_short_answer",
        "wire/test_protected_session.py::test_unproven_address_hears_no_more_than_it_says",
        "fuzz/test_stories.py::test_new_story",
    ),
    "CVE-2022-33737 CVE-2022-33738 secrets in logs, weak random numbers": (
        f"{HERE}::test_no_log_line_shows_a_secret",
        f"{HERE}::test_what_is_random_to_others_is_cryptographic",
        "wire/test_wrappings.py::test_no_key_is_ever_shown",
        "wire/test_key_method.py::test_secrets_do_not_show",
    ),
    "CVE-2023-46849 fragment": (f"{HERE}::test_fragments_are_not_spoken",),
    "CVE-2023-46850 use after free on send": (
        "native/fuzz_tun.c",
        "native/stress_workers.c",
        "dataplane/test_lifecycle.py::test_changes_while_all_workers_forward_lose_nothing_of_the_others",
    ),
    "CVE-2024-5594 control characters in messages": (
        f"{HERE}::test_control_characters_are_refused_and_line_ends_tolerated",
        "wire/test_messages.py::test_trailing_line_ends_are_tolerated_and_others_refused",
    ),
    "CVE-2024-28882 a client postpones its end": (f"{HERE}::test_a_kill_is_final_whatever_the_client_says",),
    "CVE-2025-2704 CVE-2026-35058 CVE-2026-12932 CVE-2026-13698 tls-crypt-v2 keys": (
        f"{HERE}::test_repeated_and_changed_client_keys_leave_nothing",
        "wire/test_protected_session.py::test_a_second_client_key_in_mid_session_changes_nothing",
        "wire/test_wrappings.py::test_every_changed_bit_and_every_cut_of_a_wkc_is_refused",
        "wire/test_wrappings.py::test_another_genuine_wkc_does_not_change_a_sessions_key",
        "e2e/test_control_protection.py::test_flood_of_client_keys_costs_no_ping_and_keeps_nobody_out",
        "native/test_stranger.c",
    ),
    "CVE-2025-13086 inverted compare": (
        "attacks/test_compares.py::test_compare_keeps_strangers_out",
        "attacks/test_compares.py::test_compare_in_c_keeps_strangers_out",
        "attacks/test_compares.py::test_wrong_cookie_allocates_nothing",
        "native/test_stranger.c",
    ),
    "CVE-2026-40215 bytes of another handshake": (f"{HERE}::test_handshakes_at_the_same_time_share_no_byte",),
    "CVE-2026-12996 CVE-2026-13117 session promotion and renegotiation": (
        "fuzz/test_stories.py::test_new_story",
        "fuzz/test_stories.py::test_kept_story",
        "fuzz/test_wire_session.py::test_established_session_survives_any_mixture",
    ),
    "CVE-2026-63650 wrong certificate field as identity": ("auth/test_identity.py::test_identity_table",),
    "OpenVPN 3, 2026: length of a client key": (
        "wire/test_wrappings.py::test_every_lie_about_the_length_is_refused",
        "wire/test_wrappings.py::test_every_prefix_of_a_packet_with_a_client_key_is_refused",
    ),
    "CVE-2021-3773 port shadow": ("host/test_traffic.py::test_client_cannot_take_a_listening_port_by_its_source_port",),
    "CVE-2024-3661 TunnelCrack": (
        "policy/test_push.py::test_the_local_network_is_blocked_where_it_has_public_addresses",
        "e2e/test_client_settings.py::test_full_tunnel_takes_everything_and_ipv6_does_not_leak",
    ),
    "CVE-2019-14899 injection from outside the tunnel": (
        "host/test_traffic.py::test_outsider_cannot_inject_into_a_clients_connection",
        "host/test_traffic.py::test_client_address_as_source_is_refused_anywhere_but_on_its_tun",
    ),
    "VORACLE": (
        f"{HERE}::test_compression_is_never_pushed_and_never_accepted",
        "wire/test_negotiation.py::test_compression_framing_is_migrated",
    ),
    "exhaustion by the holder of a certificate or a cookie": (
        "attacks/test_hostile_clients.py::test_answers_do_not_pile_up_for_who_acknowledges_nothing",
        "attacks/test_hostile_clients.py::test_repeated_acknowledgements_do_not_multiply_traffic",
        "attacks/test_hostile_clients.py::test_a_storm_of_key_updates_ends_the_session",
        "attacks/test_hostile_clients.py::test_a_storm_of_soft_resets_costs_a_handshake_now_and_then",
        "attacks/test_hostile_clients.py::test_keys_that_look_used_up_cost_a_handshake_now_and_then",
        "attacks/test_hostile_clients.py::test_a_client_that_moves_to_and_fro_fills_no_log",
        "attacks/test_dear_certificates.py::test_certificates_that_are_work_hold_nobody_up",
        "native/test_certificates.c",
        "attacks/test_hostile_clients.py::test_tiny_frames_leave_the_others_their_turn",
        "dataplane/test_drops.py::test_one_client_leaves_the_others_their_room_in_the_events",
        "native/test_door.c",
    ),
    "handshakes and failed logins without end": (
        "e2e/test_passwords.py::test_guesses_from_a_whole_network_keep_no_user_out",
        "server/test_source_limits.py::test_one_source_begins_so_many_handshakes_in_a_minute",
        "server/test_source_limits.py::test_one_network_cannot_do_with_many_addresses_what_one_may_not",
        "server/test_source_limits.py::test_wrong_certificates_are_tried_so_often_in_a_minute",
        "server/test_source_limits.py::test_one_identity_has_so_many_sessions_and_the_next_is_refused",
    ),
    "handshake ended with forgeries": (
        f"{HERE}::test_forged_packets_do_not_use_up_a_handshakes_share",
        "fuzz/test_mutations.py::test_wrapped_conversation_cannot_be_changed_from_outside",
    ),
}


@pytest.mark.parametrize("attack", KNOWN)
def test_attack_is_tried_where_the_table_says(attack: str) -> None:
    for place in KNOWN[attack]:
        check_place(place)


def test_every_test_of_this_file_is_in_the_table() -> None:
    named = {place.partition("::")[2] for places in KNOWN.values() for place in places if place.startswith(HERE)}
    functions = {node.name for node in ast.parse(Path(__file__).read_text()).body if isinstance(node, ast.FunctionDef)}
    tests = {name for name in functions if name.startswith("test_") and "table" not in name}
    assert tests == named


# -- sizes and numbers --------------------------------------------------------------------------------------


def test_control_packet_of_any_size_is_taken_or_dropped() -> None:
    """CVE-2017-7478: a large first packet was an assertion."""
    cookie = ResetCookie(bytes(32))
    sid = cookie.session_id(CLIENT_ADDRESS, b"client-1", 0.0)
    for size in range(2100):
        reset = serialise_packet(ControlPacket(Opcode.HARD_RESET_CLIENT_V2, 0, b"client-1", packet_id=0)) + bytes(size)
        echo = ControlPacket(Opcode.CONTROL_V1, 0, b"client-1", (0,), sid, 1, bytes(size))
        reply = answer_reset(reset, CLIENT_ADDRESS, 0.0, cookie)
        assert (reply is DropReason.TOO_LONG) == (size > 1600)
        assert (open_stream(reset) is DropReason.TOO_LONG) == (size > 1600)
        outcome = check_echo(serialise_packet(echo), CLIENT_ADDRESS, 0.0, cookie)
        assert (outcome is DropReason.TOO_LONG) == (size > 1600)
        if size % 50 == 0:
            session = Session(
                SessionSettings(), 0.0, ssl_context=server_context, remote_session_id=b"client-1",
                local_session_id=sid, cookie_echoed=True,
            )  # fmt: skip
            session.receive_packet(serialise_packet(echo), 0.0)


@pytest.mark.parametrize("direction", ["to the gateway", "to the client"])
def test_packet_ids_that_run_out_bring_a_new_key(direction: str) -> None:
    """CVE-2017-7479: at the last packet id the server aborted. Ours asks for a new key before, and data goes on."""
    with connected("tls-crypt") as world:
        device = world.devices[0]
        assert device.client is not None
        peer = world.plane.forwarder.peers[world._peer_of(device)]
        if direction == "to the gateway":
            device.data_keys()[0].skip_to(0xFEFFFFF0)
        else:
            assert peer.sending is not None
            peer.sending._last_sealed = 0xFEFFFFF0  # type: ignore[attr-defined]
        for _ in range(40):
            world.send(device)
            world.inject(device.lease)
        world.pass_time(5)
        assert world.control.tally.renegotiations.total() == 1
        world.check_service()


# -- before login has decided -------------------------------------------------------------------------------


def connected(case: str = "plain", *, login_s: float = 0.0, seconds: float = 5.0, **options: object) -> World:
    """To be used as a context manager; the first device is connected unless ``login_s`` says otherwise."""
    world = World(CASES[case], **options)  # type: ignore[arg-type]
    world.login_s = login_s
    world.devices[0].start()
    world.pass_time(seconds)
    assert world.devices[0].connected == (not login_s)
    return world


def test_data_before_the_keys_exist_moves_nobody() -> None:
    """CVE-2020-11810: a data packet that names a peer without keys moved it to the sender's address."""
    with connected(login_s=2.0, seconds=1.0) as world:
        world.link = NoisyLink(loss=1.0)  # login says yes; the client hears nothing, and does not confirm
        world.pass_time(2.0)
        (connection,) = world.connections()
        home = connection.link.remote
        for key_id in range(8):
            for opcode in (6, 9):
                world.deliver((opcode << 27 | key_id << 24 | 0).to_bytes(4, "big") + bytes(60), STRANGER)
        world.pass_time(0.1)
        assert connection.link.remote == home == world.plane.forwarder.peers[0].remote[1]  # type: ignore[index]
        assert world.plane.drops()[Drop.NO_KEY] or world.plane.drops()[Drop.AUTH_FAILED]
        world.settle()


def say(client: LightClient, text: str) -> None:
    """Under every key whose TLS handshake is done, in whatever state it is."""
    for key in client._keys.values():
        if key.tls.established:
            key.tls.send(serialise_message(text))
            key.flush()


@pytest.mark.parametrize("proto", ["990", "478", "2"])
@pytest.mark.parametrize("verdict", ["none", "no"])
def test_nothing_is_pushed_before_login_has_decided(proto: str, verdict: str) -> None:
    """CVE-2020-15078: PUSH_REQUEST was answered while the login was still pending."""
    info = PEER_INFO_26 | {"IV_PROTO": proto}
    pair = Pair(LightClient(client_context(), 0.0, peer_info=info), decide=lambda pair, event: None)
    assert pair.run(lambda pair: pair.client._newest.tls.established)
    for turn in range(60):
        if turn >= 2:
            say(pair.client, "PUSH_REQUEST")
        pair.run(seconds=0.05 if turn < 30 else 5.0)
    assert pair.session is not None and not pair.session.closed
    if verdict == "no":
        pair.session.refuse("", pair.now, Refusal.SESSION_LIMIT)
        for _ in range(20):
            say(pair.client, "PUSH_REQUEST")
            pair.run(seconds=0.5)
        assert [told.text for told in pair.of_client(Told)] == ["AUTH_FAILED"]
    assert len(pair.of_server(CredentialsReceived)) == 1
    assert not pair.client.options and not pair.of_client(Connected) and not pair.of_server(KeysReady)


def test_data_passes_only_after_login() -> None:
    """CVE-2022-0547: everything has to say yes. While the login waits, and after it said no, no data key opens."""
    with connected(login_s=20.0, seconds=5.0) as world:
        assert not world.plane.forwarder.peers and not world.plane.keys
        (connection,) = world.control.table
        assert connection.phase is Phase.LOGIN
        for key_id in range(8):
            world.deliver((9 << 27 | key_id << 24).to_bytes(4, "big") + bytes(60), world.devices[0].address)
        assert world.plane.drops()[Drop.UNKNOWN_PEER] == 8
        world.loop.call_soon(world.control.refuse, connection, Refusal.CERTIFICATE_REVOKED)
        world.pass_time(60)
        assert not world.plane.forwarder.peers and not world.control.admitted


# -- strangers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [True, False], ids=["2.6", "2.5"])
@pytest.mark.parametrize("name", NAMES)
def test_a_reset_from_anywhere_gets_one_short_answer(name: str, early: bool) -> None:
    """CVE-2021-4234: answers to an address that nobody had proven were larger, and repeated."""
    with World(CASES[name], early_negotiation=early) as world:
        device = world.devices[0]
        device.start()
        world.pass_time(0.015)
        reset = next(packet for packet, _ in world.seen if packet[0] >> 3 in (7, 10))
        device.vanish()
        world.told.clear()
        world.deliver(reset, STRANGER)
        world.pass_time(SETTLING_S)
        answers = [packet for packet, address in world.told if address == STRANGER]
        assert len(answers) == 1 and len(answers[0]) <= len(reset) + 12
        assert not len(world.control.table)


def test_forged_packets_do_not_use_up_a_handshakes_share() -> None:
    """Whoever sees the session id may send any number of packets in the client's name; without the key they are not
    the client's."""
    pair = Pair(LightClient(client_context(), 0.0, wrapping=CASES["tls-crypt"].client))
    pair.protection = CASES["tls-crypt"].protection
    assert pair.run(lambda pair: pair.session is not None)
    assert pair.session is not None
    limit = SessionSettings().max_packets_before_login
    for number in range(limit + 10):
        header = bytes([Opcode.CONTROL_V1 << 3]) + pair.client.session_id
        pair.session.receive_packet(header + number.to_bytes(60, "big"), pair.now)
    pair.connect()
    assert pair.session.drops[DropReason.NOT_AUTHENTIC] == limit + 10


def test_repeated_and_changed_client_keys_leave_nothing() -> None:
    """CVE-2025-2704 and its successors: client keys again, in the wrong order, cut and changed, from many addresses."""
    with connected("tls-crypt-v2") as world:
        (live,) = world.connections()
        with_key = [packet for packet, _ in world.seen if packet[0] >> 3 in (10, 11)]
        assert {packet[0] >> 3 for packet in with_key} == {10, 11}
        sources = [world.devices[0].address, *(SocketAddress("203.0.113.66", port) for port in range(1, 40))]
        for packet in with_key:
            wkc = packet[-int.from_bytes(packet[-2:], "big") :]
            changed = [packet + wkc, wkc, packet[:9] + wkc, packet[:-2] + b"\xff\xff", packet[:-2] + b"\0\0"]
            changed += [packet[:at] + bytes([packet[at] ^ 0x80]) + packet[at + 1 :] for at in range(0, len(packet), 7)]
            for variant in (*changed, packet):
                for source in sources:
                    with world.undisturbed():
                        world.deliver(variant, source)
        assert list(world.control.table) == [live]
        world.check_service()
        world.check_empty()


# -- clients that misbehave ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["halt", "restart", "close"])
def test_a_kill_is_final_whatever_the_client_says(verb: str) -> None:
    """CVE-2024-28882: a client that went on talking put off its own end."""
    with connected() as world:
        device = world.devices[0]
        client = device.client
        assert client is not None
        (connection,) = world.connections()
        client._fail = lambda reason: None  # type: ignore[method-assign] - it does not hear of an end
        delay = 0.0 if verb == "close" else SessionSettings().exit_delay_s
        end = getattr(world.control, verb)
        end(connection, End.TERMINATED, *(["over"] if verb == "halt" else []))
        assert not world.plane.forwarder.peers and not list(world.endpoint.leases.leases())
        for turn in range(int(delay + ABSORB_S) * 4 + 4):
            for text in ("PUSH_REQUEST", "EXIT" if turn % 2 else "INFO,wait"):
                say(client, text)
            client.renegotiate(world.now)
            world.send(device)  # the world checks that it does not pass
            device.pump()
            world.pass_time(0.25)
        assert connection.phase is Phase.ENDED and not len(world.control.table)
        assert connection.end_reason is End.TERMINATED


def test_control_characters_are_refused_and_line_ends_tolerated() -> None:
    """CVE-2024-5594: what a peer said reached logs, terminals and plugins as it was."""
    pair = Pair()
    pair.connect()
    session = pair.session
    assert session is not None
    for refused in (b"INFO,\x1b[2Jgone\0", b"CR_RESPONSE,a\nb\0", b"\x01\0", b"INFO,\xff\xfe\0", b"A\x7fB\0"):
        before = session.drops[DropReason.BAD_MESSAGE]
        pair.client._newest.tls.send(refused)
        pair.client._newest.flush()
        pair.run(seconds=1)
        assert session.drops[DropReason.BAD_MESSAGE] == before + 1
    for tolerated in (b"INFO,one\r\n\0", b"INFO,two\n\0", b"INFO,three\0\0\0"):
        pair.client._newest.tls.send(tolerated)
        pair.client._newest.flush()
        pair.run(seconds=1)
    assert [told.text for told in pair.of_server(MessageReceived)] == ["INFO,one", "INFO,two", "INFO,three"]
    assert not pair.of_server(SessionClosed)


def test_fragments_are_not_spoken() -> None:
    """CVE-2023-46849 was a division by a fragment size of zero. A client that is configured for fragments is told."""
    info = parse_peer_info("IV_PROTO=990\nIV_CIPHERS=AES-256-GCM\n")
    assert isinstance(negotiate(["AES-256-GCM"], info, "V4,dev-type tun,mtu-dynamic"), Unsupported)


def test_compression_is_never_pushed_and_never_accepted() -> None:
    """VORACLE: what is compressed before it is encrypted tells its content by its length."""
    stub = {"IV_COMP_STUBv2": "1", "IV_LZO": "1", "IV_LZ4": "1", "IV_LZ4v2": "1", "IV_COMP_STUB": "1"}
    for info in (PEER_INFO_26, PEER_INFO_26 | stub):
        text = "".join(f"{name}={value}\n" for name, value in info.items())
        for occ in ("V4,dev-type tun", "V4,dev-type tun,comp-lzo", "V4,dev-type tun,comp-lzo,cipher AES-256-GCM"):
            outcome = negotiate(["AES-256-GCM"], parse_peer_info(text), occ)
            pushed = [] if isinstance(outcome, Unsupported) else outcome.push_options(5)
            assert [o for o in pushed if o.startswith(("comp", "allow-comp"))] in (
                [],
                ["compress stub-v2"],
                ["comp-lzo no"],
            )
    with connected() as world:
        device = world.devices[0]
        assert device.client is not None
        assert not [option for option in device.client.options if option.startswith("comp")]
        for mark in (b"\x66", b"\x69", b"\xfb\x66", b"\x50\x01"):  # LZO, LZ4 and their version 2 framing
            world.to_server(device.data_keys()[0].seal(mark + bytes(60)), device.address)
        world.pass_time(1)
        assert world.plane.drops()[Drop.NOT_IP] + world.plane.drops()[Drop.BAD_SOURCE] == 4
        world.check_service()


# -- many at once -------------------------------------------------------------------------------------------


def test_handshakes_at_the_same_time_share_no_byte() -> None:
    """CVE-2026-40215: bytes of an earlier handshake came out in a later one. Every client of ours has words of its own
    in all it says; nobody else ever hears them, in clear or under TLS."""
    everybody: list[tuple[bytes, Pair, list[bytes]]] = []
    settings = SessionSettings()
    for number in range(24):
        word = b"CANARY%02d" % number
        client = LightClient(
            client_context(), 0.0, username=word.decode(), password=f"{word.decode()} secret",
            options=f"V4,dev-type tun,{word.decode()}", peer_info=PEER_INFO_26 | {"UV_WORD": word.decode() * 20},
            random=lambda size, word=word: (word * (size // len(word) + 1))[:size],
        )  # fmt: skip
        refuse = number % 3 == 2
        decide = (lambda pair, event: pair.session.refuse("", pair.now, Refusal.SESSION_LIMIT)) if refuse else None
        pair = Pair(client, settings=settings, link=NoisyLink(number, loss=0.1, duplication=0.1), decide=decide)
        heard = listen(client)
        everybody.append((word, pair, heard))
    for turn in range(400):
        for number, (_, pair, _) in enumerate(everybody):
            if number % 5 == 4 and turn < 40:
                continue  # some begin when others have ended
            pair.run(seconds=0.02 if turn < 100 else 0.5)
    assert sum(pair.client.connected for _, pair, _ in everybody) == 16
    for word, pair, heard in everybody:
        out = b"\n".join(pair.to_client) + b"\n".join(heard)
        assert set(re.findall(rb"CANARY\d\d", out)) <= {word}
        assert heard


def listen(client: LightClient) -> list[bytes]:
    """What the client hears under TLS."""
    heard: list[bytes] = []
    tls = client._newest.tls
    receive: Callable[[bytes], list[bytes]] = tls.receive

    class Listening:
        def __getattr__(self, name: str) -> object:
            return getattr(tls, name)

        def receive(self, data: bytes) -> list[bytes]:
            records = receive(data)
            heard.extend(records)
            return records

    client._newest.tls = Listening()  # type: ignore[assignment]
    return heard


# -- secrets ------------------------------------------------------------------------------------------------


def test_no_log_line_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """CVE-2022-33737: passwords and keys in the log, at any level and in any state of a connection."""
    caplog.set_level(logging.DEBUG)
    with connected("tls-crypt-v2") as world:
        device: Device = world.devices[0]
        assert device.client is not None
        keys = list(world.plane.keys.values())
        secrets = {key for k in keys for key in (k.open_key, k.seal_key, k.open_iv, k.seal_iv)}
        secrets |= {v.V3_SERVER_KEY[:32], v.V3_SERVER_KEY[64:96]}
        device.client.renegotiate(world.now)
        device.pump()
        world.pass_time(10)
        world.terminate(device)
        world.pass_time(30)
    text = caplog.text + "".join(repr(k) for k in keys)
    assert caplog.records and secrets
    for secret in secrets:
        assert secret.hex() not in text and repr(secret)[2:-1] not in text


def test_what_is_random_to_others_is_cryptographic() -> None:
    """CVE-2022-33738: tokens from a generator that can be guessed. Ours serves to spread load and for nothing else."""
    uses = {
        f"{path.name}: {match[0]}"
        for path in (ROOT / "cvpnd").rglob("*.py")
        if re.search(r"^(import|from) random\b", text := path.read_text(), re.MULTILINE)
        for match in re.finditer(r"\brandom\.\w+\([^)]*\)", text)
    }
    assert uses == {"control.py: random.random()", "login.py: random.randint(*RETRY_AFTER_S)"}
