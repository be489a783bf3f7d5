"""What the daemon does beside everything else, each in a task of its own that somebody holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

log = logging.getLogger(__name__)

BEGUN_AGAIN_AFTER_S = 10.0
"""A chore that failed: long enough not to fill the log, short enough for who is to be thrown out."""

Chore = Coroutine[None, None, None]


class Chores:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, chore: Chore) -> None:
        """It should not fail; if it does, that is said."""
        task = asyncio.create_task(chore)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def keep(self, chore: Callable[[], Chore]) -> None:
        """The same with something that is to go on for as long as the daemon does: what fails is begun again."""
        self.do(self._again(chore))

    async def _again(self, chore: Callable[[], Chore]) -> None:
        while True:
            begun = chore()
            try:
                return await begun
            except Exception:
                what = getattr(begun, "__qualname__", "a chore")
                log.critical("%s failed and begins again in %g s", what, BEGUN_AGAIN_AFTER_S, exc_info=True)
            await asyncio.sleep(BEGUN_AGAIN_AFTER_S)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a chore of the daemon failed", exc_info=error)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
