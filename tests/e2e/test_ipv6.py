"""IPv6 in every place: outside (listeners, sources, roaming) and inside (leases, routes, rules, NAT66 or routed)."""

from __future__ import annotations

import pytest
from helpers.lab import wait_until

LISTEN_V6 = ("udp://[::]:1194", "tcp://[::]:443", "udp://0.0.0.0:1194", "tcp://0.0.0.0:443")
PORT = {"udp": 1194, "tcp": 443}
TARGET_V6, OTHER_V6 = "fd00:20::a", "fd00:30::a"
MEGABYTE = 1 << 20


def where(site, transport: str, outside: int, host: str = "") -> dict[str, object]:
    host = host or (site.lab.gateway_address if outside == 4 else site.lab.gateway_address_v6)
    return {"transport": f"{transport}{outside}", "port": PORT[transport], "host": host}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_rules_hold_for_both_families_inside_ipv6(site, ping, transport):
    """That each family passes inside each is in test_matrix.py."""
    gateway = site.start(listen=LISTEN_V6, ipv6=True)
    site.lab.start_servers()
    client = site.connect(**where(site, transport, 6))
    for allowed, denied, network in (
        ("10.20.0.10", "10.30.0.10", "10.30.0.0/16"),
        (TARGET_V6, OTHER_V6, "fd00:30::/48"),
    ):
        assert ping(allowed) == 1.0
        assert ping(denied, 1) == 0.0
        gateway.ctl("rule", "add", "staff", network, "--all-groups")
        assert ping(denied, 1) == 1.0
        site.lab.download(site.lab.client, allowed, 10 * MEGABYTE)
        site.lab.upload(site.lab.client, allowed, 10 * MEGABYTE)
    address_v4, address_v6 = client.addresses()
    assert address_v4.startswith("10.100.")
    assert address_v6.startswith("fd00:100::")
    (connection,) = gateway.ctl_json("connection", "list")
    assert ":" in connection["device_ip"]
    assert connection["transport"] == transport


def test_targets_see_the_gateways_ipv6_address_or_the_clients_own_in_routed_mode(site, ping):
    gateway = site.start(listen=LISTEN_V6, ipv6=True)
    site.lab.start_servers()
    client = site.connect()
    assert site.lab.get(site.lab.client, TARGET_V6, "/peer").split()[0] == "fd00:20::1"
    gateway.write_config(
        site.toml(listen=LISTEN_V6, ipv6=True).replace(
            'associate = ["subnet-a", "subnet-b"]', 'associate = [{ subnet = "subnet-a", nat = false }, "subnet-b"]'
        )
    )
    gateway.reload()
    site.lab.target.run("ip", "route", "add", "fd00:100::/64", "via", "fd00:20::1")
    wait_until(lambda: site.lab.get(site.lab.client, TARGET_V6, "/peer").split()[0] == client.addresses()[1], 3)


def test_full_tunnel_takes_both_families_over_an_ipv6_path(site, ping):
    toml = site.toml(listen=LISTEN_V6, ipv6=True).replace("split_tunnel = true", "split_tunnel = false")
    site._gateway = site.lab.gateway_process(toml)
    client = site.connect(**where(site, "udp", 6))
    assert ping() == ping(TARGET_V6) == 1.0
    for destination in ("203.0.113.99", "2001:db8:99::1"):
        assert f"dev {client.interface}" in site.lab.client.run("ip", "route", "get", destination).stdout


def test_address_of_another_client_is_no_source_over_ipv6_either(site, ping):
    gateway = site.start(listen=LISTEN_V6, ipv6=True)
    client = site.connect()
    more = ("fd00:100::abc/128", "dev", client.interface, "preferred_lft", "0")  # nobody takes it unasked
    site.lab.client.run("ip", "address", "add", *more)
    spoofed = site.lab.client.run(
        "ping", "-c", "2", "-i", "0.1", "-W", "1", "-I", "fd00:100::abc", TARGET_V6, check=False
    )
    assert " 0 received" in spoofed.stdout
    assert gateway.metrics()['cvpnd_dropped_packets_total{plane="data",reason="bad_source"}'] >= 2
    assert ping(TARGET_V6) == 1.0


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_client_on_the_same_link_may_use_link_local_addresses(site, ping, transport):
    """The scope id must survive look-ups and replies: a link-local address means nothing without its interface."""
    gateway = site.start(listen=LISTEN_V6, ipv6=True)
    host = site.lab.link_local_of(site.lab.gateway, "wan1")
    site.connect(**where(site, transport, 6, f"{host}%eth0"))
    assert ping() == ping(TARGET_V6) == 1.0
    (connection,) = gateway.ctl_json("connection", "list")
    assert connection["device_ip"] == site.lab.link_local_of(site.lab.client, "eth0")


@pytest.mark.parametrize("outside", ["fd00:1234::1", "2001:db8:1::77"])
def test_client_floats_to_another_ipv6_address(site, ping, outside):
    """A wholly new source address: its old one is taken away while traffic flows."""
    gateway = site.start(listen=LISTEN_V6, ipv6=True)
    site.lab.gateway.run("ip", "route", "add", f"{outside}/128", "dev", "wan1")
    client = site.connect(**where(site, "udp", 6))
    assert ping() == 1.0
    site.lab.client.ip_batch(
        "address del 2001:db8:1::2/64 dev eth0",
        f"address add {outside}/128 dev eth0 nodad",
        "route replace 2001:db8:1::/64 dev eth0",
        "route replace ::/0 via 2001:db8:1::1 dev eth0",
    )
    assert ping(count=10) >= 0.8
    wait_until(lambda: gateway.ctl_json("connection", "list")[0]["device_ip"] == outside, 5, "the move")
    assert ping(TARGET_V6) == 1.0
    assert client.connected_count == 1


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_ipv4_only_endpoint_reached_over_ipv6_lets_no_other_ipv6_leak(site, ping, transport):
    toml = site.toml(listen=LISTEN_V6).replace("split_tunnel = true", "split_tunnel = false")
    site._gateway = site.lab.gateway_process(toml)
    client = site.connect(**where(site, transport, 6))
    assert ping() == 1.0
    leak = site.lab.client.run("ping", "-6", "-c", "1", "-W", "1", "fd00:20::1", check=False)
    assert " 0 received" in leak.stdout
    assert f"dev {client.interface}" in site.lab.client.run("ip", "route", "get", "2001:db8:99::1").stdout
    assert ping(count=10) == 1.0
    assert client.connected_count == 1
