"""How far the first handshakes of clients come, and how long each stage of them takes.

A connection goes through ``tls`` (from its first packet until its credentials are here), ``login`` (until it is let
in) and ``keys`` (until its first data key is in force). Each stage that it enters ends once: ``completed``,
``refused``, or ``abandoned`` by the client."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from cvpnd.ops.histogram import Histogram
from cvpnd.reasons import Refusal
from cvpnd.server.admission import UNFINISHED
from cvpnd.server.connection import Connection, Phase

STAGE_BUCKETS_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Stage(StrEnum):
    TLS = "tls"
    LOGIN = "login"
    KEYS = "keys"


_STAGES = {Phase.HANDSHAKE: Stage.TLS, Phase.LOGIN: Stage.LOGIN, Phase.ESTABLISHED: Stage.KEYS}


class HandshakeStages:
    """Owned by the ``ControlPlane``; kept by endpoint id."""

    def __init__(self) -> None:
        self.results: Counter[tuple[str, Stage, str]] = Counter()
        self.times: dict[tuple[str, Stage], Histogram] = {}
        """Of those that completed the stage."""

    def passed(self, connection: Connection, now: float) -> None:
        """Call it before the connection's phase changes, or with its first key."""
        key = connection.endpoint.id, _STAGES[connection.phase]
        self.results[*key, "completed"] += 1
        times = self.times.get(key)
        if times is None:
            times = self.times[key] = Histogram(STAGE_BUCKETS_S)
        times.add(now - connection.stage_began_at)
        connection.stage_began_at = now

    def failed(self, connection: Connection, reason: Refusal) -> None:
        """Call it before the phase changes. A client that leaves or is replaced has abandoned it."""
        stage = _STAGES[connection.phase]
        self.results[connection.endpoint.id, stage, "abandoned" if reason in UNFINISHED else "refused"] += 1
