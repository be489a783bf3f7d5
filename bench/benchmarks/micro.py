"""Small pieces of the data plane by themselves: the programs tests/native/bench_*.c, which ``make bench`` builds for
release. Each prints lines of ROW, WHERE on its curve and nanoseconds, medians of nine in the thread's own time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.experiment import CVPND, Asked, Curves, Experiment, Metric, Sample, Settings

PROGRAMS = Path("build/release/tests/native")
BUILDING = "building"
"""A row that begins so is no packet's cost and has a metric of its own."""


def samples_of(output: str) -> Iterator[Sample]:
    for line in output.splitlines():
        row, where, ns = line.split("\t")
        metric = "built_ns" if row.startswith(BUILDING) else "ns"
        yield Sample(row, CVPND, {metric: float(ns)}, float(where) or None)


def measured_by(name: str) -> Callable[[Settings, int], Iterator[Sample]]:
    def measure(settings: Settings, _number: int) -> Iterator[Sample]:
        program = PROGRAMS / f"bench_{name}"
        if not program.exists():
            raise RuntimeError(f"{program} is missing: make bench builds it")
        short = ["short"] if settings.brief else []
        done = subprocess.run([program, *short], stdout=subprocess.PIPE, text=True, timeout=300, check=True)
        return samples_of(done.stdout)

    return measure


METRICS = (Metric("ns", "ns", 1), Metric("built_ns", "ns", 0))

EXPERIMENTS = (
    Experiment(
        "aead",
        "Sealing and opening a packet",
        METRICS,
        measured_by("aead"),
        lambda settings: 1 if settings.brief else 8,
        curves=Curves("ns", "bytes"),
    ),
    Experiment(
        "forward",
        "The two journeys of a packet in the core, without system calls",
        METRICS,
        measured_by("forward"),
        lambda settings: 1 if settings.brief else 10,
        curves=Curves("ns", "bytes"),
    ),
    Experiment(
        "replay", "The replay window", METRICS, measured_by("replay"), lambda settings: 1 if settings.brief else 2
    ),
    Experiment(
        "lpm",
        "Longest-prefix match, random rules and destinations",
        METRICS,
        measured_by("lpm"),
        lambda settings: 1 if settings.brief else 3,
        {(f"longest-prefix match, {family}", "ns"): Asked(must=60) for family in ("IPv4", "IPv6")},
        Curves("ns", "rules"),
    ),
)
