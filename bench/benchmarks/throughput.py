"""How much passes, and what it costs the server: one and several TCP streams, up (client to target) and down."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from helpers.lab import CLIENT_LEGS, TARGET_LEG, Lab
from helpers.process_cost import cpu_s

from benchmarks import servers
from benchmarks.clients import BATCHING, STOCK, connected
from benchmarks.experiment import DIRECTIONS, Asked, Experiment, Metric, Sample, Settings, Transport, in_turn

START_S, TRANSFER_OVERHEAD_S = 3.0, 0.6


def row(transport: str, streams: int, direction: str) -> str:
    return f"{transport.upper()}, {streams} {'stream' if streams == 1 else 'streams'}, {direction}"


def transfer(lab: Lab, pid: int, streams: int, direction: str, seconds: int) -> dict[str, float]:
    options = [f"-P{streams}", *(["-R"] if direction == "down" else [])]
    before = cpu_s(pid)
    report = lab.iperf3(lab.client, TARGET_LEG.host, *options, seconds=seconds)
    used = cpu_s(pid) - before
    received = report["end"]["sum_received"]
    return {"mbit_per_s": received["bits_per_second"] / 1e6, "cpu_s_per_gb": used / (received["bytes"] / 1e9)}


def visit(lab: Lab, kind: str, name: str, transport: Transport, settings: Settings) -> Iterator[Sample]:
    """One server with one client."""
    with servers.running(name, lab, transport) as server, connected(kind, lab, transport):
        for streams in settings.streams:
            for direction in DIRECTIONS:
                values = transfer(lab, server.pid, streams, direction, settings.seconds)
                yield Sample(row(transport, streams, direction), name, values)


def measure(kind: str, settings: Settings, number: int) -> Iterator[Sample]:
    with Lab() as lab:
        for transport in settings.transports:
            for name in in_turn(settings, number):
                yield from visit(lab, kind, name, transport, settings)


def measure_split(settings: Settings, number: int) -> Iterator[Sample]:
    """As over real network cards that cannot segment UDP: every datagram crosses the wire by itself."""
    with Lab() as lab:
        for place, device in ((lab.gateway, CLIENT_LEGS[0].interface), (lab.client, "eth0")):
            place.run("ethtool", "-K", device, "tx-udp-segmentation", "off")
        for name in in_turn(settings, number):
            yield from visit(lab, BATCHING, name, "udp", settings)


def _estimate_s(settings: Settings, transports: int) -> float:
    transfers = len(settings.streams) * len(DIRECTIONS)
    return len(settings.servers) * transports * (START_S + transfers * (settings.seconds + TRANSFER_OVERHEAD_S))


METRICS = (
    Metric("mbit_per_s", "Mbit/s", 0, more_is_better=True),
    Metric("cpu_s_per_gb", "server CPU s/GB"),
)
TCP_ASKED = {(row("tcp", streams, way), "cpu_s_per_gb"): Asked(ratio=1 / 3) for streams in (1, 4) for way in DIRECTIONS}

EXPERIMENTS = (
    Experiment(
        "stock",
        "Throughput and its cost, stock OpenVPN client",
        METRICS,
        partial(measure, STOCK),
        lambda settings: _estimate_s(settings, len(settings.transports)),
        {
            (row("udp", 1, "up"), "cpu_s_per_gb"): Asked(2.5, 1.8),
            (row("udp", 1, "down"), "cpu_s_per_gb"): Asked(3.0, 2.2),
            **TCP_ASKED,
        },
    ),
    Experiment(
        "batching",
        "Throughput and its cost, batching client",
        METRICS,
        partial(measure, BATCHING),
        lambda settings: _estimate_s(settings, len(settings.transports)),
        {
            (row("udp", 1, way), metric): asked
            for way in DIRECTIONS
            for metric, asked in (("mbit_per_s", Asked(3000, 4500)), ("cpu_s_per_gb", Asked(1.6, 1.1)))
        }
        | TCP_ASKED,
    ),
    Experiment(
        "batching-split",
        "The same over UDP with tx-udp-segmentation off between client and gateway",
        METRICS,
        measure_split,
        lambda settings: _estimate_s(settings, 1),
    ),
)
