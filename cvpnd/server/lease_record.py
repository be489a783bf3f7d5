"""Who had which address when the gateway stopped: through a restart what the kernel tracks for it stays theirs.

Written at a clean stop, read once at the next start, and worth nothing after a while: others may have used the
addresses since. A start that fails writes it again; after a crash there is none, and all that is tracked is
forgotten."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from cvpnd.policy.leases import Holder

log = logging.getLogger(__name__)

GOOD_FOR_S = 300.0

Resting = tuple[tuple[IPv4Address, Holder], ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """What was in a record."""

    resting: Mapping[str, Resting] = field(default_factory=dict)
    """By endpoint id."""
    at: float | None = None
    """Since when, if there was one."""


class LeaseRecord:
    """Blocking, for a thread. A record that cannot be written or read is said to be so, and holds nothing up."""

    def __init__(self, path: Path) -> None:
        """In a directory that is the daemon's alone."""
        self._path = path

    def write(self, resting: Mapping[str, Resting], at: float | None = None) -> None:
        """By endpoint id, when all clients have left: now, or at that time."""
        entries = {name: [[str(address), holder] for address, holder in rest] for name, rest in resting.items()}
        new = self._path.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump({"at": _now() if at is None else at, "resting": entries}, file)
            new.rename(self._path)
        except OSError as error:
            log.warning("%s: %s: clients' connections begin anew after a restart", self._path, error.strerror)

    def take(self) -> Taken:
        """What was written, and nothing the next time."""
        try:
            text = self._path.read_text()
            self._path.unlink()
            found = json.loads(text)
            if not 0 <= _now() - found["at"] <= GOOD_FOR_S:
                return Taken()
            resting = {str(name): tuple(map(_rest, each)) for name, each in found["resting"].items()}
            return Taken(resting, float(found["at"]))
        except FileNotFoundError:
            return Taken()
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("%s cannot be read (%s): clients' connections begin anew", self._path, error)
            return Taken()


def _rest(entry: tuple[str, str | list[str]]) -> tuple[IPv4Address, Holder]:
    address, holder = entry
    if isinstance(holder, str):
        return IPv4Address(address), holder
    user, device = holder
    return IPv4Address(address), (user, device)


def _now() -> float:
    """Goes on while the machine sleeps, and whatever is done to its clock; begins anew with the machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
