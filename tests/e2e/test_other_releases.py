"""What some real clients can and others cannot: `make test-clients` runs this with OpenVPN 2.5, 2.6 and 2.7."""

from __future__ import annotations

import re

import pytest
from helpers.lab import wait_until
from helpers.other_releases import generation
from helpers.relay import Weather

before_26 = pytest.mark.skipif(generation() >= (2, 6), reason="needs OpenVPN 2.5: make test-clients")
since_27 = pytest.mark.skipif(generation() < (2, 7), reason="needs OpenVPN 2.7: make test-clients")


@since_27
@pytest.mark.parametrize("count", [100, 1000])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_changed_routes_and_resolvers_reach_a_connected_client(site, ping, transport, count):
    """PUSH_UPDATE: whole when it takes several messages, and nobody is disconnected."""
    gateway = site.start(
        'dns_servers = ["10.20.0.10"]\nroute = [{ destination = "10.76.0.0/16", target = "subnet-a" }]'
    )
    client = site.connect(transport=transport)
    wanted = [f"172.{16 + n // 250}.{n % 250}.0/24" for n in range(count)]
    extra = ", ".join(f'{{ destination = "{network}", target = "subnet-a" }}' for network in wanted)
    gateway.write_config(site.toml(f'dns_servers = ["10.20.0.11"]\nroute = [{extra}]'))
    gateway.reload()

    def routes() -> str:
        # the client opens its device anew for an update: for a moment there is none
        return site.lab.client.run("ip", "route", "show", "dev", client.interface, check=False).stdout

    wait_until(lambda: set(re.findall(r"172\.\d+\.\d+\.0/24", routes())) == set(wanted), 20, "the new routes")
    assert "10.76.0.0/16" not in routes()
    client.wait_for(r"PUSH_UPDATE.*dns server 0 address 10\.20\.0\.11")
    assert ping() == 1.0
    assert {e["connection-log-type"] for e in gateway.connection_log()} == {"connection-attempt"}, (
        "nobody was sent back"
    )


@since_27
def test_changed_routes_reach_a_client_whose_soft_reset_they_cross(site):
    """From its soft reset on it reads nothing on the old key: it kept its old routes for good."""
    gateway = site.start(ping_s=10, ping_restart_s=120)
    relay = site.lab.relay(site.lab.gateway_address, 1194, Weather(delay_ms=1000))
    client = site.connect(None, "--reneg-sec", "25", "25", host="127.0.0.1", port=relay.port, wait=False)
    client.wait_connected(30)
    gateway.write_config(
        site.toml('route = [{ destination = "10.77.0.0/16", target = "subnet-a" }]', ping_s=10, ping_restart_s=120)
    )
    client.wait_for("TLS: soft reset", 40)
    gateway.reload()
    wait_until(lambda: "1 clients get new routes" in gateway.log(), 1, "an update before the soft reset arrives")
    assert "by_peer=True" not in gateway.log()

    def routes() -> str:
        return site.lab.client.run("ip", "route", "show", "dev", client.interface, check=False).stdout

    wait_until(lambda: "10.77.0.0/16" in routes(), 20, "the new route")
    assert "by_peer=True" in gateway.log()
    assert {e["connection-log-type"] for e in gateway.connection_log()} == {"connection-attempt"}, "it stayed"


@since_27
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_epoch_keys_carry_traffic_and_are_renewed(site, ping, transport):
    gateway = site.start("renegotiate_s = 5")
    client = site.connect(None, "--reneg-sec", "0", transport=transport)
    client.wait_for("aead-epoch")
    site.lab.start_servers()
    site.lab.download(site.lab.client, "10.20.0.10", 50 << 20)
    site.lab.upload(site.lab.client, "10.20.0.10", 50 << 20)
    wait_until(lambda: gateway.metrics().get('cvpnd_renegotiations_total{endpoint="staff"}', 0) >= 2, 20)
    assert ping(count=10) == 1.0
    assert client.connected_count == 1
    assert not re.search("TLS Error|AEAD Decrypt error|Bad packet", client.log())


@before_26
@pytest.mark.parametrize("own", ["--tun-mtu 1300", "--link-mtu 1300"])
def test_client_that_takes_no_pushed_mtu_gets_nothing_longer_than_its_own_device_takes(site, own):
    """It drops what is longer without a word to anybody."""
    site.start()
    site.connect(None, *own.split())
    for size in (1100, 1272, 1300, 1388, 1392, 1472):
        done = site.lab.client.run("ping", "-n", "-c", "2", "-i", "0.1", "-w", "3", "-s", str(size), "10.20.0.10")
        assert " 0% packet loss" in done.stdout, size
