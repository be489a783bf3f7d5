"""Imports point down: each room imports what the table in ``CONTRIBUTING.md`` says, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOM = re.compile(r"`cvpnd/(\w+)/`")


def table() -> dict[str, set[str]]:
    """Room -> what it may import: rooms (``config``), modules (``reasons``), files (``ops/logs.py``)."""
    rooms: dict[str, set[str]] = {}
    for line in (REPOSITORY / "CONTRIBUTING.md").read_text().splitlines():
        if not (names := ROOM.findall(line)):
            continue
        _, _, _, may, _ = line.split("|")
        allowed = set(names) | set(re.findall(r"`([^`]+)`", may))
        if "all of the above" in may:
            allowed |= rooms.keys() | set().union(*rooms.values())
        if "and what that may" in may:
            allowed |= rooms[re.findall(r"`(\w+)` and what that may", may)[0]]
        rooms |= dict.fromkeys(names, allowed)
    return rooms


def imports(path: Path) -> Iterator[str]:
    """What of this package a file imports, as paths below it: ``ops/logs``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("cvpnd.").replace(".", "/") for name in names if name.startswith("cvpnd."))


def may(allowed: set[str], imported: str) -> bool:
    return any(f"{imported}/".startswith(f"{each.removesuffix('.py')}/") for each in allowed)


@pytest.mark.parametrize("room", sorted(table()))
def test_a_room_imports_what_lies_below_it(room: str) -> None:
    files = sorted((REPOSITORY / "cvpnd" / room).rglob("*.py"))
    assert files, "a room that is no more"
    found = {(path.name, each) for path in files for each in imports(path) if not may(table()[room], each)}
    assert found == set()


def test_every_room_is_in_the_table() -> None:
    assert {path.parent.name for path in (REPOSITORY / "cvpnd").glob("*/__init__.py")} == set(table())
