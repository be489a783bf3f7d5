"""Two hundred clients at once, each of which reaches its target."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.crowd import crowd_command
from helpers.lab import wait_until

CLIENTS = 200
PATIENT = {"ping_s": 10, "ping_restart_s": 60}
"""One process plays all clients, and can be busy for longer than the few seconds of other tests: whoever is taken for
gone meanwhile makes room for another."""


def crowd(site, count: int, *options: str, hold_s: int = 3) -> tuple[int, dict[str, Any]]:
    """Exit status and report of ``count`` light clients that ping the target and stay."""
    options = ("--count", str(count), "--ping", "10.20.0.10", "--pings", "2", "--hold", str(hold_s), *options)
    command, env = crowd_command(site.lab, *options)
    done = site.lab.client.run(*command, env=env, timeout_s=100, check=False)
    assert done.stdout, f"status {done.returncode}: {done.stderr[-2000:]}"
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_two_hundred_clients_connect_at_once_and_each_reaches_its_target(site, transport):
    gateway = site.start(**PATIENT)
    status, report = crowd(site, CLIENTS, *(["--tcp"] if transport == "tcp" else []))
    assert status == 0, [result["error"] for result in report["results"] if result["error"]][:5]
    assert report["failed"] == 0
    assert len({result["address"] for result in report["results"]}) == CLIENTS
    wait_until(lambda: gateway.metrics()['cvpnd_lease_pool_used{endpoint="staff"}'] == 0, 5, "all said goodbye")
    metrics = gateway.metrics()
    assert metrics['cvpnd_handshakes_total{endpoint="staff",result="completed"}'] == CLIENTS
    assert metrics['cvpnd_egress_packets_total{endpoint="staff"}'] >= 2 * CLIENTS


def test_full_pool_refuses_by_name_and_whoever_has_an_address_keeps_it(site):
    limits = "limits = { handshakes = 2000, handshakes_per_source = 2000, sessions_per_identity = 2000 }"
    gateway = site.start(limits, **PATIENT)
    series = gateway.metrics().keys()
    pool = int(gateway.metrics()['cvpnd_lease_pool_size{endpoint="staff"}'])
    status, report = crowd(site, pool + 4, "--tcp", "--together", hold_s=0)
    assert status == 1
    errors = [result["error"] for result in report["results"] if result["error"]]
    assert len(errors) == 4
    assert all("No free address" in error for error in errors)
    assert len({result["address"] for result in report["results"] if not result["error"]}) == pool
    reasons = [entry["connection-attempt-failure-reason"] for entry in gateway.connection_log()]
    assert reasons.count("address-pool-full") == 4
    new = gateway.metrics().keys() - series
    assert 0 < len(new) < 100, "words that are used for the first time, and nothing of a thousand clients"
