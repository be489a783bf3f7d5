"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Literal["ok", "unknown", "warning", "problem"]
    """``problem``: clients are turned away or reach nothing. ``warning``: they will be, or it may be meant so.
    ``unknown``: nobody has looked."""
    what: str = ""
    fix: str = ""


def problem(check: str, what: str, fix: str) -> Finding:
    return Finding(check, "problem", what, fix)


def warning(check: str, what: str, fix: str) -> Finding:
    return Finding(check, "warning", what, fix)
