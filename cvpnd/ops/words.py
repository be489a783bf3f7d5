"""Words that are counted, so that the first of each is seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def with_zeroes(counts: Mapping[str, int], known: Iterable[str]) -> list[tuple[str, int]]:
    """Every known word, counted or not, and then any other that was counted."""
    words = dict.fromkeys(str(word) for word in known) | dict.fromkeys(sorted(str(word) for word in counts))
    return [(word, counts.get(word, 0)) for word in words]
