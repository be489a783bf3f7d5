"""A histogram as Prometheus has them, kept by whoever measures."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """``bounds`` are the buckets' upper ends, ascending; one more bucket takes what is above them."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Upper end and how many are not above it, as the exposition wants them."""
        ends = [*(str(bound) for bound in self.bounds), "+Inf"]
        return [(end, float(count)) for end, count in zip(ends, itertools.accumulate(self.counts), strict=True)]
