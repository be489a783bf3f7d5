"""Time that nobody sets: the seconds for which gateways on this store have run.

It never goes back, so whatever is to be over after a while, or is remembered for a while, goes by it. It jumps ahead
only to where it may have been before: at a start by what the wall clock says has passed since the store was told last,
and to where another gateway on the store has come (``endpoints/timekeeping.py``). It need not count all of the time in
which no gateway ran: what must not outlast that either goes by the wall clock too, and ends by the one that says so
first. Gateways on one store read the same, give or take how often they compare it."""

from __future__ import annotations

import time
from collections.abc import Callable


class SteadyClock:
    """Set on the event loop's thread; any may read it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic``: of this process. It begins with 0."""
        self._monotonic = monotonic
        self._began_at = monotonic()
        self.apart_s = 0.0
        """By so much it may differ from that of another gateway on the store."""

    def now(self) -> float:
        return self._monotonic() - self._began_at

    def catch_up(self, seconds: float) -> None:
        """With what the store says of an earlier process or of another gateway."""
        self._began_at -= max(0.0, seconds - self.now())
