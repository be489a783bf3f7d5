"""Authorization rules on a live session: a change is felt within a second and disconnects nobody."""

from __future__ import annotations

import json
import re
import time

from helpers import certs
from helpers.lab import wait_until

DENIED_METRIC = 'cvpnd_dropped_packets_total{plane="data",reason="denied"}'


def test_denied_destination_answers_nothing_until_a_rule_allows_it(site, ping):
    gateway = site.start()
    client = site.connect()
    assert ping("10.20.0.10") == 1.0
    before = gateway.metrics()[DENIED_METRIC]
    assert ping("10.30.0.10") == 0.0
    assert gateway.metrics()[DENIED_METRIC] - before == 3 + 1, "one more than count"

    gateway.ctl("rule", "add", "staff", "10.30.0.0/16", "--all-groups", "--description", "for the test")
    assert ping("10.30.0.10", 1) == 1.0, "the rule is not in force when the command returns"
    gateway.ctl("rule", "remove", "staff", "10.30.0.0/16", "--all-groups")
    assert ping("10.30.0.10", 1) == 0.0
    assert ping("10.20.0.10", 1) == 1.0
    assert client.connected_count == 1


def test_rule_for_a_group_keeps_others_out(site, ping):
    gateway = site.start()
    site.connect()
    gateway.ctl("rule", "add", "staff", "10.20.0.10/32", "--group", "engineering")
    assert ping("10.20.0.10", 1) == 0.0, "the longer prefix decides, and it names a group the client is not in"
    explained = gateway.ctl("explain", "alice", "10.20.0.10", "--json", check=False)
    assert explained.returncode == 1
    assert json.loads(explained.stdout)["deciding_groups"] == ["engineering"]
    gateway.ctl("rule", "remove", "staff", "10.20.0.10/32", "--group", "engineering")
    assert ping("10.20.0.10", 1) == 1.0


def test_rule_added_at_run_time_survives_a_restart_and_one_of_the_file_cannot_be_removed(site, ping):
    gateway = site.start()
    gateway.ctl("rule", "add", "staff", "10.30.0.0/16", "--all-groups")
    gateway.stop()
    gateway.start()
    site.connect()
    assert ping("10.30.0.10", 1) == 1.0
    refused = gateway.ctl("rule", "remove", "staff", "10.20.0.0/16", "--all-groups", check=False)
    assert refused.returncode == 1
    assert str(gateway.config_path) in refused.stderr
    assert ping("10.20.0.10", 1) == 1.0


def test_rule_in_the_file_comes_into_force_at_reload(site, ping):
    gateway = site.start()
    client = site.connect()
    assert ping("10.30.0.10", 1) == 0.0
    rules = '[{ network = "10.20.0.0/16", all_groups = true }'
    gateway.write_config(site.toml().replace(rules, rules + ', { network = "10.30.0.0/16", all_groups = true }'))
    gateway.reload()
    wait_until(lambda: ping("10.30.0.10", 1) == 1.0, 3, "the new rule")

    gateway.write_config(site.toml().replace("udp://0.0.0.0:443", "udp://203.0.113.77:9999"))
    gateway.reload()
    gateway.running.wait_for("reload refused.*203.0.113.77:9999: this host has no such address")
    assert ping("10.30.0.10", 1) == 1.0
    assert client.connected_count == 1 and "configuration-changed" not in gateway.log(), "nobody is sent away for it"


def test_client_cannot_use_an_address_that_is_not_its_lease(site, ping):
    gateway = site.start()
    client = site.connect()
    namespace = site.lab.client
    namespace.run("ip", "address", "add", "10.100.3.77/32", "dev", client.interface)
    spoofed = namespace.run("ping", "-c", "2", "-i", "0.1", "-W", "1", "-I", "10.100.3.77", "10.20.0.10", check=False)
    assert re.search(r" 0 (packets )?received", spoofed.stdout)
    assert gateway.metrics()['cvpnd_dropped_packets_total{plane="data",reason="bad_source"}'] >= 2
    assert ping() == 1.0


