"""How often one kind of thing is put right against a program that keeps changing it, and how often that is said."""

from __future__ import annotations

from dataclasses import dataclass

AT_ONCE = 5
"""Times, after which there is a pause before each next one, twice as long as the one before."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
CALM_S = 300.0
"""Without a change: the next is somebody else's."""


@dataclass(slots=True)
class _Struggle:
    times: int = 0
    latest: float = 0.0
    due: float = 0.0


class Patience:
    def __init__(self) -> None:
        self._struggles: dict[str, _Struggle] = {}

    def due(self, what: str) -> float:
        """Not before then."""
        struggle = self._struggles.get(what)
        return 0.0 if struggle is None else struggle.due

    def tried(self, what: str, now: float) -> int:
        """It was put right, or that failed; which time in a row it was."""
        struggle = self._struggles.setdefault(what, _Struggle())
        if now - struggle.latest > CALM_S:
            struggle.times = 0
        struggle.times += 1
        struggle.latest = struggle.due = now
        if (more := struggle.times - AT_ONCE) >= 0:
            struggle.due += min(FIRST_PAUSE_S * 2.0**more, LONGEST_PAUSE_S)
        return struggle.times

    def told(self, text: str, what: str, now: float) -> str:
        """``tried``, and what to say about it: nothing after it has been said that it goes on."""
        times = self.tried(what, now)
        if times < AT_ONCE:
            return text
        if times > AT_ONCE:
            return ""
        return f"{text}, for the {times}th time: somebody keeps doing it, and no more is said of it"
