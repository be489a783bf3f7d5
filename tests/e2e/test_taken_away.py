"""What a client may not reach any more does not reach it either: a stream that was asked for while it was allowed ends
with the command that takes the permission away, though its sender goes on for ever."""

from __future__ import annotations

import pytest
from helpers.lab import OTHER_LEG
from helpers.stream import Stream

ASSOCIATED = 'associate = ["subnet-a", "subnet-b"]'
OTHER_V4 = '{ network = "10.30.0.0/16", all_groups = true }'
OTHER_V6 = '{ network = "fd00:30::/48", all_groups = true }'
HOSTS = {"IPv4": OTHER_LEG.host, "IPv6": OTHER_LEG.host_v6}
NETWORKS = {"IPv4": "10.30.0.0/16", "IPv6": "fd00:30::/48"}


def routed(site, toml: str) -> str:
    other = site.lab.other
    other.run("ip", "route", "add", "10.100.0.0/22", "via", OTHER_LEG.gateway)
    other.run("ip", "-6", "route", "add", "fd00:100::/64", "via", OTHER_LEG.gateway_v6)
    return toml.replace(ASSOCIATED, 'associate = ["subnet-a", { subnet = "subnet-b", nat = false }]')


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
