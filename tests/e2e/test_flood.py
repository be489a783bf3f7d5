"""A hundred thousand forged first packets a second from changing ports."""

from __future__ import annotations

import pytest
from helpers import certs, flood
from helpers.lab import wait_until

PER_S = 100_000
SECONDS = 7.0
LEAST_PER_S = 20_000
"""What a machine that does other things too must manage to send. OpenVPN answers 10 a second."""


@pytest.mark.parametrize("kind", ["reset", "echo"])
def test_flood_costs_no_ping_and_no_memory_and_keeps_nobody_out(site, kind):
    gateway = site.start()
    at_work = site.connect(name="work", host="198.51.100.1", client=site.lab.clients[1])
    before = gateway.metrics()
    siege = flood.besiege(
        site.lab,
        gateway.running,
        kind=kind,
        per_s=PER_S,
        seconds=SECONDS,
        at_work=at_work,
        genuine=lambda: site.connect(certs.client("genuine"), name="genuine", wait=False),
    )
    print(siege)
    assert siege.packets_per_s > LEAST_PER_S
    assert siege.ping.lost <= max(1, siege.ping.sent // 100), siege
    assert siege.connected_after_s is not None and siege.connected_after_s < 5, siege
    assert siege.grown_bytes < 16 << 20, siege
    after = gateway.metrics()

    def counted(name: str) -> float:
        return after[name] - before[name]

    strangers = counted('cvpnd_door_packets_total{kind="stranger_packets"}')
    answered = counted('cvpnd_door_packets_total{kind="answered_resets"}')
    assert strangers > LEAST_PER_S * SECONDS / 2
    if kind == "reset":
        assert answered > 0.9 * strangers, "else the genuine client was lucky"
    else:
        assert answered < 20
    assert counted('cvpnd_door_packets_total{kind="first_packets"}') < 50, "Python sees nothing of it"
    wait_until(lambda: gateway.metrics()['cvpnd_active_connections{endpoint="staff"}'] == 2, 5)
