"""Floods of forged packets (``bench/flood.c``), and what a server makes of one: does it keep its tunnels, does it let
anybody in, and does it stay as small as it was?"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helpers import certs
from helpers.certs import TestCertificate
from helpers.compiled import program
from helpers.lab import Lab, OpenVpnClient
from helpers.netns import Namespace, PingStatistics, Process
from helpers.process_cost import cpu_s, resident_bytes

SOURCE = Path(__file__).resolve().parents[2] / "bench" / "flood.c"
STORM = SOURCE.with_name("storm.py")
PING_INTERVAL_S = 0.02
FORGED_SOURCE = "100.64.0.1"


def start(
    lab: Lab, kind: str, per_s: int, seconds: float, source: str = FORGED_SOURCE, port: int | None = None
) -> Process:
    """The first client's machine sends what ``kind`` says (``bench/flood.c``), as if it were ``source``. Answers to
    ``FORGED_SOURCE`` find their way back to it, where nobody waits for them."""
    lab.gateway.ip_batch(f"route replace {FORGED_SOURCE} via {address_of(lab.client)}")
    options = (source, lab.gateway_address, "1194", kind, str(per_s), str(seconds))
    options += () if port is None else (str(port),)
    return lab.client.start(program(SOURCE, lab.directory), *options, label="flood")


def start_storm(
    lab: Lab, kind: str, seconds: float, certificate: TestCertificate | None = None, prefix: str = ""
) -> Process:
    """The first client's machine does what ``kind`` says (``bench/storm.py``), perhaps from all of ``prefix``."""
    if prefix:
        lab.gateway.ip_batch(f"route replace {prefix}.0/24 via {address_of(lab.client)}")
        lab.client.ip_batch(f"route replace local {prefix}.0/24 dev lo")
    directory = lab.directory / "storm"
    directory.mkdir(exist_ok=True)
    (certificate or certs.client("storm")).write(directory, "storm")
    (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
    return lab.client.start(
        "prlimit", "--nofile=8192", sys.executable, STORM, kind, lab.gateway_address, "1194", str(seconds),
        directory, prefix, label="storm", env={"PYTHONPATH": str(STORM.parent)},
    )  # fmt: skip


def address_of(machine: Namespace) -> str:
    return machine.run("hostname", "-I").stdout.split()[0]


def packets_sent(flood: Process) -> tuple[int, float]:
    """Packets, seconds; waits for the end."""
    found = flood.wait_for(r"^(\d+) packets in ([\d.]+) s", 60)
    return int(found[1]), float(found[2])


@dataclass(frozen=True)
class Siege:
    packets_per_s: float
    ping: PingStatistics
    """Of a client that was connected before."""
    connected_after_s: float | None
    """A genuine client that began a second into the flood; None: not before its end."""
    cpu_share: float
    """Of one core, the server process over the whole flood."""
    grown_bytes: int


def besiege(
    lab: Lab,
    server: Process,
    *,
    kind: str,
    per_s: int,
    seconds: float,
    at_work: OpenVpnClient,
    genuine: Callable[[], OpenVpnClient],
    source: str = FORGED_SOURCE,
    port: int | None = None,
) -> Siege:
    """``at_work`` pings through its tunnel while the flood goes on; ``genuine`` starts another client a second
    later."""
    memory, cpu = resident_bytes(server.pid), cpu_s(server.pid)
    ping = at_work.namespace.start_ping("10.20.0.10", PING_INTERVAL_S)
    flood = start(lab, kind, per_s, seconds, source, port)
    begun = time.monotonic()
    time.sleep(1)
    client, started, connected_after_s = genuine(), time.monotonic(), None
    while flood.running and connected_after_s is None:
        if client.connected_count:
            connected_after_s = time.monotonic() - started
        time.sleep(0.02)
    sent, lasted = packets_sent(flood)
    elapsed = time.monotonic() - begun
    used = cpu_s(server.pid) - cpu
    return Siege(
        packets_per_s=sent / lasted,
        ping=ping.finish(),
        connected_after_s=connected_after_s,
        cpu_share=used / elapsed,
        grown_bytes=resident_bytes(server.pid) - memory,
    )
