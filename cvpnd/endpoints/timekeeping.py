"""Looks after both clocks: keeps in the store how far the steady one has come, and notices when the wall clock is set.

What goes by the wall clock all the same is the business of others who go by it too: certificates and revocation lists,
answers of identity providers, codes of authenticator apps, signed requests. So it is said when the clock jumps."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from cvpnd.auth.revoked_logins import LONGEST_LOGIN_S
from cvpnd.server.steady_clock import SteadyClock
from cvpnd.store import Store, StoreError, StoreUnavailable

log = logging.getLogger(__name__)

LOOKS_EVERY_S = 1.0
KEPT_EVERY_S = 30.0
"""By so much the steady clocks of gateways on one store may differ."""
STEP_S = 5.0
"""Less is what keepers of the clock do every day."""
BEHIND_S = 60.0
"""Than it was when a gateway ran last: those of several gateways differ too."""
AHEAD_S = 30 * 86_400.0
"""Than it was then: so long a gateway is rarely off."""
UNSURE_S = 0.5
"""Between two readings: whatever held this thread up is no step."""
SHOWN_S = 86_400.0


def _boot_time() -> float:
    """It goes on while the machine sleeps, so that waking up is no step."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Timekeeper:
    """On the event loop's thread."""

    def __init__(
        self,
        clock: SteadyClock,
        store: Store,
        wall: Callable[[], float] = time.time,
        uptime: Callable[[], float] = _boot_time,
    ) -> None:
        self._clock, self._store = clock, store
        clock.apart_s = KEPT_EVERY_S if store.is_shared else 0.0
        self._wall, self._uptime = wall, uptime
        self._apart = wall() - uptime()
        self._said = ""
        self._said_at = 0.0
        self._stepped = asyncio.Event()

    async def begin(self) -> None:
        """The steady clock goes on where the store's has come to, or may have come to until a crash: a login that began
        before it must not look later than its end after it. Raises ``StoreError``."""
        wall = self._wall()
        before = await asyncio.to_thread(self._store.keep_clock, self._clock.now(), wall)
        behind_s = before.wall - wall
        self._clock.catch_up(before.seconds + self._may_have_passed(behind_s))
        await asyncio.to_thread(self._store.keep_clock, self._clock.now(), wall)  # or the next crash takes that back
        if behind_s > BEHIND_S:
            self._say(f"the clock is {_in_words(behind_s)} behind what it was when a gateway ran last")
        elif -behind_s > AHEAD_S:
            self._say(f"no gateway has run for {_in_words(-behind_s)}, or the clock is ahead")

    def _may_have_passed(self, behind_s: float) -> float:
        """Since the store was told last, which it may not have been for hours, until a crash."""
        if self._store.is_shared:  # then it was told by who may run on: an hour too many ended the sessions there
            if 0 < behind_s <= BEHIND_S:
                return 0.0
            most_s = KEPT_EVERY_S
        else:
            most_s = LONGEST_LOGIN_S
        return KEPT_EVERY_S if behind_s > 0 else min(-behind_s, most_s)

    @property
    def trouble(self) -> str:
        """What was noticed within the last day."""
        return self._said if self._clock.now() - self._said_at < SHOWN_S else ""

    async def keep(self) -> None:
        """Runs until cancelled."""
        kept_at = self._clock.now()
        while True:
            await asyncio.sleep(LOOKS_EVERY_S)
            apart = self._apart
            self.look()
            stepped = abs(self._apart - apart) >= STEP_S  # kept at once: a crash would take it for time that has passed
            if stepped or self._clock.now() - kept_at >= KEPT_EVERY_S:
                kept_at = self._clock.now()
                await self._keep()

    async def _keep(self) -> None:
        try:
            stored = await asyncio.to_thread(self._store.keep_clock, self._clock.now(), self._wall())
            self._clock.catch_up(stored.seconds)
        except StoreUnavailable:  # which is said already
            pass
        except StoreError as error:
            log.warning("how long the gateway has run cannot be kept: %s", error)

    def look(self) -> None:
        before = self._uptime()
        wall, after = self._wall(), self._uptime()
        if after - before > UNSURE_S:
            return
        step_s = wall - after - self._apart
        self._apart += step_s
        if abs(step_s) >= STEP_S:
            self._say(f"the clock was put {'ahead' if step_s > 0 else 'back'} by {_in_words(abs(step_s))}")
            self._stepped.set()

    def _say(self, what: str) -> None:
        log.warning("%s", what)
        self._said, self._said_at = what, self._clock.now()

    async def until_step(self, within_s: float) -> None:
        """Until the wall clock is set, or that has passed."""
        self._stepped.clear()
        try:
            async with asyncio.timeout(within_s):
                await self._stepped.wait()
        except TimeoutError:
            pass


def _in_words(seconds: float) -> str:
    for length, unit in ((365 * 86_400, "years"), (86_400, "days"), (3600, "hours"), (60, "minutes")):
        if round(seconds) >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
