"""The way up: what the control side is to be told, the specification of ``native/events.c``."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque

from cvpnd.dataplane.api import Event

EVENTS_MAX = 4096
EVENTS_OF_PEER = 64
"""Control packets of one peer that wait; a client sends at most 12 without an answer."""
EVENTS_OF_PEER_CROWDED = 8


class EventQueue:
    """What the control side is to be told. Bounded, except for what ends something (``surely``): that happens once
    for a peer and must not be lost."""

    def __init__(self, most: int) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._most = most
        self._events: deque[Event] = deque()
        self._of_clients: Counter[int] = Counter()
        """What waits of each peer's own doing."""

    def put_control(self, event: Event, peer_id: int) -> bool:
        """What clients do may take three quarters of the room, so that the plane can tell the rest, and none of them
        the others'. False when there is none left."""
        most = self._most // 4 * 3
        share = EVENTS_OF_PEER if len(self._events) < most // 2 else EVENTS_OF_PEER_CROWDED
        if len(self._events) >= most or self._of_clients[peer_id] >= share:
            return False
        self._of_clients[peer_id] += 1
        return self.put(event)

    def put(self, event: Event, *, surely: bool = False) -> bool:
        """False when there is no room."""
        if len(self._events) >= self._most and not surely:
            return False
        self._events.append(event)
        os.eventfd_write(self.fd, 1)
        return True

    def take_all(self) -> list[Event]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        events = list(self._events)
        self._events.clear()
        self._of_clients.clear()
        return events

    def forget_peer(self, peer_id: int) -> None:
        """The next peer may get its id."""
        self._events = deque(event for event in self._events if getattr(event, "peer_id", None) != peer_id)
        self._of_clients.pop(peer_id, None)
