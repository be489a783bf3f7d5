"""How many logins may wait for people, and what becomes of one that nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from cvpnd.config import LimitsConfig
from cvpnd.reasons import Refusal
from cvpnd.server import dialogue
from cvpnd.server.denied import Denied
from cvpnd.server.dialogue import ask_in_text, can_answer_in_text, wait_for_person
from cvpnd.server.places import Engagement, Place, Places

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
        self.places = Places()
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
    assert control.places.waiting("cvpn-endpoint-1") == 1
    again = connection("192.0.2.1")
    waiting.append((again, asyncio.create_task(ask_in_text(control, again, "Code?", 60))))
    await asyncio.sleep(0)
    for each, task in waiting[2:]:
        each.answer.set_result("")
        assert await task == ""
    assert control.places.waiting("cvpn-endpoint-1") == 0
    assert control.asked == ["INFO_PRE,CR_TEXT:R,E:Code?"] * 4


async def test_nobody_is_waited_for_longer_than_the_client_does():
    control: Any = Control(0.01)
    asked = connection("192.0.2.1")
    with pytest.raises(Denied) as denied:
        await ask_in_text(control, asked, "Code?", 60, echo=False)
    assert denied.value.refusal is Refusal.LOGIN_UNANSWERED
    assert asked.answer is None and control.places.waiting("cvpn-endpoint-1") == 0
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
    assert control.places.waiting("cvpn-endpoint-1") == 0


def test_only_a_client_that_said_so_and_waits_for_its_first_key_is_asked():
    asked = connection("192.0.2.1")
    assert can_answer_in_text(asked)
    asked.established = True
    assert not can_answer_in_text(asked)


CROWD = LimitsConfig(waiting_logins=50, waiting_logins_per_source=10)


class Crowd:
    """Logins that wait at one endpoint."""

    def __init__(self) -> None:
        self.places = Places()
        self.stack = ExitStack()

    def comes(self, host: str, engagement: Engagement = Engagement.NONE) -> Place | None:
        """None: it is refused."""
        waiting = connection(host)
        waiting.endpoint.settings.limits = CROWD
        try:
            return self.stack.enter_context(self.places.place(waiting, lambda: engagement))
        except Denied as denied:
            assert denied.refusal is Refusal.TOO_MANY_LOGINS
            return None


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    made = Crowd()
    with made.stack:
        yield made
    assert made.places.waiting("cvpn-endpoint-1") == 0


FEW = [f"192.0.{number}.1" for number in range(5)]
ONE_NETWORK = [f"192.0.2.{number}" for number in range(1, 251)]


@pytest.mark.parametrize("engagement", [Engagement.NONE, Engagement.VISITED], ids=str)
@pytest.mark.parametrize("attackers", [FEW * 30, ONE_NETWORK], ids=["five addresses", "a network of addresses"])
async def test_few_can_fill_all_places_and_keep_out_nobody_else(crowd, attackers, engagement):
    for host in attackers:
        crowd.comes(host, engagement)
    assert crowd.places.waiting("cvpn-endpoint-1") == 50
    people = [crowd.comes(f"198.51.{number}.7") for number in range(8)]
    for host in attackers * 2:
        crowd.comes(host, engagement)
    assert crowd.places.waiting("cvpn-endpoint-1") == 50
    assert all(person is not None and not person.lost.done() for person in people)


async def test_who_waits_at_the_address_of_an_attacker_is_safe_once_a_browser_has_come(crowd):
    stage = Engagement.NONE
    waiting = connection("192.0.2.1")
    waiting.endpoint.settings.limits = CROWD
    for _ in range(10):
        assert crowd.comes("192.0.2.1") is not None
    person = crowd.stack.enter_context(crowd.places.place(waiting, lambda: stage))
    for _ in range(9):
        assert crowd.comes("192.0.2.1") is not None and not person.lost.done(), "the oldest of them go"
    stage = Engagement.VISITED
    for _ in range(50):
        crowd.comes("192.0.2.1")
    assert not person.lost.done() and crowd.places.waiting("cvpn-endpoint-1") == 10


async def test_nobody_takes_the_place_of_who_has_proven_something_or_of_an_equal(crowd):
    proven = [crowd.comes(f"192.0.2.{number}", Engagement.PROVEN) for number in range(50)]
    assert crowd.comes("198.51.100.1") is None
    crowd.stack.close()
    people = [crowd.comes(f"10.0.{number}.1", Engagement.VISITED) for number in range(50)]
    assert crowd.comes("198.51.100.1") is None
    assert not any(place is None or place.lost.done() for place in proven + people)


async def test_who_gives_way_is_told_so_and_its_outcome_counts_no_more():
    control: Any = Control(60)
    hosts = ["192.0.2.1", "192.0.2.1", "192.0.2.2"]
    waiting = [
        asyncio.create_task(
            wait_for_person(
                control, connection(host), "?", asyncio.get_running_loop().create_future(), 60, lambda: Engagement.NONE
            )
        )
        for host in hosts
    ]
    await asyncio.sleep(0)
    outcome = asyncio.get_running_loop().create_future()
    person = asyncio.create_task(wait_for_person(control, connection("198.51.100.1"), "?", outcome, 60))
    with pytest.raises(Denied, match="its place went") as denied:
        await waiting[0]
    assert denied.value.refusal is Refusal.TOO_MANY_LOGINS
    outcome.set_result("in")
    assert await person == "in"
    for task in waiting[1:]:
        task.cancel()
    await asyncio.gather(*waiting[1:], return_exceptions=True)
    assert control.places.waiting("cvpn-endpoint-1") == 0
