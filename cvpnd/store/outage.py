"""Whether the database can be used: said once when it cannot any more, and once when it can again."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Literal

log = logging.getLogger(__name__)


Loss = Literal["refuses", "hangs", "corrupt"]
"""Hangs: it does not even say no, and whoever asks it waits for long. Corrupt: what it says is worth nothing and what
it is told makes it worse, so that it is not asked again before the next start."""


@dataclass(frozen=True, slots=True)
class Outage:
    """From when on the database could not be used, and why."""

    since: float
    loss: Loss
    reason: str


class Availability:
    """Of one database. Any thread may tell and ask; ``outage`` is replaced as a whole, under ``_lock``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.outage: Outage | None = None
        self.opened = False
        """Before, whoever opens it is told, and nothing goes on."""

    def lost(self, loss: Loss, reason: str) -> None:
        with self._lock:
            before = self.outage
            if before is not None and before.loss == "corrupt":
                return
            self.outage = Outage(time.time() if before is None else before.since, loss, reason)
        if before is None and self.opened:
            log.critical(
                "the state database cannot be used: %s; sessions go on, and no change is made and nobody logs in "
                "who needs it until %s",
                reason,
                "it is restored and cvpnd started anew" if loss == "corrupt" else "it can",
            )

    def found(self) -> None:
        with self._lock:
            before, self.outage = self.outage, None
        if before is not None:
            log.critical("the state database can be used again, after %.0f s", time.time() - before.since)
