"""A gateway with several addresses on one interface, whose routes and addresses change beside connected clients."""

from __future__ import annotations

import time

import pytest
from helpers.lab import wait_until

FIRST, SECOND, OTHER = "192.0.2.1", "192.0.2.9", "192.0.2.50"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_client_hears_from_the_address_it_called_whatever_the_routes_prefer(site, ping, transport):
    """Stock clients drop what comes from another one."""
    host = site.lab.gateway
    host.ip_batch(f"address add {SECOND}/24 dev wan1", f"address add {OTHER}/24 dev wan1")
    site.start()
    client = site.connect(host=SECOND, transport=transport)
    pinging = site.lab.client.start_ping("10.20.0.10", 0.05)
    for source in (OTHER, FIRST):
        prefers = f"dev wan1 src {source}"
        host.ip_batch(f"route replace 192.0.2.0/24 {prefers}", f"route replace default via 192.0.2.2 {prefers}")
        time.sleep(1)
    host.ip_batch(f"address delete {OTHER}/24 dev wan1", "route delete default")
    time.sleep(1)
    statistics = pinging.finish()
    assert statistics.sent > 40 and statistics.lost <= 1, statistics
    assert client.connected_count == 1
    assert "Incoming packet rejected" not in client.log()
    assert ping() == 1.0


def test_address_that_comes_back_finds_its_clients_connected(site, ping):
    host = site.lab.gateway
    host.ip_batch(f"address add {SECOND}/24 dev wan1")
    gateway = site.start(ping_restart_s=30)
    client = site.connect(host=SECOND)
    host.ip_batch(f"address delete {SECOND}/24 dev wan1")
    wait_until(lambda: ping(count=1) == 0.0, 5, "silence")
    assert site.lab.client.ping(FIRST, 1).received == 1
    host.ip_batch(f"address add {SECOND}/24 dev wan1")
    wait_until(lambda: ping(count=1) == 1.0, 5, "traffic again")
    assert client.connected_count == 1
    assert gateway.ctl_json("connection", "list")[0]["status"] == "active"
