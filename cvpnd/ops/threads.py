"""CPU time of the daemon's threads, from /proc: how busy each worker is, the doorman, and the event loop."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

_WORKER = re.compile(r"cvpnd-w(\d+)")
_NANOSECONDS = 1e9

_most_seen: dict[str, float] = {}
"""A counter never runs backwards, not even by the moment that lies between two readings. Under ``_seeing``."""
_seeing = threading.Lock()


class ThreadCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "cvpnd_thread_cpu_seconds",
            'CPU time by thread: "worker-0" and so on carry packets, "door" meets strangers, "main" is the event loop, '
            '"other" the rest; a rate near 1 is a full core.',
            labels=["thread"],
        )
        for thread, seconds in sorted(cpu_seconds().items()):
            family.add_metric([thread], seconds)
        yield family


def cpu_seconds() -> dict[str, float]:
    """By thread, since the start. ``other`` is what the process has used besides, and so has those that have ended."""
    found: dict[str, float] = {"main": 0.0}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            name = _name(int(task.name), (task / "comm").read_text().strip())
            if name is not None:
                found[name] = int((task / "schedstat").read_text().split()[0]) / _NANOSECONDS
    found["other"] = time.process_time() - sum(found.values())
    with _seeing:
        for name, seconds in found.items():
            found[name] = _most_seen[name] = max(seconds, _most_seen.get(name, 0.0))
    return found


def _name(thread_id: int, comm: str) -> str | None:
    """The names that the C side gives its threads, which live as long as the process. None: any other."""
    if thread_id == os.getpid():
        return "main"
    if (worker := _WORKER.fullmatch(comm)) is not None:
        return f"worker-{worker[1]}"
    return "door" if comm == "cvpnd-door" else None
