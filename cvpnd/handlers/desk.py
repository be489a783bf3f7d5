"""Who is asked when. Each handler answers so many at once, so many wait for their turn, and whoever cannot is refused
at once; waiting counts into the time that an answer may take. So a handler that hangs holds up its own endpoints for a
bounded time and nobody else's at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from cvpnd.config import HandlerConfig
from cvpnd.handlers.schema import ConnectAnswer, ConnectRequest, HandlerFailed, read_answer
from cvpnd.ops.histogram import Histogram
from cvpnd.reasons import Refusal

log = logging.getLogger(__name__)

SECONDS_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Handler(Protocol):
    """One kind of handler."""

    @property
    def settings(self) -> HandlerConfig: ...

    @property
    def read_from_files(self) -> object:
        """What it was made from besides its settings."""
        ...

    @property
    def trouble(self) -> str:
        """Why it lets nobody in before it is even asked, and the fix; empty: it is asked. As of the latest look."""
        ...

    def look(self) -> None:
        """Whether that is so still. Reads files: from a thread."""
        ...

    async def call(self, request: ConnectRequest) -> bytes:
        """The answer as it came. Raises ``HandlerFailed``. Cancelled when its time is over."""
        ...


class _Desk:
    def __init__(self, handler: Handler, seconds: Histogram) -> None:
        self.handler = handler
        self.seconds = seconds
        self.turns = asyncio.Semaphore(handler.settings.concurrency)
        self.waiting = 0
        self.asked = 0


class Handlers:
    """By name. On the event loop's thread only."""

    def __init__(self) -> None:
        self._desks: dict[str, _Desk] = {}

    def replace(self, handlers: Iterable[Handler]) -> None:
        """Who is being asked answers still. One that stays the same keeps its desk, and with it its limits."""
        before, self._desks = self._desks, {}
        for handler in handlers:
            name = handler.settings.name
            desk = before.get(name)
            same = desk is not None and (desk.handler.settings, desk.handler.read_from_files) == (
                handler.settings,
                handler.read_from_files,
            )
            if desk is None:
                self._desks[name] = _Desk(handler, Histogram(SECONDS_BUCKETS))
            else:  # metrics do not run backwards
                self._desks[name] = desk if same else _Desk(handler, desk.seconds)

    def seconds(self) -> dict[str, Histogram]:
        """How long clients waited for the answers of each, or for the lack of one."""
        return {name: desk.seconds for name, desk in self._desks.items()}

    def troubles(self) -> dict[str, str]:
        """Of each by name; empty where there is none."""
        return {name: desk.handler.trouble for name, desk in self._desks.items()}

    async def look(self) -> None:
        for desk in list(self._desks.values()):
            await asyncio.to_thread(desk.handler.look)

    def pending(self) -> dict[str, int]:
        """How many are waited for, those in the queue included."""
        return {name: desk.waiting + desk.asked for name, desk in self._desks.items()}

    async def ask(self, name: str, request: ConnectRequest, *, within_s: float) -> ConnectAnswer:
        """``within_s``: what the client's handshake has left. Raises ``HandlerFailed``."""
        desk = self._desks.get(name)
        if desk is None:
            raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR, f"there is no handler {name}")
        begun = asyncio.get_running_loop().time()
        try:
            return await self._answer(desk, request, begun + min(within_s, desk.handler.settings.timeout_s))
        finally:
            desk.seconds.add(asyncio.get_running_loop().time() - begun)

    async def _answer(self, desk: _Desk, request: ConnectRequest, deadline: float) -> ConnectAnswer:
        await self._wait_for_turn(desk, deadline)
        desk.asked += 1
        try:
            return read_answer(await self._call(desk.handler, request, deadline))
        finally:
            desk.asked -= 1
            desk.turns.release()

    async def _wait_for_turn(self, desk: _Desk, deadline: float) -> None:
        if desk.turns.locked() and desk.waiting >= desk.handler.settings.queue:
            raise HandlerFailed(
                Refusal.CLIENT_CONNECT_HANDLER_THROTTLED, f"{desk.asked} are being answered and {desk.waiting} wait"
            )
        desk.waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await desk.turns.acquire()
        except TimeoutError:
            raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_THROTTLED, "its turn did not come in time") from None
        finally:
            desk.waiting -= 1

    async def _call(self, handler: Handler, request: ConnectRequest, deadline: float) -> bytes:
        try:
            async with asyncio.timeout_at(deadline) as time_left:
                return await handler.call(request)
        except HandlerFailed:
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and time_left.expired():
                raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_TIMED_OUT, "no answer in time") from None
            log.exception("handler %s", handler.settings.name)
            raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR, type(error).__name__) from error
