"""The main job: a stock client connects and reaches the target network, over every listener and TLS version."""

from __future__ import annotations

import pytest

MEGABYTE = 1 << 20


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
@pytest.mark.parametrize(("transport", "port"), [("udp", 1194), ("tcp", 443), ("udp", 443), ("tcp", 1194)])
def test_client_connects_pings_and_transfers(site, ping, transport, port, tls):
    gateway = site.start()
    site.lab.start_servers()
    client = site.connect(
        None,
        "--tls-version-min",
        tls,
        *(["--tls-version-max", tls] if tls == "1.2" else []),
        transport=transport,
        port=port,
    )
    assert client.address.startswith("10.100.")
    assert f"TLSv{tls}" in client.log()
    assert ping() == 1.0
    size = 100 * MEGABYTE if port == 1194 and tls == "1.3" else 5 * MEGABYTE
    site.lab.download(site.lab.client, "10.20.0.10", size)
    site.lab.upload(site.lab.client, "10.20.0.10", size)
    (connection,) = [c for c in gateway.ctl_json("connection", "list") if c["status"] == "active"]
    assert connection["common_name"] == "alice"
    assert connection["transport"] == transport
    assert connection["client_ip"] == client.address
    assert connection["ingress_bytes"] > size
    client.stop()
    gateway.stop()
