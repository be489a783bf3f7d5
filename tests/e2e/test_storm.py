"""Attackers whose address is real, who so come further than forged packets (``bench/storm.py``). Every run tries those
that found something; ``STORMS="silent slow hello@ …"`` names others, with ``@`` from all addresses of a network."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from helpers import certs, flood
from helpers.lab import wait_until
from helpers.process_cost import cpu_s, resident_bytes

SECONDS = 6.0
FREE_FILES = 40
KINDS = os.environ.get("STORMS", "few-files tiny").split()
OVER_UDP = {
    "hello", "certificate", "chain", "soft-reset", "used-up", "key-update", "push-request", "texts", "acks", "data",
    "noise", "absurd", "password", "few-files",
}  # fmt: skip
"""How the genuine client comes; where files are few, the oldest silent connection may be its own."""


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize("site", [4], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_storm_costs_no_tunnel_and_leaves_nothing(site, kind):
    gateway = site.start()
    pid = gateway.running.pid
    tunnels = [
        site.connect(
            certs.client(transport), name=transport, transport=transport,
            host=site.lab.gateway_address_of(index, 4), client=site.lab.clients[index],
        )
        for index, transport in ((1, "udp"), (2, "tcp"))
    ]  # fmt: skip
    files, memory, cpu = open_files(pid), resident_bytes(pid), cpu_s(pid)
    if kind == "few-files":
        most = files + FREE_FILES
        site.lab.gateway.run("prlimit", f"--pid={pid}", f"--nofile={most}:{most}")
    pings = [client.namespace.start_ping("10.20.0.10", flood.PING_INTERVAL_S) for client in tunnels]
    what, _, many = kind.partition("@")
    storm = flood.start_storm(
        site.lab,
        "silent" if what == "few-files" else what,
        SECONDS,
        certs.client_of_another_authority() if what in ("certificate", "chain") else certs.client("storm"),
        "100.64.7" if many else "",
    )
    time.sleep(1.5)
    started, connected_after_s = time.monotonic(), None
    genuine = site.connect(
        certs.client("genuine"), name="genuine", wait=False, transport="udp" if what in OVER_UDP else "tcp",
        host=site.lab.gateway_address_of(3, 4), client=site.lab.clients[3],
    )  # fmt: skip
    while storm.running:
        if connected_after_s is None and genuine.connected_count:
            connected_after_s = time.monotonic() - started
        assert gateway.admin_answers()
        time.sleep(0.1)
    used_s = cpu_s(pid) - cpu
    done, lasted = flood.packets_sent(storm)
    lost = [ping.finish() for ping in pings]
    grown = resident_bytes(pid) - memory
    print(f"{kind}: {done / lasted:.0f} a second, {lost}, connected after {connected_after_s} s, "
          f"{used_s:.1f} s of CPU, grown by {grown >> 10} KiB")  # fmt: skip
    assert done > 0
    assert connected_after_s is not None and connected_after_s < 5
    assert all(ping.lost <= max(1, ping.sent // 100) for ping in lost)
    assert grown < 48 << 20
    wait_until(lambda: open_files(pid) <= files + 1, 15, "files are left over")
