"""Filter patterns of CloudWatch Logs: which lines they take, and that none costs more than reading the line."""

from __future__ import annotations

import json

import pytest

from cvpnd.api.aws.errors import ApiError
from cvpnd.api.aws.logs import _pattern

LINE = json.dumps({"username": "alice@corp.example.com", "connection-id": "a" * 1000})


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("", True),
        ("alice", True),
        ("alice -corp", False),
        ("?nobody ?alice", True),
        ('{ $.username = "alice*" }', True),
        ('{ $.username = "*corp*com" }', True),
        ('{ $.username = "*corp*corp*" }', False),
        ('{ $.username = "alice" }', False),
        ('{ $.username != "alice" }', True),
        ("{ $.username = a**m }", True),
        ("{ $.none = * }", False),
        ('{ $.connection-id = "%s" }' % ("*a" * 300), True),
        ('{ $.connection-id = "%s" }' % ("*" * 500 + "x"), False),
        ('{ $.connection-id = "%s" }' % ("*a" * 300 + "*x"), False),
    ],
)
def test_lines_are_taken_as_the_pattern_says_however_many_stars_it_has(pattern: str, taken: bool) -> None:
    """With backtracking, a dozen of stars held the interpreter, and so the daemon, for minutes."""
    assert _pattern(pattern)(LINE) is taken


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ApiError, match="pattern"):
        _pattern("{ $.username }")
