"""Which packets of a sender have been here before (openvpn-wire.md section 6.5)."""

from __future__ import annotations

from collections.abc import Callable

from cvpnd.wire.wrap.wrapping import ReplayId

WINDOW_IDS = 64
WINDOW_S = 15.0
_LAST_ID = 0xFFFFFFFF


class SendCounter:
    """Numbers our packets, retransmissions included. ``clock`` is wall-clock time, since the peer compares it with that
    of our earlier packets. It is read with the first packet and when the numbers are used up."""

    __slots__ = ("_clock", "_next_id", "_time")

    def __init__(self, clock: Callable[[], float], first_id: int = 1) -> None:
        self._clock = clock
        self._next_id = first_id
        self._time = 0

    @property
    def next_id(self) -> int:
        return self._next_id

    def next(self) -> ReplayId:
        if self._time == 0 or self._next_id > _LAST_ID:
            if self._next_id > _LAST_ID:
                self._next_id = 1
            self._time = max(self._time + 1, int(self._clock()))  # a pair is never used twice
        replay_id = ReplayId(self._next_id, self._time)
        self._next_id += 1
        return replay_id


class ReplayWindow:
    """Takes each id once, up to 64 behind the highest and no later than 15 s after a higher one. A higher time begins
    anew, a lower one is never taken. Ask only about authentic packets: the answer yes is remembered."""

    __slots__ = ("_arrivals", "_highest", "_time")

    def __init__(self) -> None:
        self._time = -1
        self._highest = 0
        self._arrivals: dict[int, float] = {}
        """The ids of the window that came, and when."""

    @property
    def latest(self) -> tuple[int, int]:
        """The highest id and its time; -1: none yet."""
        return self._highest, self._time

    def accept(self, replay_id: ReplayId, now: float) -> bool:
        number, time = replay_id
        if number == 0 or time < self._time:
            return False
        if time > self._time:
            self._time = time
            self._highest = 0
            self._arrivals.clear()
        if number <= self._highest and not self._fits_behind(number, now):
            return False
        self._highest = max(self._highest, number)
        self._arrivals[number] = now
        if len(self._arrivals) > WINDOW_IDS:
            self._arrivals = {n: at for n, at in self._arrivals.items() if n > self._highest - WINDOW_IDS}
        return True

    def _fits_behind(self, number: int, now: float) -> bool:
        if number <= self._highest - WINDOW_IDS or number in self._arrivals:
            return False
        return all(at >= now - WINDOW_S for other, at in self._arrivals.items() if other > number)
