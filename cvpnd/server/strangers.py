"""Places by network and source, of handshakes under way or of connections over HTTP: whose gives way when there is room
for no more.

Whoever proves an address may begin something and say no more, so places are shared out: the oldest of the largest
source in the largest network gives way to who comes from one that has fewer. Each may keep a part of all places, also
when thousands of others want one: an office behind one address logs in whatever happens elsewhere. On the event loop's
thread only."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Guest = TypeVar("Guest", bound=Hashable)

KEPT_PARTS = 16
"""So many networks can fill all places between them and give nothing back: 62 of 1,000 each."""


class _Ranks:
    """How many each has. The largest is found among as many numbers as differ, of which there are few: a hundred
    thousand things make 446 at most."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._having: dict[int, dict[str, None]] = {}

    def __getitem__(self, key: str) -> int:
        return self._counts.get(key, 0)

    def change(self, key: str, by: int) -> None:
        before = self._counts.get(key, 0)
        if before:
            having = self._having[before]
            del having[key]
            if not having:
                del self._having[before]
        if before + by:
            self._counts[key] = before + by
            self._having.setdefault(before + by, {})[key] = None
        else:
            del self._counts[key]

    def largest(self) -> str:
        """``change`` must have put one in."""
        return next(iter(self._having[max(self._having)]))


class Strangers(Generic[Guest]):
    def __init__(self) -> None:
        self._networks = _Ranks()
        self._sources: dict[str, _Ranks] = {}
        """By network."""
        self._of_source: dict[str, dict[Guest, None]] = {}
        """In the order in which they came."""
        self._places: dict[Guest, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def of_source(self, source: str, network: str) -> int:
        return self._sources[network][source] if network in self._sources else 0

    def enter(self, guest: Guest, source: str, network: str) -> None:
        self._places[guest] = source, network
        self._of_source.setdefault(source, {})[guest] = None
        self._networks.change(network, 1)
        if (sources := self._sources.get(network)) is None:
            sources = self._sources[network] = _Ranks()
        sources.change(source, 1)

    def leave(self, guest: Guest) -> None:
        """Idempotent."""
        if (place := self._places.pop(guest, None)) is None:
            return
        source, network = place
        del self._of_source[source][guest]
        if not self._of_source[source]:
            del self._of_source[source]
        self._networks.change(network, -1)
        self._sources[network].change(source, -1)
        if not self._networks[network]:
            del self._sources[network]

    def giving_way(self, source: str, network: str, places: int) -> Guest | None:
        """To a newcomer from there. None: nobody has so much more, or more than everybody may keep."""
        if not self._places:
            return None
        largest = self._networks.largest()
        if self._networks[network] == self._networks[largest]:  # its own: fair among neighbours
            largest = network
            found = self._sources[largest].largest()
            has, new_has = self._sources[largest][found], self._sources[largest][source]
        else:
            found = self._sources[largest].largest()
            has, new_has = self._networks[largest], self._networks[network]
        if has < new_has + 2 or has <= places // KEPT_PARTS:
            return None
        return next(iter(self._of_source[found]))
