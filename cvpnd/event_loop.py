"""The daemon's event loop. Names are looked up in threads of their own: asyncio's are few, and whoever reads a file or
asks the store waits for one of them, so that servers whose names nobody answers for would hold up everybody's logins.
Of one name that is asked for many times at once one thread waits."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

NAMES_AT_ONCE = 8


class EventLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._names = ThreadPoolExecutor(NAMES_AT_ONCE, thread_name_prefix="names")
        self._asked: dict[tuple[object, ...], asyncio.Future[Any]] = {}

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
        super().close()
        self._names.shutdown(wait=False, cancel_futures=True)
