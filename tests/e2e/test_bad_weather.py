"""A fifth of all packets lost, others doubled or overtaken: people log in and work all the same."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.lab import wait_until
from helpers.relay import Weather

STORM = Weather(loss=0.2, duplicate=0.1, reorder=0.2, reorder_ms=60, delay_ms=20, jitter_ms=20)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_login_and_a_transfer_and_new_keys_stand_a_storm(site: Any, seed: int) -> None:
    """Both ways are as bad; what TCP makes of that inside is slow, and whole."""
    gateway = site.start("renegotiate_s = 15\nhand_window_s = 60", ping_s=2, ping_restart_s=30)
    site.lab.start_servers()
    relay = site.lab.relay(site.lab.gateway_address, 1194, STORM, seed=seed)
    client = site.connect(host="127.0.0.1", port=relay.port, wait=False)
    client.wait_connected(60)
    site.lab.download(site.lab.client, "10.20.0.10", 200_000, 120)
    site.lab.upload(site.lab.client, "10.20.0.10", 200_000, 120)
    wait_until(lambda: gateway.metrics().get('cvpnd_renegotiations_total{endpoint="staff"}', 0) >= 1, 120, "a new key")
    assert client.connected_count == 1
    dropped = {name: count for name, count in gateway.metrics().items() if "dropped_packets" in name and count}
    print(f"seed {seed}: {dropped}")
    client.stop()