def test_clients_reach_each_other_only_with_a_local_route_and_a_rule(site, ping):
    second = site.lab.clients[1]
    gateway = site.start()
    site.connect()
    other = site.connect(certs.client("bob"), name="bob", host="198.51.100.1", client=second)
    assert ping(other.address, 1) == 0.0
    gateway.ctl("rule", "add", "staff", "10.100.0.0/22", "--all-groups")
    assert ping(other.address, 1) == 0.0, "a rule without a route must not do"
    more = 'route = [{ destination = "10.100.0.0/22", target = "local" }]'
    gateway.write_config(site.toml(more))
    gateway.reload()
    wait_until(lambda: ping(other.address, 1) == 1.0, 3, "client to client")


def test_only_replies_come_back_to_clients(site, ping):
    site.start()
    client = site.connect()
    assert ping() == 1.0
    site.lab.target.run("ip", "route", "add", "10.100.0.0/22", "via", "10.20.0.1")
    assert ping(client.address, 2, client=site.lab.target) == 0.0


def test_targets_see_the_gateways_address_or_the_clients_own_in_routed_mode(site, ping):
    gateway = site.start()
    site.lab.start_servers()
    client = site.connect()
    assert site.lab.get(site.lab.client, "10.20.0.10", "/peer").split()[0] == "10.20.0.1"
    gateway.write_config(
        site.toml().replace(
            'associate = ["subnet-a", "subnet-b"]', 'associate = [{ subnet = "subnet-a", nat = false }, "subnet-b"]'
        )
    )
    gateway.reload()
    site.lab.target.run("ip", "route", "add", "10.100.0.0/22", "via", "10.20.0.1")
    deadline = time.monotonic() + 3
    while (seen := site.lab.get(site.lab.client, "10.20.0.10", "/peer").split()[0]) != client.address:
        assert time.monotonic() < deadline, seen


def test_routers_on_the_way_are_heard_though_no_rule_names_them(site, ping):
    """The gateway itself, and one behind it with a narrow link (10.30.0.10, before 10.30.9.0/24)."""
    router = site.lab.other
    router.ip_batch(
        "link add narrow type veth peer name far",
        "link set far up",
        "link set narrow mtu 1300 up",
        "address add 10.30.9.1/24 dev narrow",
        "route add 10.100.0.0/22 via 10.30.0.1",
    )
    router.sysctl("net/ipv4/ip_forward", 1)
    toml = site.toml().replace('interface = "lan2"', 'gateway = "10.30.0.10"\ninterface = "lan2"')
    gateway = site.lab.gateway_process(toml)
    gateway.ctl("rule", "add", "staff", "10.30.9.0/24", "--all-groups")
    site.connect()
    client = site.lab.client

    def heard(*options: str) -> str:
        return client.run("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", *options, "10.30.9.9", check=False).stdout

    def all_heard() -> bool:
        return (
            "From 10.100.0.1 icmp_seq=1 Time to live exceeded" in heard("-t", "1")
            and "From 10.30.0.10 icmp_seq=1 Time to live exceeded" in heard("-t", "2")
            and "From 10.30.0.10 icmp_seq=1 Frag needed and DF set (mtu = 1300)" in heard("-M", "do", "-s", "1350")
        )

    assert ping("10.30.9.1", 1) == 1.0 and ping("10.30.0.10", 1) == 0.0
    assert all_heard()
    client.run("ip", "route", "flush", "cache")
    gateway.write_config(toml.replace('"subnet-b"]', '{ subnet = "subnet-b", nat = false }]'))
    gateway.reload()
    gateway.running.wait_for("reloaded: ")
    assert all_heard(), "without translation"
    gateway.ctl("rule", "remove", "staff", "10.30.9.0/24", "--all-groups")
    assert "From" not in heard("-t", "2")
