"""The stateless first exchange: who gets a reply, who gets a session, and that nobody else does."""

from __future__ import annotations

from unittest.mock import ANY

import pytest
from helpers.wire_vectors import V16_ACK, V16_CLIENT_SID, V16_CONTROL, V16_RESET_CLIENT, V16_RESET_SERVER
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.wire.errors import DropReason, UsageError
from cvpnd.wire.packet import NO_SESSION_ID, ControlPacket, Opcode, parse_packet, serialise_packet
from cvpnd.wire.reset_cookie import ResetCookie
from cvpnd.wire.stateless import Established, answer_reset, check_echo, is_reset

COOKIE = ResetCookie(b"s" * 32)
HERE = ("192.0.2.1", 1194)
SID = V16_CLIENT_SID


def echo(cookie: bytes, *, acks: tuple[int, ...] = (0,), packet_id: int = 1, key_id: int = 0) -> bytes:
    return serialise_packet(
        ControlPacket(Opcode.CONTROL_V1, key_id, SID, acks, cookie if acks else b"", packet_id, b"x")
    )


def test_reply_is_twelve_bytes_longer_than_the_request_and_names_the_client() -> None:
    reply = answer_reset(V16_RESET_CLIENT, HERE, 1000.0, COOKIE)
    assert isinstance(reply, bytes)
    assert len(reply) == len(V16_RESET_CLIENT) + 12
    packet = parse_packet(reply)
    assert packet.opcode is Opcode.HARD_RESET_SERVER_V2
    assert (packet.acks, packet.remote_session_id, packet.packet_id, packet.payload) == ((0,), SID, 0, b"")


def test_echo_of_the_reply_establishes_with_both_session_ids() -> None:
    reply = answer_reset(V16_RESET_CLIENT, HERE, 1000.0, COOKIE)
    assert isinstance(reply, bytes)
    cookie = reply[1:9]
    assert check_echo(echo(cookie), HERE, 1001.0, COOKIE) == Established(SID, cookie, ANY)
    bare = serialise_packet(ControlPacket(Opcode.ACK_V1, 0, SID, (0,), cookie))  # what 2.4 and 2.5 send first
    assert check_echo(bare, HERE, 1001.0, COOKIE) == Established(SID, cookie, ANY)


@pytest.mark.parametrize(
    ("age_s", "valid"),
    [(0, True), (30, True), (60, True), (89.9, True), (90, False), (1000, False), (-30, False)],
)
def test_cookie_lives_for_three_slots(age_s: float, valid: bool) -> None:
    made_at = 3000.0  # the beginning of a slot of 30 s
    cookie = COOKIE.session_id(HERE, SID, made_at)
    assert COOKIE.verify(cookie, HERE, SID, made_at + age_s) is valid


@pytest.mark.parametrize(
    "other",
    [("192.0.2.2", 1194), ("192.0.2.1", 1195), ("2001:db8::1", 1194), ("fe80::1", 1194, 2)],
)
def test_cookie_is_bound_to_the_address(other: tuple[str, int]) -> None:
    cookie = COOKIE.session_id(HERE, SID, 0.0)
    assert not COOKIE.verify(cookie, other, SID, 0.0)
    assert COOKIE.verify(COOKIE.session_id(other, SID, 0.0), other, SID, 0.0)


def test_cookie_is_bound_to_scope_client_and_secret() -> None:
    linked = ("fe80::1", 1194, 2)
    cookie = COOKIE.session_id(linked, SID, 0.0)
    assert not COOKIE.verify(cookie, ("fe80::1", 1194, 3), SID, 0.0)
    assert not COOKIE.verify(cookie, linked, SID[::-1], 0.0)
    assert not ResetCookie(b"t" * 32).verify(cookie, linked, SID, 0.0)


@given(st.binary(min_size=8, max_size=8))
def test_guessed_cookie_is_refused(guess: bytes) -> None:
    if guess != NO_SESSION_ID:
        assert check_echo(echo(guess), HERE, 0.0, COOKIE) is DropReason.BAD_COOKIE
        assert check_echo(echo(guess), HERE, 0.0, None) == Established(SID, guess, ANY), "the doorman has looked"


def test_cookie_is_never_all_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first slot tried yields zeros here, so an earlier one must be used."""
    answers = iter([bytes(32), b"\x01" * 32])
    monkeypatch.setattr("cvpnd.wire.reset_cookie.hmac.digest", lambda *_: next(answers))
    assert COOKIE.session_id(HERE, SID, 0.0) == b"\x01" * 8


def test_short_secret_is_our_mistake() -> None:
    with pytest.raises(UsageError):
        ResetCookie(b"short")


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", DropReason.TRUNCATED),
        (V16_RESET_CLIENT[:13], DropReason.TRUNCATED),
        (V16_RESET_SERVER, DropReason.BAD_OPCODE),
        (b"\x50" + V16_RESET_CLIENT[1:], DropReason.BAD_OPCODE),
        (V16_RESET_CLIENT[:-1] + b"\x01", DropReason.LATE_PACKET),
        (b"\x39" + V16_RESET_CLIENT[1:], DropReason.BAD_KEY_ID),
    ],
    ids=["empty", "short", "server reset", "tls-crypt-v2", "packet id 1", "key id 1"],
)
def test_what_is_no_client_reset_gets_no_reply(packet: bytes, reason: DropReason) -> None:
    assert answer_reset(packet, HERE, 0.0, COOKIE) is reason


def test_what_is_no_first_packet_opens_no_session() -> None:
    good = COOKIE.session_id(HERE, SID, 0.0)
    assert check_echo(echo(good, acks=()), HERE, 0.0, COOKIE) is DropReason.NO_ACK
    assert check_echo(echo(good, acks=(0, 2)), HERE, 0.0, COOKIE) is DropReason.LATE_PACKET
    assert check_echo(echo(good, packet_id=2), HERE, 0.0, COOKIE) is DropReason.LATE_PACKET
    assert check_echo(echo(good, key_id=1), HERE, 0.0, COOKIE) is DropReason.BAD_KEY_ID
    assert check_echo(V16_RESET_CLIENT, HERE, 0.0, COOKIE) is DropReason.BAD_OPCODE
    assert check_echo(V16_CONTROL, HERE, 0.0, COOKIE) is DropReason.BAD_COOKIE
    assert check_echo(V16_ACK[:20], HERE, 0.0, COOKIE) is DropReason.TRUNCATED
    assert check_echo(echo(good, acks=(0, 1)), HERE, 0.0, COOKIE) == Established(SID, good, ANY)


def test_only_client_resets_count_as_resets() -> None:
    assert is_reset(V16_RESET_CLIENT)
    assert not any(map(is_reset, (b"", V16_RESET_SERVER, V16_CONTROL, V16_ACK)))
