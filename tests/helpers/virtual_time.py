"""An event loop whose time passes only when nothing else is left to do: ten minutes of silence take no time at all."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable


class _Leaping(selectors.DefaultSelector):
    """Instead of waiting until the next timer is due, makes it due."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Real descriptors are served too, but nobody waits for them. What a callback raises is kept in ``errors``."""

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)
        self.errors: list[BaseException] = []
        self.set_exception_handler(self._keep)

    def time(self) -> float:
        return self._leaping.now

    def pass_time(self, seconds: float, then: Callable[[], None] | None = None) -> None:
        """Run everything that is due within ``seconds``, then raise the first error there was."""
        self.run_until_complete(asyncio.sleep(seconds))
        if self.errors:
            raise self.errors[0]
        if then is not None:
            then()

    def _keep(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        self.errors.append(error if isinstance(error, BaseException) else RuntimeError(str(context["message"])))
