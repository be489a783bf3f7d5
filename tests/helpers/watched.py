"""What a ``HostGateway`` tells of changes that others make to its host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from cvpnd.host.gateway import HostChange


class Watched:
    """``async with Watched(gateway.watch(), gateway.watch_firewall()) as watched:``; none of them may end by itself."""

    def __init__(self, *sources: AsyncIterator[HostChange]) -> None:
        self.changes: list[HostChange] = []
        self._sources = sources
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def lines(self) -> list[str]:
        """Of those of which something is said."""
        return [change.text for change in self.changes if change.text]

    async def __aenter__(self) -> Watched:
        self._tasks = [asyncio.create_task(self._follow(source)) for source in self._sources]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.check()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, source: AsyncIterator[HostChange]) -> None:
        async for change in source:
            self.changes.append(change)

    async def until(self, condition: Callable[[], object], timeout_s: float = 6.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.check()
            assert time.monotonic() < deadline, self.lines
            await asyncio.sleep(0.05)
        self.check()

    def check(self) -> None:
        for task in self._tasks:
            assert not task.done(), task
