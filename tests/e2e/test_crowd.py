"""Two hundred clients at once, each of which reaches its target."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from helpers import certs
from helpers.lab import wait_until

CLIENTS = 200
BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_two_hundred_clients_connect_at_once_and_each_reaches_its_target(site, transport):
    gateway = site.start()
    profile = site.profile(certs.client("crowd", "rsa2048"))
    command = [sys.executable, "-m", "light_client", "--remote", f"{site.lab.gateway_address}:1194", "--json"]
    command += ["--tcp"] if transport == "tcp" else []
    for option, name in (("--ca", "ca.crt"), ("--cert", "client.crt"), ("--key", "client.key")):
        command += [option, str(profile.parent / name)]
    command += ["--count", str(CLIENTS), "--ping", "10.20.0.10", "--pings", "2", "--hold", "3"]
    path = os.pathsep.join([str(BENCH), os.environ.get("PYTHONPATH", "")])
    done = site.lab.client.run(*command, env={"PYTHONPATH": path}, timeout_s=90, check=False)
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout[-2000:]
    assert report["failed"] == 0
    addresses = {result["address"] for result in report["results"]}
    assert len(addresses) == CLIENTS
    wait_until(lambda: gateway.metrics()['cvpnd_lease_pool_used{endpoint="staff"}'] == 0, 5, "all said goodbye")
    metrics = gateway.metrics()
    assert metrics['cvpnd_handshakes_total{endpoint="staff",result="completed"}'] == CLIENTS
    assert metrics['cvpnd_egress_packets_total{endpoint="staff"}'] >= 2 * CLIENTS
