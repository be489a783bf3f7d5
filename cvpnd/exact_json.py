"""JSON that every reader reads alike (RFC 8259): in UTF-8, no name twice in an object, no NaN or infinity,
nothing that is no text.

``json`` takes the last of several names; who looked at it before, a proxy or a person, may have seen the first."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NoReturn


def read_json(data: bytes) -> Any:
    """Raises ``ValueError``, which says what is wrong."""
    try:
        text = data.decode("utf-8-sig")  # Windows PowerShell begins its files with a byte order mark
        found = json.loads(text, object_pairs_hook=_without_repetition, parse_float=_finite, parse_constant=_no_number)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()  # halves of surrogate pairs cannot be
    except UnicodeEncodeError:
        raise ValueError("an escape sequence is half of a character") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):  # 1e999
        raise ValueError(f"{text:.40} is too large a number")
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
