"""What an experiment is: rows that are measured once in each round, for one server or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

CVPND, OPENVPN = "cvpnd", "OpenVPN"
SERVERS = (CVPND, OPENVPN)
DIRECTIONS = ("up", "down")
"""From the client to the target, and back."""

Transport = Literal["udp", "tcp"]


@dataclass(frozen=True)
class Settings:
    """How much is measured. ``seconds`` is the length of one transfer: iperf3 takes whole ones."""

    rounds: int = 5
    servers: tuple[str, ...] = SERVERS
    seconds: int = 3
    transports: tuple[Transport, ...] = ("udp", "tcp")
    streams: tuple[int, ...] = (1, 4)
    clients: int = 500
    peers: tuple[int, ...] = (1, 100, 2_000, 20_000)
    rules: tuple[int, ...] = (5, 50, 500, 5_000, 50_000)
    packets: int = 32_768
    """Through the data plane alone, for one point of a growth curve."""
    pings: int = 1_000
    flood_s: float = 8.0
    brief: bool = False
    """Micro benchmarks only show that they work."""


FULL = Settings()
QUICK = Settings(
    rounds=1, seconds=1, streams=(1,), clients=100, peers=(1, 20_000), rules=(5, 50_000), pings=300, flood_s=4.0,
    brief=True,
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """One figure of a row."""

    name: str
    title: str
    """With its unit."""
    digits: int = 2
    more_is_better: bool = False


@dataclass(frozen=True)
class Sample:
    """What one row came to for one server in one round."""

    row: str
    server: str
    values: Mapping[str, float]
    """By the metric's name."""
    at: float | None = None
    """Where on its curve, for a row that is one."""


@dataclass(frozen=True)
class Asked:
    """What issue 4 and DESIGN.md ask of a figure. ``ratio`` is ours by OpenVPN's."""

    must: float | None = None
    goal: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Curves:
    """The plot of an experiment about growth: the named metric over ``Sample.at``."""

    metric: str
    axis: str
    """Title of the horizontal axis, which is logarithmic."""


@dataclass(frozen=True)
class Experiment:
    name: str
    title: str
    metrics: tuple[Metric, ...]
    round: Callable[[Settings, int], Iterator[Sample]]
    """Measures everything once. The number of the round decides who comes first."""
    estimate_s: Callable[[Settings], float]
    """Of one round, for whoever waits."""
    asked: Mapping[tuple[str, str], Asked] = field(default_factory=dict)
    """By row and metric."""
    curves: Curves | None = None
    by_default: bool = True


def in_turn(settings: Settings, number: int) -> tuple[str, ...]:
    """The servers in this round's order: who comes first changes, so that a machine that slows down is fair to both."""
    return settings.servers if number % 2 == 0 else settings.servers[::-1]
