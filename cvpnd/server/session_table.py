"""Who is connected: by source address, by peer id, by connection id; and the limits on strangers.

A control packet finds its connection by listener, source address and the sender's session id. Two can share an
address for a while: a client process that was replaced by a new one (openvpn-wire.md 2.5). Connections over TCP
are found by their socket and appear here only under their ids.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from cvpnd.dataplane.api import MAX_PEER_ID, SocketAddress
from cvpnd.reasons import Refusal
from cvpnd.server.admission import prefixes
from cvpnd.server.connection import Connection, DeviceKey, Phase
from cvpnd.server.link import UdpLink
from cvpnd.server.strangers import Strangers
from cvpnd.spelling import any_spelling

MUCH_LATER_S = 10.0
"""What was repeated in two seconds is acknowledged and nothing is due for an hour: no need to wake up in between."""
SUPERSEDED_TIMERS = 64
"""So many more than there are connections may wait on the heap in vain."""


class Door(Protocol):
    """Who lets control packets through (``doorman.Doorman``)."""

    def know(self, listener: int, source: SocketAddress, client_session_id: bytes, *, established: bool) -> None: ...

    def forget(self, listener: int, source: SocketAddress, client_session_id: bytes) -> None: ...


class SessionTable:
    def __init__(self, door: Door) -> None:
        """``door`` always knows the connections over UDP that can be found here, and no others."""
        self._door = door
        self._by_source: dict[tuple[int, SocketAddress], list[Connection]] = {}
        self._by_peer: dict[int, Connection] = {}
        self._by_id: dict[str, Connection] = {}
        self._by_device: dict[DeviceKey, Connection] = {}
        """The latest of each: devices that do not say who they are share an entry with those of their certificate."""
        self._by_identity: dict[tuple[int, str], dict[Connection, None]] = {}
        """Endpoint and user, however the name is spelled -> established connections, oldest first."""
        self._handshakes_from: Counter[str] = Counter()
        self.handshakes = 0
        """Connections that never came as far as their credentials (without a certificate: through login), until they
        are forgotten: who fails fast does not get to try again any faster, so this bounds memory, work and log lines
        together."""
        self.unproven = 0
        """Those of them that began without a cookie."""
        self.strangers: Strangers[Connection] = Strangers()
        """Those of them that may have to give way: neither these, whose address may be somebody else's, nor who waits
        for an answer to credentials, of which ``places.py`` decides."""
        self._timers: list[tuple[float, int, str]] = []
        """By their ids: connections that are forgotten are not to be held until the hour in which they were due."""
        self._timer_order = itertools.count()
        self._next_peer_id = 0

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    # -- limits on strangers ------------------------------------------------------------------------------

    def handshakes_from(self, host: str) -> int:
        return self._handshakes_from[prefixes(host)[0]]

    def count_stranger(self, host: str) -> None:
        """Somebody who is not a connection yet has a share in what one source may have."""
        self._handshakes_from[prefixes(host)[0]] += 1

    def discount_stranger(self, host: str) -> None:
        prefix, _ = prefixes(host)
        self._handshakes_from[prefix] -= 1
        if self._handshakes_from[prefix] <= 0:
            del self._handshakes_from[prefix]

    def set_phase(self, connection: Connection, phase: Phase) -> None:
        """The only place that changes a phase, so that the count of strangers is always right."""
        if phase is Phase.ESTABLISHED or (phase is Phase.LOGIN and connection.certified):
            self._leave_handshake(connection)
        if phase is Phase.LOGIN:
            self.strangers.leave(connection)
        if phase is Phase.ENDED and connection.device is not None:
            if self._by_device.get(connection.device) is connection:
                del self._by_device[connection.device]
            connection.device = None
        was_established = connection.established
        connection.phase, connection.established = phase, phase is Phase.ESTABLISHED
        if connection.established != was_established:
            self._count_identity(connection)
            self._tell_door(connection)

    def _count_identity(self, connection: Connection) -> None:
        if connection.identity is None:
            return
        key = (connection.endpoint.index, any_spelling(connection.identity.user))
        if connection.established:
            self._by_identity.setdefault(key, {})[connection] = None
        elif (sessions := self._by_identity.get(key)) is not None:
            sessions.pop(connection, None)
            if not sessions:
                del self._by_identity[key]

    def _leave_handshake(self, connection: Connection) -> None:
        if connection.stranger:
            connection.stranger = False
            self.handshakes -= 1
            self.discount_stranger(connection.link.remote.host)
            self.unproven -= connection.unproven
            self.strangers.leave(connection)

    # -- connections --------------------------------------------------------------------------------------

    def add(self, connection: Connection) -> None:
        self._by_id[connection.connection_id] = connection
        self.handshakes += 1
        self.count_stranger(connection.link.remote.host)
        self.unproven += connection.unproven
        if not connection.unproven:
            self.strangers.enter(connection, *prefixes(connection.link.remote.host))
        self._link_source(connection)

    def prove(self, connection: Connection) -> None:
        """It began ``unproven``, and its source address is its own."""
        connection.unproven = False
        self.unproven -= 1
        self.strangers.enter(connection, *prefixes(connection.link.remote.host))

    def remove(self, connection: Connection) -> None:
        """Forget a connection; its peer must be gone from the data plane. Idempotent."""
        if self._by_id.pop(connection.connection_id, None) is None:
            return
        self._leave_handshake(connection)
        self._unlink_source(connection)
        connection.timer = None

    def _link_source(self, connection: Connection) -> None:
        if isinstance(connection.link, UdpLink):
            self._by_source.setdefault((connection.link.listener, connection.link.remote), []).append(connection)
            self._tell_door(connection)

    def _unlink_source(self, connection: Connection) -> None:
        if not isinstance(connection.link, UdpLink):
            return
        key = (connection.link.listener, connection.link.remote)
        sharing = self._by_source.get(key, [])
        if connection in sharing:
            sharing.remove(connection)
        if not sharing:
            self._by_source.pop(key, None)
        self._door.forget(*key, connection.client_session_id)

    def _tell_door(self, connection: Connection) -> None:
        link = connection.link
        if isinstance(link, UdpLink) and connection in self._by_source.get((link.listener, link.remote), ()):
            self._door.know(
                link.listener, link.remote, connection.client_session_id, established=connection.established
            )

    def find(self, listener: int, source: SocketAddress, client_session_id: bytes) -> Connection | None:
        for connection in self._by_source.get((listener, source), ()):
            if connection.client_session_id == client_session_id:
                return connection
        return None

    def at_source(self, listener: int, source: SocketAddress) -> list[Connection]:
        return list(self._by_source.get((listener, source), ()))

    def by_id(self, connection_id: str) -> Connection | None:
        return self._by_id.get(connection_id)

    def by_peer(self, peer_id: int) -> Connection | None:
        return self._by_peer.get(peer_id)

    def sessions_of(self, endpoint: int, user: str) -> list[Connection]:
        """Established ones, oldest first."""
        return list(self._by_identity.get((endpoint, any_spelling(user)), ()))

    def latest_of(self, device: DeviceKey) -> Connection | None:
        return self._by_device.get(device)

    def identify_device(self, connection: Connection, device: DeviceKey) -> Connection | None:
        """From now on ``connection`` is the latest one of ``device``. Returns the one that was."""
        before = self.latest_of(device)
        self._by_device[device] = connection
        connection.device = device
        return before

    def move(self, connection: Connection, source: SocketAddress, local: str) -> None:
        """The client roamed: control packets are now expected from (and sent to) the new address."""
        link = connection.link
        assert isinstance(link, UdpLink)  # noqa: S101 - TCP connections do not float; caller's promise
        self._unlink_source(connection)
        link.remote, link.local = source, local
        self._link_source(connection)

    # -- peer ids -----------------------------------------------------------------------------------------

    def reserve_peer_id(self, connection: Connection) -> int:
        """Ids go round, so that a stray packet of a client that just left meets no key instead of somebody's."""
        for _ in range(MAX_PEER_ID + 1):
            peer_id = self._next_peer_id
            self._next_peer_id = (peer_id + 1) % (MAX_PEER_ID + 1)
            if peer_id not in self._by_peer:
                self._by_peer[peer_id] = connection
                connection.reserved_peer_id = peer_id
                return peer_id
        raise LookupError(Refusal.SESSION_LIMIT)

    def assign_peer_id(self, connection: Connection) -> int:
        """For the data plane: the id that the connection has been told, or any."""
        reserved = connection.reserved_peer_id
        connection.peer_id = self.reserve_peer_id(connection) if reserved is None else reserved
        return connection.peer_id

    def free_peer_id(self, connection: Connection) -> None:
        if connection.reserved_peer_id is not None:
            self._by_peer.pop(connection.reserved_peer_id, None)
        connection.peer_id = connection.reserved_peer_id = None

    # -- timers: one heap for everybody, nothing to do for who is idle -------------------------------------

    def set_timer(self, connection: Connection, deadline: float | None) -> None:
        """Wake ``connection`` at ``deadline`` or before. A deadline not much later than the last one pushes nothing:
        the early wake-up asks again, so that a busy connection does not fill the heap."""
        timer = connection.timer
        if deadline is None or (timer is not None and timer <= deadline <= timer + MUCH_LATER_S):
            return
        connection.timer = deadline
        heapq.heappush(self._timers, (deadline, next(self._timer_order), connection.connection_id))
        if len(self._timers) > 2 * len(self._by_id) + SUPERSEDED_TIMERS:
            self._drop_superseded()

    def _drop_superseded(self) -> None:
        current = {entry[2]: entry for entry in self._timers if self._waiting(entry) is not None}
        self._timers = list(current.values())
        heapq.heapify(self._timers)

    def _waiting(self, entry: tuple[float, int, str]) -> Connection | None:
        """Whom it wakes; None: it is superseded by an earlier one, or the connection is gone."""
        connection = self._by_id.get(entry[2])
        return connection if connection is not None and connection.timer == entry[0] else None

    def next_deadline(self) -> float | None:
        while self._timers and self._waiting(self._timers[0]) is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def pop_due(self, now: float) -> list[Connection]:
        due = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            connection = self._by_id[heapq.heappop(self._timers)[2]]
            connection.timer = None
            due.append(connection)
        return due
