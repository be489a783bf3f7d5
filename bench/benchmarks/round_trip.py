"""Round-trip times through the tunnel of a stock client: idle, beside a load that both servers bear, and beside as much
as one TCP stream gets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from helpers.lab import IPERF_PORT, TARGET_LEG, Lab, LabError

from benchmarks import servers
from benchmarks.clients import STOCK, connected
from benchmarks.experiment import DIRECTIONS, Asked, Experiment, Metric, Sample, Settings, in_turn

INTERVAL_S = 0.002
RATE = "60M"
"""Of the load that both bear, in bits a second."""
LOADS = {
    "idle": None,
    **{f"beside {RATE}bit/s {direction}": (direction, RATE) for direction in DIRECTIONS},
    **{f"beside one full stream {direction}": (direction, "0") for direction in DIRECTIONS},
}


@contextmanager
def loaded(lab: Lab, direction: str, rate: str) -> Iterator[None]:
    server = lab.target.start("iperf3", "-s", "-1", "-p", str(IPERF_PORT), "--forceflush")
    server.wait_for("listening")
    options = ["-c", TARGET_LEG.host, "-p", str(IPERF_PORT), "-t", "60", "-i", "0.2", "-b", rate, "--forceflush"]
    client = lab.client.start("iperf3", *options, *(["-R"] if direction == "down" else []), label="load")
    try:
        client.wait_for(r"^\[.*bits/sec", 20)
        yield
        if not client.running:
            raise LabError(f"the load ended early:\n{client.tail()}")
    finally:
        client.kill()
        server.kill()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def pinged(lab: Lab, count: int) -> dict[str, float]:
    done = lab.client.run(
        "ping", "-n", "-c", str(count), "-i", str(INTERVAL_S), "-W", "2", TARGET_LEG.host, check=False,
        timeout_s=count * 0.05 + 30,
    )  # fmt: skip
    times = [float(found) for found in re.findall(r" time=([\d.]+) ms", done.stdout)]
    if not times:
        raise LabError(f"no answer:\n{done.stdout}{done.stderr}")
    return {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99), "lost": 100 * (1 - len(times) / count)}


def measure(settings: Settings, number: int) -> Iterator[Sample]:
    with Lab() as lab:
        for name in in_turn(settings, number):
            with servers.running(name, lab), connected(STOCK, lab):
                for row, load in LOADS.items():
                    if load is None:
                        yield Sample(row, name, pinged(lab, settings.pings))
                    else:
                        with loaded(lab, *load):
                            yield Sample(row, name, pinged(lab, settings.pings))


NO_WORSE = Asked(ratio=1.0)

EXPERIMENTS = (
    Experiment(
        "round-trip",
        "Round-trip times through the stock client's tunnel over UDP",
        (Metric("p50_ms", "p50, ms", 3), Metric("p99_ms", "p99, ms", 3), Metric("lost", "lost, %")),
        measure,
        lambda settings: len(settings.servers) * (4 + len(LOADS) * (1 + settings.pings * INTERVAL_S * 1.3)),
        {("idle", "p50_ms"): NO_WORSE, **{(row, "p99_ms"): NO_WORSE for row in LOADS}},
    ),
)
