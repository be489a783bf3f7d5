"""Many clients: what the full handshake of one costs the server (mutual TLS, RSA keys of 2048 bits), how much memory
one holds while it is connected, and how long it takes when all come at once, as after a restart."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from helpers.lab import Lab, LabError
from helpers.netns import Process
from helpers.process_cost import cpu_s, private_bytes

from benchmarks import servers
from benchmarks.experiment import Asked, Experiment, Metric, Sample, Settings, in_turn

BENCH = Path(__file__).resolve().parents[1]
FIRST_ONES = 20
"""Who come and go before anything is measured: what the first client costs is no other's cost."""
SPREAD_S = 0.012
"""Between two clients' beginnings: a rate that client and server keep up with, so that nothing is sent twice."""
SETTLE_S = 2.0
ROW = "A client"
STORM_ROW = "All at once"
STORM_TIMEOUT_S = 60.0
"""Who is not in by then is counted, and comes no more."""


def crowd(lab: Lab, count: int, *more: str) -> Process:
    pki = lab.directory / "pki"
    options = [f"--remote={lab.gateway_address}:{servers.PORT}", f"--count={count}", *more]
    options += [f"--{option}={pki}/{name}" for option, name in (("ca", "ca.crt"), ("cert", "client.crt"))]
    return lab.client.start(
        "prlimit", "--nofile=8192", sys.executable, "-P", "-m", "light_client", *options, f"--key={pki}/client.key",
        label="light-clients",
        env={"PYTHONPATH": os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")]))},
    )  # fmt: skip


def spread(count: int) -> str:
    return f"--spread={count * SPREAD_S}"


def warm_up(lab: Lab, count: int) -> None:
    few = min(FIRST_ONES, count)
    first_ones = crowd(lab, few, spread(few), "--announce")
    first_ones.wait_for("^all connected", 30)
    first_ones.wait(30)
    time.sleep(SETTLE_S)


def visit(lab: Lab, server: Process, count: int) -> dict[str, float]:
    warm_up(lab, count)
    pid = server.pid
    cpu, memory = cpu_s(pid), private_bytes(pid)
    clients = crowd(lab, count, spread(count), "--hold=600", "--announce")
    try:
        clients.wait_for("^all connected", 60 + count * 0.05)
        used = cpu_s(pid) - cpu
        time.sleep(SETTLE_S)
        return {
            "cpu_ms": used / count * 1e3,
            "per_cpu_s": count / used,
            "private_kb": (private_bytes(pid) - memory) / count / 1e3,
        }
    finally:
        clients.kill()


def measure(settings: Settings, number: int) -> Iterator[Sample]:
    with Lab() as lab:
        for name in in_turn(settings, number):
            with servers.running(name, lab, keys="rsa2048") as server:
                yield Sample(ROW, name, visit(lab, server, settings.clients))


def storm(lab: Lab, server: Process, count: int) -> dict[str, float]:
    warm_up(lab, count)
    cpu = cpu_s(server.pid)
    # who is in stays until the last may be, as people do
    clients = crowd(lab, count, f"--timeout={STORM_TIMEOUT_S}", f"--hold={STORM_TIMEOUT_S / 2}", "--json")
    clients.wait(3 * STORM_TIMEOUT_S)
    [line] = [line for line in clients.log().splitlines() if line.startswith("{")]
    report = json.loads(line)
    if (spread_ms := report["connect_ms"]) is None:
        raise LabError(f"nobody came in:\n{clients.tail()}")
    return {
        "median_s": spread_ms["median"] / 1e3,
        "last_s": spread_ms["max"] / 1e3,
        "missing": report["failed"],
        "cpu_ms": (cpu_s(server.pid) - cpu) / count * 1e3,
    }


def measure_storm(settings: Settings, number: int) -> Iterator[Sample]:
    with Lab() as lab:
        for name in in_turn(settings, number):
            with servers.running(name, lab, keys="rsa2048") as server:
                yield Sample(STORM_ROW, name, storm(lab, server, settings.clients))


EXPERIMENTS = (
    Experiment(
        "handshakes",
        "Handshakes and connected clients",
        (
            Metric("cpu_ms", "server CPU ms for its handshake"),
            Metric("per_cpu_s", "handshakes a CPU second", 0, more_is_better=True),
            Metric("private_kb", "server memory, kB", 1),
        ),
        measure,
        lambda settings: len(settings.servers) * (8 + 3 * SETTLE_S + settings.clients * SPREAD_S * 1.2),
        {(ROW, "cpu_ms"): Asked(3.5, 2), (ROW, "private_kb"): Asked(60)},
    ),
    Experiment(
        "storm",
        "All clients at once",
        (
            Metric("median_s", "half of them are in after s", 1),
            Metric("last_s", "the last that came in, s", 1),
            Metric("missing", "not in after a minute, or thrown out", 0),
            Metric("cpu_ms", "server CPU ms for each, and what it repeats", 1),
        ),
        measure_storm,
        lambda settings: len(settings.servers) * (10 + 1.3 * STORM_TIMEOUT_S),
    ),
)
