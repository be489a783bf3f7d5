"""How many logins may wait for people, and what becomes of one that nobody answers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cvpnd.config import LimitsConfig
from cvpnd.reasons import Refusal
from cvpnd.server import dialogue
from cvpnd.server.denied import Denied
from cvpnd.server.dialogue import Dialogues, ask_in_text, can_answer_in_text

LIMITS = LimitsConfig(waiting_logins=3, waiting_logins_per_source=2)


def connection(host: str, **peer_info: Any) -> Any:
    endpoint = SimpleNamespace(id="cvpn-endpoint-1", settings=SimpleNamespace(limits=LIMITS))
    said = SimpleNamespace(sso_methods=frozenset({"crtext"}))
    return SimpleNamespace(
        endpoint=endpoint, link=SimpleNamespace(remote=SimpleNamespace(host=host)), answer=None, established=False,
        session=SimpleNamespace(peer_info=said),
    )  # fmt: skip


class Control:
    """The control plane, as far as it is asked here; its clients wait for ``patience_s``."""

    def __init__(self, patience_s: float) -> None:
        self.dialogues = Dialogues()
        self.patience_s = patience_s
        self.asked: list[str] = []

    def ask(self, connection: Any, question: str, wait_s: float) -> float:
        self.asked.append(question)
        return min(wait_s, self.patience_s)

    def pump(self, connection: Any, now: float) -> None:
        """Nothing of it goes anywhere."""


async def test_so_many_may_wait_and_so_many_of_one_source_and_a_place_is_free_again_at_once():
    control: Any = Control(60)
    waiting = [
        (c, asyncio.create_task(ask_in_text(control, c, "Code?", 60))) for c in map(connection, ["192.0.2.1"] * 2)
    ]
    await asyncio.sleep(0)
    for host, word in (("192.0.2.1", "of 192.0.2.1"), ("192.0.2.2", None), ("192.0.2.3", "3 wait")):
        if word is None:
            last = connection(host)
            waiting.append((last, asyncio.create_task(ask_in_text(control, last, "Code?", 60))))
            await asyncio.sleep(0)
            continue
        with pytest.raises(Denied, match=word) as denied:
            await ask_in_text(control, connection(host), "Code?", 60)
        assert denied.value.refusal is Refusal.TOO_MANY_LOGINS
    first, task = waiting[0]
    first.answer.set_result("123456")
    assert await task == "123456" and first.answer is None
    waiting[1][1].cancel()  # as when the client goes away
    await asyncio.gather(waiting[1][1], return_exceptions=True)
    assert control.dialogues.waiting("cvpn-endpoint-1") == 1
    again = connection("192.0.2.1")
    waiting.append((again, asyncio.create_task(ask_in_text(control, again, "Code?", 60))))
    await asyncio.sleep(0)
    for each, task in waiting[2:]:
        each.answer.set_result("")
        assert await task == ""
    assert control.dialogues.waiting("cvpn-endpoint-1") == 0
    assert control.asked == ["INFO_PRE,CR_TEXT:R,E:Code?"] * 4


async def test_nobody_is_waited_for_longer_than_the_client_does():
    control: Any = Control(0.01)
    asked = connection("192.0.2.1")
    with pytest.raises(Denied) as denied:
        await ask_in_text(control, asked, "Code?", 60, echo=False)
    assert denied.value.refusal is Refusal.LOGIN_UNANSWERED
    assert asked.answer is None and control.dialogues.waiting("cvpn-endpoint-1") == 0
    assert control.asked == ["INFO_PRE,CR_TEXT:R:Code?"]


@pytest.mark.parametrize("answers", [True, False])
async def test_a_client_that_is_gone_is_not_waited_for(monkeypatch, answers):
    monkeypatch.setattr(dialogue, "ASK_EVERY_S", 0.01)
    control, asked = Control(60), connection("192.0.2.1")
    asked.endpoint.settings.hand_window_s = 0.1
    asked.asked_alive_at = None
    asked.session.owes_answer = False

    def ask_alive() -> None:
        asked.session.owes_answer = not answers
        control.asked.append("alive?")
        if control.asked.count("alive?") == 20:
            asked.answer.set_result("123456")

    asked.session.ask_alive = ask_alive
    if answers:
        assert await ask_in_text(control, asked, "Code?", 60) == "123456"
    else:
        with pytest.raises(Denied) as denied:
            await ask_in_text(control, asked, "Code?", 60)
        assert denied.value.refusal is Refusal.HANDSHAKE_ABANDONED
        assert control.asked.count("alive?") == 1
    assert control.dialogues.waiting("cvpn-endpoint-1") == 0


def test_only_a_client_that_said_so_and_waits_for_its_first_key_is_asked():
    asked = connection("192.0.2.1")
    assert can_answer_in_text(asked)
    asked.established = True
    assert not can_answer_in_text(asked)
