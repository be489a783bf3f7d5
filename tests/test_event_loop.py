"""Names that nobody answers for hold up those who wait for them, and nobody else; nothing waits for a new thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter

import pytest
from helpers import threadless

from cvpnd.config import HandlerConfig
from cvpnd.event_loop import NAMES_AT_ONCE, EventLoop
from cvpnd.handlers.desk import Handlers
from cvpnd.handlers.opening import open_handler
from cvpnd.handlers.schema import ConnectRequest, HandlerFailed
from cvpnd.reasons import Refusal

DEAD = "posture.example.com"
HANDLER = "AWSClientVPN-posture"
REQUEST = ConnectRequest("cvpn-connection-1", "cvpn-endpoint-1", "", "alice", "", "", "", "", "192.0.2.1", ())
MANY = 40


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the resolver is, by name. For DEAD it keeps silent until the test is over."""
    resolve, close, over, count = socket.getaddrinfo, EventLoop.close, threading.Event(), Counter[str]()

    def look_up(host: str | bytes, *more: object, **how: object) -> list[object]:
        name = host.decode() if isinstance(host, bytes) else host
        count[name] += 1
        if name == DEAD:
            over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return list(resolve(host, *more, **how))  # type: ignore[call-overload]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(EventLoop, "close", lambda loop: (over.set(), close(loop)))
    return count


async def _clients_of_a_dead_name() -> list[HandlerFailed]:
    handlers = Handlers()
    settings = HandlerConfig.model_validate({"name": HANDLER, "url": f"https://{DEAD}/", "concurrency": MANY})
    handlers.replace([open_handler(settings)])
    asking = [asyncio.create_task(handlers.ask(HANDLER, REQUEST, within_s=1.0)) for _ in range(MANY)]
    await asyncio.sleep(0.2)
    async with asyncio.timeout(0.5):
        assert await asyncio.to_thread(threading.current_thread) is not None
        assert await asyncio.get_running_loop().getaddrinfo("localhost", 443)
    return [outcome for outcome in await asyncio.gather(*asking, return_exceptions=True)]  # type: ignore[misc]


def test_a_handler_whose_name_nobody_answers_for_denies_its_own_clients_and_delays_nobody_else(
    asked: Counter[str],
) -> None:
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        outcomes = runner.run(_clients_of_a_dead_name())
    assert {outcome.refusal for outcome in outcomes} == {Refusal.CLIENT_CONNECT_HANDLER_TIMED_OUT}, outcomes
    assert len(outcomes) == MANY > NAMES_AT_ONCE and asked[DEAD] == 1, "one thread waits for it"


def test_what_the_resolver_says_is_said_to_all_who_ask() -> None:
    async def ask() -> list[object]:
        loop = asyncio.get_running_loop()
        right = [loop.getaddrinfo("127.0.0.1", 443, type=socket.SOCK_STREAM) for _ in range(3)]
        wrong = [loop.getaddrinfo("127.0.0.1", "no-such-service") for _ in range(3)]
        return await asyncio.gather(*right, *wrong, return_exceptions=True)

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        *right, first, second, third = runner.run(ask())
    wanted = socket.getaddrinfo("127.0.0.1", 443, type=socket.SOCK_STREAM)
    assert right == 3 * [wanted]
    assert all(isinstance(each, socket.gaierror) for each in (first, second, third))


def test_where_there_is_no_room_for_a_thread_work_is_done_and_said_to_be() -> None:
    said = threadless.said_by("""
        import asyncio
        from cvpnd.event_loop import EventLoop
        async def work():
            no_more_threads()
            done = await asyncio.gather(*(asyncio.to_thread(abs, -number) for number in range(100)))
            print(done == list(range(100)), len(await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 443)) > 0)
        loop = EventLoop()
        loop.run_until_complete(work())
        loop.close()
    """)
    assert said == "True True\n"


def test_a_loop_that_cannot_have_its_threads_is_none_and_leaves_nobody_waiting() -> None:
    said = threadless.said_by("""
        from cvpnd.event_loop import EventLoop
        no_more_threads()
        try:
            EventLoop()
        except RuntimeError as error:
            print(error)
    """)
    assert said == "can't start new thread\n"


def test_the_next_loop_waits_for_its_own_children() -> None:
    async def run() -> int:
        return await (await asyncio.create_subprocess_exec("true")).wait()

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        assert runner.run(run()) == 0
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(run()) == 0
