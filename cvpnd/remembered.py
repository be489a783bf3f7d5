"""What follows from an object that never changes, worked out once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

MOST = 1024
"""Who was first is forgotten first."""

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def remembered(function: Callable[[Argument], Result]) -> Callable[[Argument], Result]:
    """Like ``lru_cache`` by identity: to hash and compare a certificate takes longer than much that is asked of it.
    For functions of their argument alone: nothing but its age ends an entry."""
    entries: dict[int, tuple[Argument, Result]] = {}  # each holds its argument, so that nobody else gets its id

    @wraps(function)
    def look_up(argument: Argument) -> Result:
        entry = entries.get(id(argument))
        if entry is not None:
            return entry[1]
        result = function(argument)
        if len(entries) >= MOST:
            del entries[next(iter(entries))]
        entries[id(argument)] = argument, result
        return result

    return look_up
