"""Small packets: how many pass, and what one costs the server. The client is the one that batches, as a stock one would
be the limit; the load is ``bench/packet_stream.c``, which loses little, so that neither server spends time in vain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from helpers.compiled import program
from helpers.lab import TARGET_LEG, Lab
from helpers.process_cost import cpu_s

from benchmarks import servers
from benchmarks.clients import BATCHING, connected
from benchmarks.experiment import DIRECTIONS, Asked, Experiment, Metric, Sample, Settings, in_turn

SOURCE = Path(__file__).resolve().parents[1] / "packet_stream.c"
SIZES = (64, 512)
"""Of the packet in the tunnel, with 28 bytes of IPv4 and UDP header."""
PORT = 9000


def row(size: int, direction: str) -> str:
    return f"{size} bytes, {direction}"


def stream(lab: Lab, pid: int, size: int, direction: str, seconds: float) -> dict[str, float]:
    where = (lab.client.name, lab.target.name, TARGET_LEG.host, str(PORT))
    before = cpu_s(pid)
    done = lab.client.run(
        program(SOURCE, lab.directory), *where, direction, str(size - 28), str(seconds), timeout_s=seconds + 30
    )
    used = cpu_s(pid) - before
    sent, received, lasted = (float(word) for word in done.stdout.split())
    return {
        "kpackets_per_s": received / lasted / 1e3,
        "us_per_packet": used / received * 1e6,
        "lost": 100 * (1 - received / sent),
    }


def measure(settings: Settings, number: int) -> Iterator[Sample]:
    with Lab() as lab:
        for name in in_turn(settings, number):
            with servers.running(name, lab) as server, connected(BATCHING, lab):
                for size in SIZES:
                    for direction in DIRECTIONS:
                        values = stream(lab, server.pid, size, direction, settings.seconds)
                        yield Sample(row(size, direction), name, values)


EXPERIMENTS = (
    Experiment(
        "packets",
        "Small packets over UDP, batching client",
        (
            Metric("kpackets_per_s", "thousand packets/s", 0, more_is_better=True),
            Metric("us_per_packet", "server CPU µs a packet"),
            Metric("lost", "lost, %"),
        ),
        measure,
        lambda settings: len(settings.servers) * (4 + 4 * (settings.seconds + 0.5)),
        {(row(64, direction), "us_per_packet"): Asked(2, 1) for direction in DIRECTIONS},
    ),
)
