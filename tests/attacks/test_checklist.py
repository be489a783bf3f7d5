"""The security checklist of the protocol (openvpn-wire.md section 19), and where each of its points is held.

``CHECKLIST``: the point in few words, the code that sees to it, and the tests that notice if it does not."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.places import check_place

ROOT = Path(__file__).parents[2]
HERE = "attacks/test_checklist.py"


class Point(NamedTuple):
    code: tuple[str, ...]
    tests: tuple[str, ...]


CHECKLIST: dict[str, Point] = {
    # -- length and bounds, before anything else
    "least lengths of datagrams, control packets, wrapped packets and TCP frames": Point(
        ("cvpnd/wire/packet.py", "cvpnd/wire/stream.py", "native/control_packet.c", "native/tcp.c"),
        (
            "wire/test_packet.py::test_every_prefix_parses_or_is_refused",
            "wire/test_packet.py::test_zero_session_id_is_refused",
            "wire/test_wrappings.py::test_every_changed_bit_and_every_prefix_is_refused",
            "wire/test_stream.py::test_impossible_length_ends_the_stream",
            "server/test_strangers.py::test_a_frame_of_impossible_length_has_a_name",
            "dataplane/test_tcp.py::test_a_length_that_cannot_be_closes_the_connection",
            "native/test_stranger.c",
        ),
    ),
    "opcodes that may come, and key id 0 for what has no session": Point(
        ("cvpnd/wire/packet.py", "native/control_packet.c"),
        (
            "wire/test_packet.py::test_obsolete_and_unknown_and_data_opcodes_are_refused",
            "wire/test_packet.py::test_hard_reset_is_for_key_id_0_only",
            "server/test_doorman_twin.py::test_first_exchange",
        ),
    ),
    "at most eight acknowledgements, of this session": Point(
        ("cvpnd/wire/packet.py", "cvpnd/wire/reliable.py"),
        (
            "wire/test_packet.py::test_eight_acks_are_the_most",
            "wire/test_reliable.py::test_acknowledgement_of_another_session_drops_the_whole_packet",
        ),
    ),
    "lengths of a client key": Point(
        ("cvpnd/wire/wrap/tls_crypt_v2.py", "native/protection.c"),
        (
            "wire/test_wrappings.py::test_every_lie_about_the_length_is_refused",
            "wire/test_wrappings.py::test_a_wkc_that_is_longer_than_allowed_but_honest_is_refused",
            "wire/test_wrappings.py::test_metadata_of_every_allowed_size",
            "native/test_stranger.c",
            "native/fuzz_stranger.c",
        ),
    ),
    "a second client key, or one out of order": Point(
        ("cvpnd/wire/wrap/tls_crypt_v2.py",),
        (
            "wire/test_protected_session.py::test_a_second_client_key_in_mid_session_changes_nothing",
            "wire/test_wrappings.py::test_another_genuine_wkc_does_not_change_a_sessions_key",
        ),
    ),
    "the payload of a client's reset is bounded and not read": Point(
        ("cvpnd/wire/packet.py",),
        ("attacks/test_known_attacks.py::test_control_packet_of_any_size_is_taken_or_dropped",),
    ),
    "payloads fit, and what comes early is kept within a window": Point(
        ("cvpnd/wire/packet.py", "cvpnd/wire/reliable.py"),
        (
            "wire/test_packet.py::test_payload_beyond_any_receive_buffer_is_refused",
            "wire/test_reliable.py::test_packet_beyond_the_window_is_neither_stored_nor_acked",
        ),
    ),
    "key method 2: its fixed part, lengths, total, and NULs": Point(
        ("cvpnd/wire/key_method.py",),
        (
            "wire/test_key_method.py::test_every_prefix_waits_for_more_but_the_one_without_peer_info",
            "wire/test_key_method.py::test_last_byte_is_taken_for_the_nul_and_an_early_nul_cuts",
            "wire/test_key_method.py::test_long_options_fail_before_they_have_arrived",
            "attacks/test_hostile_clients.py::test_a_peer_info_of_64_kilobytes_ends_the_handshake",
        ),
    ),
    "text without an end": Point(("cvpnd/wire/messages.py",), ("wire/test_messages.py::test_endless_message_fails",)),
    "peer info: total, lines, and what a log shows of it": Point(
        ("cvpnd/wire/key_method.py", "cvpnd/wire/text.py"),
        (
            "wire/test_key_method.py::test_peer_info_is_bounded_and_printable",
            "wire/test_negotiation.py::test_what_a_client_says_is_shown_without_control_characters",
        ),
    ),
    "numbers in peer info": Point(
        ("cvpnd/wire/key_method.py",), ("wire/test_key_method.py::test_garbage_numbers_are_zero",)
    ),
    "data: least lengths, inner headers, source address": Point(
        ("native/data_packet.c", "native/cbc.c", "native/forward.c", "native/inner.h", "native/icmp.c"),
        (
            "dataplane/test_drops.py::test_a_datagram_shorter_than_its_headers_is_truncated",
            "dataplane/test_formats.py::test_what_is_too_short_is_truncated",
            "dataplane/test_epoch.py::test_what_is_too_short_for_the_format_is_truncated",
            "dataplane/test_cbc.py::test_lengths_that_cannot_be_are_truncated",
            "dataplane/test_drops.py::test_an_authentic_payload_that_is_no_ip_packet_is_not_ip",
            "dataplane/test_drops.py::test_an_ipv4_source_that_is_not_the_lease_is_a_bad_source",
            "dataplane/test_drops.py::test_an_ipv6_source_that_is_not_the_lease_is_a_bad_source",
            "dataplane/test_icmp_errors.py::test_what_went_to_another_client_or_to_nobody_is_a_bad_source",
            "e2e/test_errors_about_others.py::test_no_client_speaks_of_what_went_to_another_one",
            "native/fuzz_link.c",
        ),
    ),
    "data: fragments, their places and their number": Point(
        ("native/fragments.c", "native/fragments.h"),
        (
            "dataplane/test_fragments.py::test_what_no_packet_can_be_made_of_is_dropped",
            "dataplane/test_fragments.py::test_a_last_fragment_does_not_hide_a_hole",
            "dataplane/test_fragments.py::test_of_too_many_bytes_the_oldest_is_given_up",
            "e2e/test_fragments.py::test_fragments_of_one_client_leave_others_their_long_packets",
            "native/fuzz_fragments.c",
        ),
    ),
    "MSS: every header and option": Point(
        ("native/mss.c",),
        (
            "dataplane/test_mss.py::test_options_that_make_no_sense_pass_as_they_are",
            "dataplane/test_hostile.py::test_damaged_syn_segments_pass_whole_and_harm_nothing",
            "native/test_mss.c",
        ),
    ),
    # -- amplification and state
    "one reply to a reset, at most twelve bytes longer, never repeated, limited": Point(
        ("native/stranger.c", "native/doorman_thread.c", "cvpnd/wire/stateless.py"),
        (
            "attacks/test_known_attacks.py::test_a_reset_from_anywhere_gets_one_short_answer",
            "wire/test_protected_session.py::test_unproven_address_hears_no_more_than_it_says",
            "wire/test_protected_session.py::test_replies_are_bounded",
            "server/test_doorman.py::test_answers_are_limited_by_source_and_in_all",
        ),
    ),
    "no reply where wrapping, opcode or cookie is wrong": Point(
        ("native/stranger.c", "cvpnd/wire/stateless.py"),
        (
            "wire/test_protected_session.py::test_who_may_come_in_and_nobody_else_hears_a_word",
            "wire/test_protected_session.py::test_a_reset_that_differs_in_one_bit_gets_no_reply",
            "e2e/test_strangers.py::test_garbage_of_every_opcode_and_length_changes_nothing",
        ),
    ),
    "no memory, metadata, DNS or file for who has not echoed a cookie": Point(
        ("native/doorman_thread.c", "cvpnd/wire/stateless.py", "cvpnd/wire/wrap/protection.py"),
        (
            "attacks/test_compares.py::test_wrong_cookie_allocates_nothing",
            "wire/test_protected_session.py::test_resets_by_the_thousand_leave_nothing_behind",
            "wire/test_protected_session.py::test_client_keys_are_judged_after_the_cookie_and_before_any_state",
            "e2e/test_strangers.py::test_wrong_cookie_allocates_nothing",
        ),
    ),
    "before login: packets, bytes, sessions in all and by source, silence": Point(
        ("cvpnd/wire/session.py", "cvpnd/server/admission.py", "cvpnd/server/listener.py"),
        (
            "wire/test_session.py::test_what_a_handshake_may_cost_is_bounded",
            "server/test_strangers.py::test_silent_connections_are_closed_in_time_and_counted_by_source",
            "e2e/test_strangers.py::test_half_open_connections_are_closed_in_time_and_keep_nobody_out",
        ),
    ),
    "the handshake's deadline; depth and size of chains": Point(
        ("cvpnd/wire/key_slots.py", "cvpnd/auth/certificate.py", "native/certificates.c"),
        (
            "native/test_certificates.c",
            "wire/test_tls.py::test_certificates_that_are_work_are_not_decoded",
            "wire/test_session.py::test_unfinished_handshake_ends_with_the_hand_window",
            "auth/test_certificate.py::test_refusal_has_its_reason",
        ),
    ),
    "one pending session beside the active one, which it cannot touch": Point(
        ("cvpnd/server/predecessors.py", "cvpnd/server/session_table.py"),
        (
            "server/test_control.py::test_second_session_from_one_address_replaces_the_first_once_it_is_proven",
            "e2e/test_strangers.py::test_stranger_with_the_address_of_a_live_client_cannot_disturb_it",
            "fuzz/test_stories.py::test_new_story",
        ),
    ),
    "rates of soft resets and of failed logins": Point(
        ("cvpnd/wire/key_slots.py", "cvpnd/server/admission.py", "cvpnd/auth/throttle.py"),
        (
            "wire/test_renegotiation.py::test_soft_resets_of_the_client_are_rate_limited",
            "attacks/test_hostile_clients.py::test_a_storm_of_soft_resets_costs_a_handshake_now_and_then",
            "server/test_source_limits.py::test_wrong_certificates_are_tried_so_often_in_a_minute",
            "auth/test_logins.py::test_five_thousand_wrong_passwords_from_one_source_slow_only_that_source",
            "auth/test_server_certificate.py::test_a_handshake_inside_tls_1_2_is_not_begun_again",
        ),
    ),
    # -- crypto
    "secrets are compared in constant time": Point(
        ("cvpnd/wire/reset_cookie.py", "cvpnd/wire/wrap/tls_auth.py", "cvpnd/auth/tokens.py", "native/mac.c"),
        (f"{HERE}::test_every_digest_is_compared_in_constant_time", "attacks/test_compares.py"),
    ),
    "the MAC first, then the replay window, which only authentic packets move": Point(
        ("cvpnd/wire/wrap/session_wrap.py", "native/data_packet.c"),
        (
            "wire/test_protected_session.py::test_forged_packets_move_no_replay_window",
            "dataplane/test_replay.py::test_a_forged_packet_does_not_move_the_window",
            "dataplane/test_epoch.py::test_a_forged_epoch_costs_one_failed_check_and_moves_nothing",
        ),
    ),
    "no key and packet id twice; limits of use": Point(
        ("native/data_packet.c", "native/epoch.c"),
        (
            "dataplane/test_lifecycle.py::test_packet_ids_are_unique_when_all_workers_send_at_once",
            "dataplane/test_epoch.py::test_two_workers_never_use_an_id_twice",
            "dataplane/test_keys.py::test_sending_asks_for_a_new_key_and_stops_at_the_limit",
            "dataplane/test_keys.py::test_many_blocks_under_aes_gcm_ask_for_a_new_key",
        ),
    ),
    "secrets are wiped, and random ones come from the system": Point(
        ("cvpnd/wire/key_state.py", "cvpnd/wire/key_material.py"),
        (
            "wire/test_key_material.py::test_key2_is_wiped_and_keys_do_not_show",
            "attacks/test_known_attacks.py::test_what_is_random_to_others_is_cryptographic",
        ),
    ),
    "exporter or PRF once for a session": Point(
        ("cvpnd/wire/agreement.py",), ("wire/test_renegotiation.py::test_prf_and_exporter_stay_as_negotiated",)
    ),
    "who it is stays so; revocation and account are asked again with each key": Point(
        ("cvpnd/wire/agreement.py", "cvpnd/server/login.py"),
        (
            "wire/test_renegotiation.py::test_other_certificate_in_a_renegotiation_is_refused",
            "wire/test_renegotiation.py::test_other_username_in_a_renegotiation_is_refused",
            "wire/test_renegotiation.py::test_certificate_revoked_meanwhile_ends_the_session",
            "server/test_user_login.py::test_a_user_who_is_removed_disabled_or_changed_during_the_login_stays_out",
        ),
    ),
    "no compression": Point(
        ("cvpnd/wire/negotiation.py",),
        (
            "attacks/test_known_attacks.py::test_compression_is_never_pushed_and_never_accepted",
            "dataplane/test_formats.py::test_compressed_packets_are_dropped_and_named",
        ),
    ),
    # -- what is said of it
    "silent drops are counted, by name": Point(
        ("cvpnd/wire/errors.py", "cvpnd/dataplane/api.py"),
        (
            "wire/test_session.py::test_useless_packet_costs_a_counter_and_nothing_else",
            "dataplane/test_drops.py::test_every_reason_is_there_from_the_start",
        ),
    ),
    "warnings have a rate": Point(
        ("cvpnd/ops/logs.py",),
        ("server/test_strangers.py::test_failed_handshakes_are_all_counted_but_not_all_written_down",),
    ),
    "who came, who did not and why; floats; and no secret": Point(
        ("cvpnd/ops/connection_log.py",),
        (
            "ops/test_connection_log.py",
            "e2e/test_devices.py::test_client_that_moves_to_another_network_keeps_its_address",
            "attacks/test_known_attacks.py::test_no_log_line_shows_a_secret",
        ),
    ),
}


@pytest.mark.parametrize("point", CHECKLIST)
def test_point_is_held_where_the_table_says(point: str) -> None:
    for file in CHECKLIST[point].code:
        assert (ROOT / file).exists(), file
    for place in CHECKLIST[point].tests:
        check_place(place)


SECRET_NAMES = re.compile(r"(?i)digest|hmac|\btag\b|\bmac\b|signature|cookie|password|secret")
NO_SECRETS = {
    ("cvpnd/config/files_read.py", "_digest(path) == digest"),  # of files that both are the operator's
    ("cvpnd/endpoints/operations.py", "before.request != digest"),  # of a request that its sender repeats
    ("cvpnd/store/authenticators.py", "each != digest"),  # HMACs, of which nobody can choose a byte
}


def comparisons(path: Path) -> list[str]:
    """Of something that is called like a secret with another value of its kind."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            continue
        sides = [node.left, node.comparators[0]]
        texts = [ast.unparse(side) for side in sides]
        constant = any(
            isinstance(side, ast.Constant | ast.List) or text.isupper() for side, text in zip(sides, texts, strict=True)
        )
        names = r"len\(|\.c\.|\w\.tag$" if path.parent.name == "saml" else r"len\(|\.c\."
        # .c.: a column of a table; .tag: the name of an XML element
        harmless = constant or any(re.search(names, text) for text in texts)
        if not harmless and any(map(SECRET_NAMES.search, texts)):
            found.append(ast.unparse(node))
    return found


def test_every_digest_is_compared_in_constant_time() -> None:
    found = {
        (str(path.relative_to(ROOT)), text) for path in (ROOT / "cvpnd").rglob("*.py") for text in comparisons(path)
    }
    assert found == NO_SECRETS
    for path in (ROOT / "native").glob("*.c"):
        for line in path.read_text().splitlines():
            if re.search(r"(?<!CRYPTO_)\bmemcmp\(", line):
                assert not SECRET_NAMES.search(line) or "client->wrapped" in line, f"{path.name}: {line}"
