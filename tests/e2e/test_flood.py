"""A hundred thousand forged packets a second from changing ports, also in the name of the client that wants in and for
the peers that are there."""

from __future__ import annotations

import pytest
from helpers import certs, flood
from helpers.lab import wait_until

PER_S = 100_000
SECONDS = 7.0
LEAST_PER_S = 5_000
"""A flood is what is far beyond the 10 that OpenVPN answers a second. How many more the sender has the time for is a
matter of what else the machine does, and says nothing of the gateway."""


@pytest.mark.parametrize(("kind", "own_address"), [("reset", False), ("reset", True), ("echo", False), ("peer", False)])
def test_flood_costs_no_ping_and_no_memory_and_keeps_nobody_out(site, kind, own_address):
    gateway = site.start()
    at_work = site.connect(name="work", host="198.51.100.1", client=site.lab.clients[1])
    before = gateway.metrics()
    begin_anew, others = ("--hand-window", "5", "--connect-retry", "1", "1") if own_address else (), []
    siege = flood.besiege(
        site.lab,
        gateway.running,
        kind=kind,
        per_s=PER_S,
        seconds=SECONDS,
        at_work=at_work,
        genuine=lambda: (
            others.append(site.connect(certs.client("genuine"), *begin_anew, name="genuine", wait=False)) or others[0]
        ),
        source=flood.address_of(site.lab.client) if own_address else flood.FORGED_SOURCE,
    )
    print(siege)
    assert siege.packets_per_s > LEAST_PER_S
    assert siege.ping.lost <= max(1, siege.ping.sent // 100), siege
    if own_address:  # an answer to the flood that meets the client's port is taken for the server's: it begins anew
        others[0].wait_connected(timeout_s=25)
    else:
        assert siege.connected_after_s is not None and siege.connected_after_s < 5, siege
    assert siege.grown_bytes < 16 << 20, siege
    after = gateway.metrics()

    def counted(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    strangers = counted('cvpnd_door_packets_total{kind="stranger_packets"}')
    answered = counted('cvpnd_door_packets_total{kind="answered_resets"}')
    if kind == "peer":
        assert counted('cvpnd_dropped_packets_total{plane="data",reason="auth_failed"}') > LEAST_PER_S
        assert strangers < LEAST_PER_S
    else:
        assert strangers > LEAST_PER_S * SECONDS / 2
    if kind == "reset":
        limited = counted('cvpnd_dropped_packets_total{plane="control",reason="rate_limited"}')
        assert answered > 1000 and answered + limited > 0.9 * strangers, "else the genuine client was lucky"
    else:
        assert answered < 20
    assert counted('cvpnd_door_packets_total{kind="first_packets"}') < 50, "Python sees nothing of it"
    wait_until(lambda: gateway.metrics()['cvpnd_active_connections{endpoint="staff"}'] == 2, 5)
