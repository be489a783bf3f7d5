"""A stock client that is sent away before its acknowledgement has arrived hears so with it, not after its own 60 s."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from helpers import certs
from helpers.lab import OpenVpnClient, RelayProcess, wait_until
from helpers.relay import Weather

LET_IN = 'cvpnd_handshake_stages_total{endpoint="staff",result="completed",stage="login"}'
THERE_AND_BACK = Weather(delay_ms=750)
"""Half of it for the acknowledgement: long enough to stop it on its way, and short of the grace of 3 s."""


@contextmanager
def before_its_acknowledgement(site) -> Iterator[OpenVpnClient]:
    """What is done here is done when the client is let in, and arrives before its answer to that does, however long it
    takes: nothing gets through meanwhile."""
    relay: RelayProcess = site.lab.relay(site.lab.gateway_address, 1194, THERE_AND_BACK)
    client = site.connect(certs.client("alice"), wait=False, host="127.0.0.1", port=relay.port)
    wait_until(lambda: site.gateway.metrics().get(LET_IN, 0) == 1, 40, "login's yes")
    relay.process.signal(signal.SIGSTOP)
    try:
        yield client
    finally:
        relay.process.signal(signal.SIGCONT)


def test_a_client_ended_before_its_acknowledgement_hears_so_at_once(site):
    gateway = site.start(ping_s=10, ping_restart_s=120)
    with before_its_acknowledgement(site) as client:
        gateway.ctl("connection", "terminate", "--username", "alice")
    client.wait_for("Halt command was pushed by server", 15)
    assert client.connected_count == 0
    (entry,) = gateway.connection_log()
    assert entry["connection-attempt-status"] == "failed"
    assert entry["connection-attempt-failure-reason"] == "terminated"


@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_a_client_whose_endpoint_goes_before_its_acknowledgement_hears_so_with_it(site, change):
    gateway = site.start(ping_s=10, ping_restart_s=120, daemon="shutdown_grace_s = 3")
    text = gateway.config_path.read_text()
    if change == "replaced":
        gateway.write_config(text.replace("10.100.0.0/22", "10.104.0.0/22"))
    else:
        gateway.write_config(text.replace('name = "staff"', 'name = "others"'))
    with before_its_acknowledgement(site) as client:
        gateway.reload()
        listening = "ss", "-ltnH", "sport", "=", ":1194"
        wait_until(lambda: not site.lab.gateway.run(*listening).stdout, what="an endpoint that is being left")
    client.wait_for("Connection reset command was pushed by server", 10)
    assert client.connected_count == 0
    client.wait_connected(40)
    (attempt, *_) = gateway.connection_log()
    assert attempt["connection-attempt-failure-reason"] == "shutting-down"
