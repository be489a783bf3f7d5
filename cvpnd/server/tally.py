"""What happened to connections, counted by endpoint, for the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import MutableMapping
from typing import Any

from cvpnd.dataplane.api import NO_STATS, PeerStats, add_counts
from cvpnd.reasons import End, Refusal
from cvpnd.server.admission import UNFINISHED
from cvpnd.server.connection import Connection
from cvpnd.server.handshakes import HandshakeStages


class Tally:
    """Owned by the ``ControlPlane``. Keys begin with, or are, an endpoint's id."""

    def __init__(self) -> None:
        self.refusals: Counter[tuple[str, Refusal]] = Counter()
        self.ends: Counter[tuple[str, End]] = Counter()
        self.established: Counter[str] = Counter()
        self.logins: Counter[tuple[str, str, str]] = Counter()
        """By method and result too (``accepted``, ``refused``)."""
        self.renegotiations: Counter[str] = Counter()
        self.sessions: Counter[str] = Counter()
        """Peers in the data plane now."""
        self.traffic: dict[str, tuple[int, ...]] = {}
        """``PeerStats.counts`` of connections that ended."""
        self.stages = HandshakeStages()
        self.downloads: Counter[str] = Counter()
        """Profiles that people took from the portal."""

    def keys_installed(self, connection: Connection, now: float) -> None:
        """The first ones of this connection, before it knows."""
        self.stages.passed(connection, now)
        self.established[connection.endpoint.id] += 1
        self.logins[connection.endpoint.id, connection.method, "accepted"] += 1

    def ended(self, connection: Connection, reason: Refusal | End) -> None:
        """Call it before its phase changes. A ``Refusal`` where its first keys were not installed."""
        if isinstance(reason, End):
            self.ends[connection.endpoint.id, reason] += 1
            return
        self.refusals[connection.endpoint.id, reason] += 1
        if not connection.keys_installed:
            self.stages.failed(connection, reason)
            if reason not in UNFINISHED:
                self.logins[connection.endpoint.id, connection.method, "refused"] += 1

    def carried(self, endpoint_id: str, stats: PeerStats) -> None:
        """By a connection that is over."""
        self.traffic[endpoint_id] = add_counts(self.traffic.get(endpoint_id, NO_STATS.counts), stats.counts)

    def forget(self, endpoint_id: str) -> None:
        """It is gone for good."""
        counted: tuple[MutableMapping[Any, Any], ...] = (
            self.refusals, self.ends, self.logins, self.stages.results, self.stages.times
        )  # fmt: skip
        for each in counted:
            for key in [key for key in each if key[0] == endpoint_id]:
                del each[key]
        for count in (self.established, self.renegotiations, self.sessions, self.downloads):
            del count[endpoint_id]
        self.traffic.pop(endpoint_id, None)
