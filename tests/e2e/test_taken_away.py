"""What a client may not reach any more does not reach it either: a stream that was asked for while it was allowed ends
with the command that takes the permission away, though its sender goes on for ever."""

from __future__ import annotations

import pytest
from helpers.lab import OTHER_LEG, TARGET_LEG, wait_until
from helpers.stream import Stream

ASSOCIATED = 'associate = ["subnet-a", "subnet-b"]'
OTHER_V4 = '{ network = "10.30.0.0/16", all_groups = true }'
OTHER_V6 = '{ network = "fd00:30::/48", all_groups = true }'
FAR = '{ network = "10.99.0.0/24", all_groups = true }'
DIRECTORY = '{ type = "directory-service-authentication", directory = "local" }, '
ROUTED = 'associate = ["subnet-a", { subnet = "subnet-b", nat = false }]'
TARGETS = {"IPv4": TARGET_LEG.host, "IPv6": TARGET_LEG.host_v6}
HOSTS = {"IPv4": OTHER_LEG.host, "IPv6": OTHER_LEG.host_v6}
NETWORKS = {"IPv4": "10.30.0.0/16", "IPv6": "fd00:30::/48"}


def routed(site, toml: str) -> str:
    other = site.lab.other
    other.run("ip", "route", "add", "10.100.0.0/22", "via", OTHER_LEG.gateway)
    other.run("ip", "-6", "route", "add", "fd00:100::/64", "via", OTHER_LEG.gateway_v6)
    return toml.replace(ASSOCIATED, ROUTED)


def reload(gateway, toml: str) -> None:
    gateway.write_config(toml)
    gateway.reload()
    gateway.running.wait_for("reloaded: ")


@pytest.mark.parametrize("nat", [True, False], ids=["translated", "routed"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_stream_ends_with_the_rule_and_comes_back_with_it(site, family, nat):
    host, network = HOSTS[family], NETWORKS[family]
    toml = site.toml(ipv6=True)
    gateway = site.lab.gateway_process(toml if nat else routed(site, toml))
    gateway.ctl("rule", "add", "staff", network, "--all-groups")
    client = site.connect()
    with Stream(client.namespace, site.lab.other, host) as stream:
        assert (stream.asked_from in client.addresses()) is not nat
        assert stream.comes()
        gateway.ctl("rule", "remove", "staff", network, "--all-groups")
        assert not stream.comes(), "with the rule that is gone"
        gateway.ctl("rule", "add", "staff", network, "--all-groups")
        assert stream.comes()
        longer = f"{host}/{32 if family == 'IPv4' else 128}"
        gateway.ctl("rule", "add", "staff", longer, "--group", "engineering")
        assert not stream.comes(), "with a rule for others that takes it away"
    assert client.connected_count == 1


@pytest.mark.parametrize("nat", [True, False], ids=["translated", "routed"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_stream_ends_with_the_association_that_carries_it(site, family, nat):
    toml = site.toml(ipv6=True).replace("authorize = [", f"authorize = [{OTHER_V4}, {OTHER_V6}, ")
    toml = toml if nat else routed(site, toml)
    gateway = site.lab.gateway_process(toml)
    client = site.connect()
    with (
        Stream(client.namespace, site.lab.other, HOSTS[family]) as stream,
        Stream(client.namespace, site.lab.target, TARGETS[family]) as staying,
    ):
        assert stream.comes() and staying.comes()
        alone = 'associate = ["subnet-a"]'
        reload(gateway, toml.replace(ASSOCIATED, alone).replace(ROUTED, alone))
        wait_until(staying.comes, 10, "the client, which has to fetch its routes anew")
        assert not stream.comes()
        stream.ask()
        assert not stream.comes()


def test_a_stream_ends_with_its_route(site):
    site.lab.other.ip_batch("address add 10.99.0.10/32 dev lo")
    toml = site.toml().replace('interface = "lan2"', 'gateway = "10.30.0.10"\ninterface = "lan2"')
    toml = toml.replace("authorize = [", f"authorize = [{FAR}, {OTHER_V4}, ")
    gateway = site.lab.gateway_process(toml + 'route = [{ destination = "10.99.0.0/24", target = "subnet-b" }]\n')
    client = site.connect()
    with (
        Stream(client.namespace, site.lab.other, "10.99.0.10") as stream,
        Stream(client.namespace, site.lab.other, OTHER_LEG.host) as staying,
    ):
        assert stream.comes() and staying.comes()
        reload(gateway, toml)
        wait_until(staying.comes, 10, "the client, which has to fetch its routes anew")
        assert not stream.comes()


def test_a_stream_ends_with_a_rule_that_the_file_has_no_more(site):
    toml = site.toml()
    gateway = site.lab.gateway_process(toml.replace("authorize = [", f"authorize = [{OTHER_V4}, "))
    client = site.connect()
    with Stream(client.namespace, site.lab.other, OTHER_LEG.host) as stream:
        assert stream.comes()
        reload(gateway, toml)
        assert not stream.comes()
    assert client.connected_count == 1


def test_a_stream_ends_when_its_user_leaves_the_group(site):
    toml = site.toml().replace("authentication = [", "authentication = [" + DIRECTORY)
    gateway = site.lab.gateway_process(toml)
    gateway.ctl("user", "add", "alice", "--group", "video", "--group", "staff", input="right\n")
    gateway.ctl("rule", "add", "staff", "10.30.0.0/16", "--group", "video")
    login = site.lab.directory / "login"
    login.write_text("alice\nright\n")
    client = site.connect(None, "--auth-user-pass", str(login))
    with Stream(client.namespace, site.lab.other, OTHER_LEG.host) as stream:
        assert stream.comes()
        gateway.ctl("user", "groups", "alice", "--group", "staff")
        assert not stream.comes()
        gateway.ctl("user", "groups", "alice", "--group", "video")
        assert stream.comes()
    assert client.connected_count == 1
