"""Clients that reach the gateway through a proxy only."""

from __future__ import annotations

import sys

import pytest
from helpers import proxy
from helpers.lab import HELPERS, wait_until


@pytest.mark.parametrize(
    ("option", "port", "outside"), [("http-proxy", proxy.HTTP_PORT, 4), ("socks-proxy", proxy.SOCKS_PORT, 6)]
)
def test_client_behind_a_proxy_connects_transfers_and_comes_back(site, ping, option, port, outside):
    gateway = site.start(listen=("tcp://0.0.0.0:443", "tcp://[::]:443"))
    site.lab.client.start(sys.executable, HELPERS / "proxy.py", label="proxy").wait_for("ready")
    site.lab.start_servers()
    where = {"transport": "tcp", "port": 443, "host": site.lab.gateway_address_of(0, outside)}
    client = site.connect(None, f"--{option}", "127.0.0.1", str(port), **where)
    site.lab.download(site.lab.client, "10.20.0.10", 4 << 20)
    site.lab.upload(site.lab.client, "10.20.0.10", 4 << 20)
    gateway.kill()
    gateway.start()
    client.wait_connected(20, times=2)
    wait_until(lambda: ping() == 1.0, 10, "traffic")
