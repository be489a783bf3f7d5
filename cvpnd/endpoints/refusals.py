"""Changes that were asked for with a valid access key and not made: in the audit, as far as that can bear it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from cvpnd.endpoints.operations import OperationsBase

MOST = 10
WITHIN_S = 60.0
"""So many rows of one key in that time: whoever may only read must not fill the disk. The others are counted."""


REMEMBERED_S = 86_400.0
"""For which it is remembered how many were left out."""


class Allowance:
    """How much of what one key is refused is written down."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._written: dict[str, deque[float]] = {}
        """By key, of those that were refused something lately."""
        self._left_out: dict[str, int] = {}

    def ask(self, key: str) -> int | None:
        """None: not this one. Else how many were left out since the last that was written."""
        now = self._clock()
        if key not in self._written:
            self._forget(now)
        written = self._written.setdefault(key, deque(maxlen=MOST))
        if len(written) == MOST and now - written[0] < WITHIN_S:
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return None
        written.append(now)
        return self._left_out.pop(key, 0)

    def _forget(self, now: float) -> None:
        """Keys that have been quiet for long, which may be deleted by now: they come and go for years."""
        for key in [each for each, written in self._written.items() if now - written[-1] > REMEMBERED_S]:
            del self._written[key]
            self._left_out.pop(key, None)


class RefusalOperations(OperationsBase):
    _refusals: Allowance

    async def record_refusal(self, key_id: str, action: str, reason: str, message: str) -> None:
        """``acting`` says who and from where. Raises ``OperationError`` if the store cannot take it."""
        left_out = self._refusals.ask(key_id)
        if left_out is None:
            return
        details = {"action": action, "reason": reason, "message": message[:300]}
        if left_out:
            details["and_others"] = str(left_out)
        async with self._changing:
            await self._store(self._stored.record_refusal, details)
