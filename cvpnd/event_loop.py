"""The daemon's event loop. Names are looked up in threads of their own: asyncio's are few, and whoever reads a file or
asks the store waits for one of them, so that servers whose names nobody answers for would hold up everybody's logins.
Of one name that is asked for many times at once one thread waits.

No thread is begun once it runs, as there may be no room for one then (TasksMax of the unit). Work that a pool has no
thread for is said to have failed, and done all the same by the next that is free; and a child that a thread of its own
should wait for would be left for ever."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

NAMES_AT_ONCE = 8
WORK_AT_ONCE = min(32, (os.cpu_count() or 1) + 4)
"""As many as asyncio's own pool has."""


class EventLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._names = _begun(NAMES_AT_ONCE, "names")
        self.set_default_executor(_begun(WORK_AT_ONCE, "asyncio"))
        self._asked: dict[tuple[object, ...], asyncio.Future[Any]] = {}
        if sys.version_info < (3, 12):  # from then on asyncio does the same by itself
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(self)
            asyncio.set_child_watcher(watcher)

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        question = host, port, family, type, proto, flags
        if (answer := self._asked.get(question)) is None:
            answer = self._asked[question] = self.run_in_executor(
                self._names, partial(socket.getaddrinfo, host, port, family, type, proto, flags)
            )
            answer.add_done_callback(partial(self._answered, question))
        return await asyncio.shield(answer)  # others may wait for it

    def _answered(self, question: tuple[object, ...], answer: asyncio.Future[Any]) -> None:
        del self._asked[question]
        if not answer.cancelled():
            answer.exception()  # it is nobody's any more if all have left

    def close(self) -> None:
        if sys.version_info < (3, 12) and not self.is_closed():
            asyncio.set_child_watcher(asyncio.ThreadedChildWatcher())  # as for any loop but this
        super().close()
        self._names.shutdown(wait=False, cancel_futures=True)


def _begun(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool with all of its threads."""
    pool, together = ThreadPoolExecutor(threads, name), threading.Barrier(threads)
    try:
        for _ in range(threads):
            pool.submit(together.wait)  # whoever waits is not free: the next one takes another thread
    except RuntimeError:
        together.abort()
        raise
    return pool
