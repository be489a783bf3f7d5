"""Tables that say where something is tested: ``directory/file.py::function``, or a file alone."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

TESTS = Path(__file__).parents[1]


@functools.cache
def _functions(path: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def check_place(place: str) -> None:
    path, _, name = place.partition("::")
    assert (TESTS / path).exists(), place
    assert not name or name in _functions(TESTS / path), place
