"""What can be typed behind a program made with typer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def commands(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Every one that does something, by its words."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path), command
        return
    for name, each in inner.items():
        yield from commands(each, *path, name)
