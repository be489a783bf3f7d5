"""A stock client that is sent away before its acknowledgement has arrived hears so with it, not after its own 60 s."""

from __future__ import annotations

import pytest
from helpers import certs
from helpers.lab import wait_until
from helpers.relay import Weather

LET_IN = 'cvpnd_handshake_stages_total{endpoint="staff",result="completed",stage="login"}'


def test_a_client_ended_before_its_acknowledgement_hears_so_at_once(site):
    """A second each way, so that a command fits in between."""
    gateway = site.start(ping_s=10, ping_restart_s=120)
    relay = site.lab.relay(site.lab.gateway_address, 1194, Weather(delay_ms=1000))
    client = site.connect(certs.client("alice"), wait=False, host="127.0.0.1", port=relay.port)
    wait_until(lambda: gateway.metrics().get(LET_IN, 0) == 1, 40, "login's yes")
    gateway.ctl("connection", "terminate", "--username", "alice")
    client.wait_for("Halt command was pushed by server", 15)
    assert client.connected_count == 0
    (entry,) = gateway.connection_log()
    assert entry["connection-attempt-status"] == "failed"
    assert entry["connection-attempt-failure-reason"] == "terminated"


@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_a_client_whose_endpoint_goes_before_its_acknowledgement_hears_so_with_it(site, change):
    gateway = site.start(ping_s=10, ping_restart_s=120, daemon="shutdown_grace_s = 3")
    relay = site.lab.relay(site.lab.gateway_address, 1194, Weather(delay_ms=1000))
    client = site.connect(certs.client("alice"), wait=False, host="127.0.0.1", port=relay.port)
    wait_until(lambda: gateway.metrics().get(LET_IN, 0) == 1, 40, "login's yes")
    text = gateway.config_path.read_text()
    if change == "replaced":
        gateway.write_config(text.replace("10.100.0.0/22", "10.104.0.0/22"))
    else:
        gateway.write_config(text.replace('name = "staff"', 'name = "others"'))
    gateway.ctl("reload")
    client.wait_for("Connection reset command was pushed by server", 5)
    assert client.connected_count == 0
    client.wait_connected()
    (attempt, *_) = gateway.connection_log()
    assert attempt["connection-attempt-failure-reason"] == "shutting-down"
