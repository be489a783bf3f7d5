"""Places for logins that wait for people: how many, of whom, and who gives way when there are none left.

Without certificates anybody can have a login wait, so places are shared out: of those who have proven nothing, the one
that waits longest in the largest network gives way to who comes from a smaller one. A few addresses can hold all places
only until somebody else wants one. On the event loop's thread only."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from cvpnd.config import LimitsConfig
from cvpnd.reasons import Refusal
from cvpnd.server.admission import prefixes
from cvpnd.server.denied import Denied

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection


class Engagement(IntEnum):
    """What speaks for it that a person stands behind a login."""

    NONE = 0
    VISITED = 1
    """A browser has opened the link."""
    PROVEN = 2
    """By a password, or by their identity provider: nobody takes this place."""


def proven() -> Engagement:
    return Engagement.PROVEN


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    source: str
    network: str
    engagement: Callable[[], Engagement]
    lost: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when somebody else has it."""


class Places:
    def __init__(self) -> None:
        self._held: dict[str, dict[Place, None]] = {}
        """By endpoint, in the order in which they came."""

    def waiting(self, endpoint_id: str) -> int:
        return len(self._held.get(endpoint_id, ()))

    @contextmanager
    def place(self, connection: Connection, engagement: Callable[[], Engagement] = proven) -> Iterator[Place]:
        """Raises ``Denied`` if there is none."""
        held = self._held.setdefault(connection.endpoint.id, {})
        place = Place(*prefixes(connection.link.remote.host), engagement)
        self._make_room(held, place, connection.endpoint.settings.limits)
        held[place] = None
        try:
            yield place
        finally:
            held.pop(place, None)

    def _make_room(self, held: dict[Place, None], new: Place, limits: LimitsConfig) -> None:
        of_source = [each for each in held if each.source == new.source]
        if len(of_source) >= limits.waiting_logins_per_source:
            giving_way = next((each for each in of_source if each.engagement() is Engagement.NONE), None)
            why = f"{len(of_source)} of {new.source} wait for people"
        elif len(held) >= limits.waiting_logins:
            giving_way, why = _of_the_largest(held, new), f"{len(held)} wait for people"
        else:
            return
        if giving_way is None:
            raise Denied(Refusal.TOO_MANY_LOGINS, why)
        del held[giving_way]
        giving_way.lost.set_result(None)


def _of_the_largest(held: dict[Place, None], new: Place) -> Place | None:
    """None: nobody has so much more than the newcomer, or has done so little, that giving way were fair."""
    networks = Counter(each.network for each in held)
    sources = Counter(each.source for each in held)
    unproven = [(each, now) for each in held if (now := each.engagement()) is not Engagement.PROVEN]
    if not unproven:
        return None
    found, engagement = max(
        unproven, key=lambda one: (networks[one[0].network], sources[one[0].source], -one[1])
    )  # the first of several, who has waited longest
    if found.network == new.network:
        more = sources[found.source] - sources[new.source]
    else:
        more = networks[found.network] - networks[new.network]
    return found if more >= (1 if engagement is Engagement.NONE else 2) else None
