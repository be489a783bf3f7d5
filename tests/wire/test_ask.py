"""A login that waits for a person: AUTH_PENDING, INFO_PRE and CR_RESPONSE, with the light client and the stock one."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from helpers.management import Management
from helpers.openvpn_client import needs_openvpn, openvpn
from helpers.pair import Pair, accept_everyone, client_context, server_context
from helpers.pump import Pump
from light_client.protocol import PEER_INFO_26, LightClient, Told

from cvpnd.reasons import Refusal
from cvpnd.secret import Secret
from cvpnd.wire import messages
from cvpnd.wire.errors import DropReason, UsageError
from cvpnd.wire.events import (
    CredentialsReceived,
    KeysReady,
    MessageReceived,
    QuestionAnswered,
    SessionClosed,
)
from cvpnd.wire.settings import SessionSettings

URL = "https://gateway.example/saml/login/" + 43 * "x"
STOCK_HAND_WINDOW_S = 8
"""Longer than the 5 s after which the stock client asks for its PUSH_REPLY again: it gives up when it hears nothing for
its hand window, not even that this was received."""
OF_A_PERSON = SessionSettings(hand_window_s=10, renegotiate_s=600)


def asked(question: str = messages.web_auth(URL), *, wait_s: float = 200, proto: int = 990, **kwargs: object) -> Pair:
    """A client that has been asked. What ``Session.ask`` returned is in ``pair.left``."""
    client = LightClient(client_context(), 0.0, peer_info=PEER_INFO_26 | {"IV_PROTO": str(proto)}, hand_window_s=1000)

    def decide(pair: Pair, event: CredentialsReceived) -> None:
        assert pair.session is not None
        if event.key_id:
            accept_everyone(pair, event)
        else:
            pair.left = pair.session.ask(question, wait_s, pair.now)  # type: ignore[attr-defined]

    kwargs.setdefault("settings", OF_A_PERSON)
    pair = Pair(client, decide=decide, **kwargs)  # type: ignore[arg-type]
    assert pair.run(lambda pair: len(pair.of_client(Told)) == 2, seconds=20)
    return pair


def test_the_client_hears_what_to_do_and_how_long_and_goes_on_without_a_new_connection() -> None:
    pair = asked()
    told = [told.text for told in pair.of_client(Told)]
    assert told == ["AUTH_PENDING,timeout 204", f"INFO_PRE,WEB_AUTH:external:{URL}"]
    assert pair.left == pytest.approx(200)  # type: ignore[attr-defined]
    pair.run(seconds=150)  # fifteen hand-windows
    assert not pair.of_server(SessionClosed) and not pair.of_server(KeysReady) and not pair.client.connected
    assert pair.session is not None
    assert pair.session.accept(pair.push, pair.now, peer_id=5) is None
    pair.connect(seconds=5)
    assert len(pair.of_server(CredentialsReceived)) == len(pair.of_server(KeysReady)) == 1


@pytest.mark.parametrize(
    ("wait_s", "proto", "settings", "told", "left"),
    [
        (200, 990 & ~16, OF_A_PERSON, "AUTH_PENDING", 7),  # who has no keyword keeps to its hand-window
        (9000, 990, OF_A_PERSON, "AUTH_PENDING,timeout 300", 297),  # half of the renegotiation's time
        (9000, 990, SessionSettings(renegotiate_s=0), "AUTH_PENDING,timeout 1800", 1797),  # as clients have it
    ],
)
def test_nobody_is_waited_for_longer_than_the_client_waits(
    wait_s: float, proto: int, settings: SessionSettings, told: str, left: float
) -> None:
    pair = asked(wait_s=wait_s, proto=proto, settings=settings)
    assert pair.of_client(Told)[0].text == told
    assert pair.left == pytest.approx(left, abs=0.2)  # type: ignore[attr-defined]


def test_a_no_after_the_question_reaches_the_client() -> None:
    pair = asked()
    assert pair.session is not None
    pair.session.refuse("declined", pair.now, Refusal.LOGIN_UNANSWERED)
    assert pair.run(lambda pair: pair.client.failed == "AUTH_FAILED,declined", seconds=5)
    assert pair.session.ask(URL, 10, pair.now) == 0.0, "it is over"
    pair.run(seconds=10)
    assert [closed.reason for closed in pair.of_server(SessionClosed)] == [Refusal.LOGIN_UNANSWERED]


def test_one_answer_for_each_question_that_has_one_coming() -> None:
    def answer(text: str) -> str:
        return messages.CR_RESPONSE + base64.b64encode(text.encode()).decode()

    pair = asked(messages.cr_text("Code? (now, please)", echo=False))
    session = pair.session
    assert session is not None
    assert pair.of_client(Told)[1].text == "INFO_PRE,CR_TEXT:R:Code? (now, please)"
    for text in ("CR_RESPONSE,%%%", answer("12,34"), answer("again")):
        pair.client.send_message(text)
        pair.run(seconds=1)
    assert [event.answer.text() for event in pair.of_server(QuestionAnswered)] == ["12,34"]
    assert session.drops[DropReason.BAD_MESSAGE] == 1
    assert [event.text for event in pair.of_server(MessageReceived)] == [answer("again")]
    session.ask(messages.cr_text("Once more?"), 60, pair.now)
    pair.client.send_message(answer(""))
    pair.run(seconds=1)
    assert [event.answer.text() for event in pair.of_server(QuestionAnswered)] == ["12,34", ""]
    assert "12,34" not in repr(pair.of_server(QuestionAnswered))
    session.ask(messages.web_auth(URL), 60, pair.now)
    pair.client.send_message(answer("to a browser?"))
    pair.run(seconds=1)
    assert len(pair.of_server(QuestionAnswered)) == 2


def test_a_question_that_cannot_be_sent_or_comes_at_the_wrong_time_is_our_mistake() -> None:
    pair = asked()
    assert pair.session is not None
    for question in (messages.cr_text("x" * 1024), messages.cr_text("a\nb")):
        with pytest.raises(UsageError):
            pair.session.ask(question, 10, pair.now)
    pair.session.accept(pair.push, pair.now, peer_id=5)
    pair.connect(seconds=5)
    with pytest.raises(UsageError):
        pair.session.ask(messages.web_auth(URL), 10, pair.now)


class Asking(Pump):
    """Asks instead of deciding."""

    def __init__(self, question: str) -> None:
        super().__init__(server_context(), settings=SessionSettings(hand_window_s=STOCK_HAND_WINDOW_S))
        self.question = question

    def decide(self, event: CredentialsReceived) -> None:
        assert self.session is not None
        if event.key_id:
            super().decide(event)
        else:
            self.session.ask(self.question, 60, time.monotonic())


@needs_openvpn
@pytest.mark.parametrize("method", ["webauth", "crtext"])
def test_the_stock_client_waits_beyond_its_hand_window_and_then_goes_on(tmp_path: Path, method: str) -> None:
    """Its management interface is where a graphical client listens; ours is that client."""
    question = messages.web_auth(URL) if method == "webauth" else messages.cr_text("Enter the code")
    with Asking(question) as pump, Management(tmp_path / "person") as person:
        window = "--hand-window", str(STOCK_HAND_WINDOW_S)
        options = (*person.options, "--setenv", "IV_SSO", method, "--push-peer-info", *window)
        with openvpn(tmp_path, pump, *options) as client:
            assert pump.run(lambda: f">INFOMSG:{question.removeprefix('INFO_PRE,')}" in person.heard()), client.log
            (credentials,) = pump.of(CredentialsReceived)
            assert credentials.peer_info.sso_methods == {method}
            assert pump.session is not None
            if method == "crtext":
                person.say(f"cr-response {base64.b64encode(b'123456').decode()}")
                assert pump.run(lambda: bool(pump.of(QuestionAnswered))), client.log
                assert pump.of(QuestionAnswered) == [QuestionAnswered(Secret(b"123456"))]
            else:
                waits_s = STOCK_HAND_WINDOW_S + 1
                assert not pump.run(lambda: client.process.poll() is not None, waits_s), "longer than its hand-window"
            assert not client.completed()
            pump.session.accept(["ping 10"], time.monotonic(), peer_id=5)
            assert pump.run(client.completed), client.log
            assert len(pump.of(CredentialsReceived)) == len(pump.of(KeysReady)) == 1
