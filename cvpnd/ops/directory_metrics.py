"""What Prometheus is told of directories and of the RADIUS servers that judge their second factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from cvpnd.ops.histogram import Histogram


@dataclass(frozen=True, slots=True)
class DirectoryMetrics:
    """What logins ask a directory."""

    name: str
    pending: int
    latency: Histogram
    """In seconds."""
    servers: Mapping[str, bool] = field(default_factory=dict)
    """URL -> whether it answered when it was asked last, as ``ServerHealth.up`` has it."""
    unchecked: int = 0
    """Accounts that cannot be looked at any more."""


def directory_families(directories: Sequence[DirectoryMetrics]) -> Iterator[Metric]:
    pending = GaugeMetricFamily(
        "cvpnd_directory_logins_pending", "Logins that wait for the directory now.", labels=["directory"]
    )
    latency = HistogramMetricFamily(
        "cvpnd_directory_seconds",
        "How long the directory took to answer, for a login or a look at an account.",
        labels=["directory"],
    )
    up = GaugeMetricFamily(
        "cvpnd_directory_server_up",
        "1 unless the server of a directory failed when it was asked last, within 15 minutes.",
        labels=["directory", "server"],
    )
    unchecked = GaugeMetricFamily(
        "cvpnd_directory_unchecked_accounts",
        "Accounts that bound themselves, whose connection is lost: their sessions end after unchecked_s.",
        labels=["directory"],
    )
    for directory in directories:
        unchecked.add_metric([directory.name], directory.unchecked)
    _fill(directories, pending, latency, up)
    yield pending
    yield latency
    yield up
    yield unchecked


def radius_families(directories: Sequence[DirectoryMetrics]) -> Iterator[Metric]:
    pending = GaugeMetricFamily(
        "cvpnd_radius_pending", "Questions that RADIUS servers have not answered yet.", labels=["directory"]
    )
    latency = HistogramMetricFamily(
        "cvpnd_radius_seconds",
        "How long a second factor took at RADIUS servers, answered or not.",
        labels=["directory"],
    )
    up = GaugeMetricFamily(
        "cvpnd_radius_server_up",
        "1 unless the RADIUS server failed when it was asked last, within 15 minutes.",
        labels=["directory", "server"],
    )
    _fill(directories, pending, latency, up)
    yield pending
    yield latency
    yield up


def _fill(
    directories: Sequence[DirectoryMetrics],
    pending: GaugeMetricFamily,
    latency: HistogramMetricFamily,
    up: GaugeMetricFamily,
) -> None:
    for directory in directories:
        for server, well in directory.servers.items():
            up.add_metric([directory.name, server], int(well))
        pending.add_metric([directory.name], directory.pending)
        latency.add_metric([directory.name], directory.latency.buckets(), directory.latency.sum)
