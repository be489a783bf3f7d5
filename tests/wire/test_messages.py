"""Text messages: what we split and quote, what we refuse to send and to take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.messages import (
    MAX_MESSAGE_BYTES,
    MAX_OPTION_BYTES,
    MessageReader,
    auth_failed,
    auth_failed_for_now,
    halt,
    parse_message,
    parse_push_reply,
    push_reply,
    push_update,
    restart,
    serialise_message,
)


@pytest.mark.parametrize("count", [0, 1, 2, 20, 24, 25, 26, 27, 50, 100, 1000])
def test_any_number_of_routes_arrives_in_order(count: int) -> None:
    routes = [f"route 10.{i // 256}.{i % 256}.0 255.255.255.0" for i in range(count)]
    messages = push_reply(routes)
    received: list[str] = []
    for number, message in enumerate(messages, 1):
        assert len(serialise_message(message)) <= MAX_MESSAGE_BYTES
        reply = parse_push_reply(message)
        received += reply.options
        assert reply.more_follow == (number < len(messages))
    assert received == routes
    assert (len(messages) == 1) == ("push-continuation" not in "".join(messages))


def test_split_is_where_the_reference_splits() -> None:
    """A new message begins when the old one would reach 940 bytes, so none is close to 1024."""
    for message in push_reply(["x" * 99] * 100):
        assert len(message) < 940 + len(",push-continuation 2")


def test_update_is_split_like_a_reply() -> None:
    routes = [f"route 10.{n}.0.0 255.255.0.0" for n in range(100)]
    messages = push_update(["-dns", *routes])
    replies = [parse_push_reply(message) for message in messages]
    assert [option for reply in replies for option in reply.options] == ["-dns", *routes]
    assert [reply.more_follow for reply in replies] == [True] * (len(replies) - 1) + [False]
    assert {message.partition(",")[0] for message in messages} == {"PUSH_UPDATE"}


def test_refusal_for_now_has_its_flags_separated_by_spaces() -> None:
    assert auth_failed_for_now("full", 7) == "AUTH_FAILED,TEMP[backoff 7,advance no]:full"
    assert auth_failed_for_now("full", 7, elsewhere=True) == "AUTH_FAILED,TEMP[backoff 7,advance remote]:full"


def test_empty_push_reply_has_the_comma_that_openvpn_3_needs() -> None:
    assert push_reply([]) == ["PUSH_REPLY,"]


@pytest.mark.parametrize("option", ["", "a,b", "a\nb", "a\0b", "x" * MAX_OPTION_BYTES])
def test_option_that_clients_would_misread_is_not_sent(option: str) -> None:
    with pytest.raises(UsageError):
        push_reply([option])


def test_texts_for_people() -> None:
    assert auth_failed() == "AUTH_FAILED"
    assert auth_failed("no\nway\x07") == "AUTH_FAILED,no way"
    assert restart("back soon") == "RESTART,[P]:back soon"
    assert restart("back soon", elsewhere=True) == "RESTART,[PN]:back soon"
    assert halt("bye") == "HALT,bye"
    assert len(serialise_message(auth_failed("ü" * 2000))) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "x" * 1024])
def test_message_that_clients_would_drop_is_not_sent(text: str) -> None:
    with pytest.raises(UsageError):
        serialise_message(text)


@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda b: b"\0" not in b), max_size=6), st.data())
def test_messages_are_cut_at_nul_wherever_records_end(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(message + b"\0" for message in messages)
    reader, received, position = MessageReader(), [], 0
    while position < len(stream):
        step = data.draw(st.integers(1, len(stream) - position))
        received += reader.feed(stream[position : position + step])
        position += step
    assert received == messages


def test_endless_message_fails() -> None:
    reader = MessageReader()
    reader.feed(b"x" * 2048)
    with pytest.raises(PeerError) as caught:
        reader.feed(b"x")
    assert caught.value.reason is DropReason.MESSAGE_TOO_LONG


def test_trailing_line_ends_are_tolerated_and_others_refused() -> None:
    assert parse_message(b"PUSH_REQUEST\r\n") == "PUSH_REQUEST"
    for bad in (b"PUSH\nREQUEST", b"\x1b[2J", b"\x7f", b"\xff\xfe"):
        with pytest.raises(PeerError) as caught:
            parse_message(bad)
        assert caught.value.reason is DropReason.BAD_MESSAGE
