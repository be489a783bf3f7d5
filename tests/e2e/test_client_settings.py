"""What a client is told, and what that does to its host: full tunnel, IPv6, names, sizes."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

import pytest
from helpers import certs
from helpers.lab import wait_until
from helpers.management import Management
from helpers.other_releases import generation


def test_full_tunnel_takes_everything_and_ipv6_does_not_leak(site, ping):
    toml = site.toml().replace("split_tunnel = true", "split_tunnel = false")
    toml = toml.replace('network = "10.20.0.0/16"', 'network = "0.0.0.0/0"')
    site._gateway = site.lab.gateway_process(toml)
    client_host = site.lab.client
    assert "1 received" in client_host.run("ping", "-6", "-c", "1", "-W", "1", "fd00:20::1").stdout
    client = site.connect()
    assert ping() == 1.0
    route = client_host.run("ip", "route", "get", "203.0.113.99").stdout
    assert f"dev {client.interface}" in route
    blocked = client_host.run("ping", "-6", "-c", "1", "-W", "1", "fd00:20::1", check=False)
    assert " 0 received" in blocked.stdout
    assert f"dev {client.interface}" in client_host.run("ip", "-6", "route", "get", "2001:db8:99::1").stdout


def test_split_tunnel_takes_the_endpoints_routes_and_nothing_else(site):
    site.start()
    client = site.connect()
    for destination, device in (
        ("10.20.0.10", client.interface),
        ("10.30.9.9", client.interface),
        ("203.0.113.99", "eth0"),
    ):
        assert f"dev {device}" in site.lab.client.run("ip", "route", "get", destination).stdout


def test_resolver_is_pushed_in_the_form_the_client_applies(site):
    site.start('dns_servers = ["10.20.0.10"]\ndns_domains = ["corp.example.com"]')
    client = site.connect()
    pushed = client.wait_for(r"PUSH: Received control message: '([^']*)'")[1]
    forms = ("dns server 0 address 10.20.0.10", "dhcp-option DNS 10.20.0.10")
    assert [form in pushed for form in forms] == ([True, False] if generation() >= (2, 7) else [False, True])
    old = site.connect(
        certs.client("bob"), "--pull-filter", "ignore", "x", "--push-peer-info", name="old", client=site.lab.clients[1],
        host="198.51.100.1",
    )  # fmt: skip
    assert old.connected_count == 1


def test_a_banner_is_told_whole_to_who_connects_from_then_on_and_to_nobody_else(site):
    """What a graphical client would show: the stock one hands it to its management interface."""
    longest = "\N{LOCK}" * 1393 + "\nü, 5 %"
    gateway = site.start('login_banner = "Welcome"')

    def connect(name, **where):
        person = Management(site.lab.directory / name)
        client = site.connect(certs.client(name), *person.options, "--management-hold", wait=False, name=name, **where)
        wait_until(lambda: ">HOLD:" in person.heard())
        person.say("echo on all")
        person.say("hold release")
        return client.wait_connected(), lambda: shown(person.heard())

    first, shown_to_first = connect("first")
    wait_until(lambda: shown_to_first() == "Welcome")
    gateway.write_config(gateway.config_path.read_text().replace('"Welcome"', json.dumps(longest, ensure_ascii=False)))
    gateway.ctl("reload")
    _, shown_to_second = connect("second", client=site.lab.clients[1], host="198.51.100.1")
    wait_until(lambda: shown_to_second() == longest)
    assert first.connected_count == 1 and shown_to_first() == "Welcome"


def shown(heard: str) -> str:
    """In the window, which ``msg-window`` opens."""
    lines = re.findall(r"^>ECHO:\d+,(msg(?:-n|-window)?)\b ?(.*)\r$", heard, re.M)
    if not lines or lines[-1][0] != "msg-window":
        return ""
    return unquote("".join(text + ("\n" if kind == "msg" else "") for kind, text in lines[:-1])).removesuffix("\n")


def test_nothing_on_the_path_is_fragmented_or_dropped_for_its_size(site):
    """Bulk TCP both ways and the largest datagrams that the tunnel takes, on a path of 1500 bytes."""
    site.start()
    site.lab.start_servers()
    client = site.connect()
    hosts = (site.lab.client, site.lab.gateway)

    def fragments() -> list[int]:
        text = [host.run("sh", "-c", "grep ^Ip: /proc/net/snmp").stdout.splitlines() for host in hosts]
        return [int(dict(zip(head.split(), values.split(), strict=True))["FragCreates"]) for head, values in text]

    before = fragments()
    site.lab.download(site.lab.client, "10.20.0.10", 4 << 20)
    site.lab.upload(site.lab.client, "10.20.0.10", 4 << 20)
    mtu = json.loads(site.lab.client.run("ip", "-json", "link", "show", client.interface).stdout)[0]["mtu"]
    assert mtu == (1416 if generation() >= (2, 7) else 1420 if generation() >= (2, 6) else 1500), (
        "an epoch costs 4 bytes"
    )
    largest = min(mtu, 1420) - 28
    done = site.lab.client.run("ping", "-M", "do", "-c", "2", "-i", "0.1", "-s", str(largest), "10.20.0.10")
    assert "2 received" in done.stdout
    assert fragments() == before
    if generation() < (2, 6):
        return  # its device keeps the size that its own configuration gives it
    too_large = site.lab.client.run(
        "ping", "-M", "do", "-c", "1", "-W", "1", "-s", str(largest + 1), "10.20.0.10", check=False
    )
    assert "mtu" in (too_large.stdout + too_large.stderr).lower()
    assert client.connected_count == 1


def test_target_is_told_when_its_packet_is_too_large_for_the_tunnel(site):
    """The way back too: path MTU discovery of a target works, so that no download hangs."""
    toml = site.toml().replace(
        'associate = ["subnet-a", "subnet-b"]', 'associate = [{ subnet = "subnet-a", nat = false }]'
    )
    site._gateway = site.lab.gateway_process(toml)
    client = site.connect()
    target = site.lab.target
    target.run("ip", "route", "add", "10.100.0.0/22", "via", "10.20.0.1")
    done = site.lab.client.run("ping", "-c", "2", "-s", "1450", "-i", "0.2", "10.20.0.10", check=False)
    assert "2 received" in done.stdout, "fragments inside the tunnel must pass"
    assert client.connected_count == 1


@pytest.mark.parametrize(("network", "blocked"), [("192.0.2", True), ("192.168.7", False)])
def test_client_is_told_to_leave_its_local_network_where_that_is_known_to_be_no_private_one(
    site, ping, network, blocked
):
    """block_local = "auto": the gateway knows the network of a client on one of its own links. (What 2.x does with it
    is another matter: it leaves a network alone in which its gateway is.)"""
    toml = site.toml().replace("split_tunnel = true", "split_tunnel = false")
    if not blocked:
        site.lab.gateway.ip_batch("address del 192.0.2.1/24 dev wan1", f"address add {network}.1/24 dev wan1")
        site.lab.client.ip_batch(
            "address del 192.0.2.2/24 dev eth0",
            f"address add {network}.2/24 dev eth0",
            f"route replace default via {network}.1 dev eth0",
        )
    site._gateway = site.lab.gateway_process(toml)
    client = site.connect(host=f"{network}.1")
    pushed = client.wait_for(r"PUSH: Received control message: '([^']*)'")[1]
    assert ("redirect-gateway def1 ipv6 block-local" in pushed) == blocked
    assert ping() == 1.0
