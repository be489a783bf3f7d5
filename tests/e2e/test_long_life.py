"""What happens to a connection over time: renegotiation, bad paths, silence, a killed gateway, a broken file."""

from __future__ import annotations

import re
import time

import pytest
from helpers import certs
from helpers.lab import wait_until
from helpers.relay import Weather

END_REASON = "connection-end-reason"


@pytest.mark.parametrize(
    ("initiator", "transport"), [("server", "udp"), ("client", "tcp"), ("both", "udp"), ("both", "tcp")]
)
def test_renegotiation_under_load_loses_no_ping_and_no_connection(site, initiator, transport):
    gateway = site.start("renegotiate_s = 5" if initiator != "client" else "")
    client = site.connect(None, "--reneg-sec", "5" if initiator != "server" else "0", transport=transport)
    pinging = site.lab.client.start("ping", "-i", "0.05", "-c", "260", "-W", "3", "10.20.0.10", label="ping")
    report = site.lab.iperf3(site.lab.client, "10.20.0.10", "--bitrate", "50M", seconds=13)
    summary = pinging.wait_for(r"(\d+) packets transmitted, (\d+) received", 20)
    assert summary[1] == summary[2], {
        name: value for name, value in gateway.metrics().items() if "drop" in name and value
    }
    assert report["end"]["sum_received"]["bytes"] > 65e6
    assert gateway.metrics()['cvpnd_renegotiations_total{endpoint="staff"}'] >= 2
    limited = gateway.metrics().get('cvpnd_dropped_packets_total{plane="control",reason="rate_limited"}', 0)
    assert limited == 0 or initiator == "both", "two that begin at once are"
    assert client.connected_count == 1
    assert not re.search("TLS Error|AEAD Decrypt error|Bad packet", client.log())


def test_loss_and_reordering_only_slow_things_down(site, ping):
    gateway = site.start()
    site.lab.start_servers()
    relay = site.lab.relay(site.lab.gateway_address, 1194, Weather(loss=0.02, reorder=0.05))
    client = site.connect(host="127.0.0.1", port=relay.port)
    site.lab.download(site.lab.client, "10.20.0.10", 5 << 20, 90)
    site.lab.upload(site.lab.client, "10.20.0.10", 5 << 20, 90)
    assert client.connected_count == 1
    assert len([c for c in gateway.ctl_json("connection", "list") if c["status"] == "active"]) == 1


def test_client_that_vanishes_is_noticed_and_its_address_is_free_again(site):
    gateway = site.start(ping_s=1, ping_restart_s=2)
    client = site.connect()
    address = client.address
    client.kill()
    wait_until(lambda: any(e[END_REASON] == "client-timeout" for e in gateway.connection_log()), 8, "the time-out")
    assert gateway.metrics()['cvpnd_lease_pool_used{endpoint="staff"}'] == 0
    assert site.connect(name="again").address == address


def test_client_that_says_goodbye_is_gone_at_once(site):
    for transport in ("udp", "tcp"):
        gateway = site.start() if transport == "udp" else site.gateway
        client = site.connect(transport=transport)
        client.stop()
        wait_until(lambda: not [c for c in site.gateway.ctl_json("connection", "list") if c["status"] == "active"], 3)
    reasons = [e[END_REASON] for e in gateway.connection_log() if e["connection-log-type"] == "connection-reset"]
    assert reasons == ["client-exit", "tcp-closed"]


def test_terminated_client_goes_and_does_not_come_back_by_itself(site, ping):
    gateway = site.start()
    client = site.connect()
    (connection,) = gateway.ctl_json("connection", "list")
    site.connect(certs.client("bob"), name="bob", client=site.lab.clients[1])
    gateway.ctl("connection", "terminate", connection["connection_id"])
    client.wait_for("Terminated by the administrator", 3)
    assert ping(count=1) == 0.0
    seen = {c["common_name"]: (c["status"], c["end_reason"]) for c in gateway.ctl_json("connection", "list")}
    assert seen == {connection["common_name"]: ("terminated", "terminated"), "bob": ("active", "")}


def test_client_that_reconnects_from_the_same_port_replaces_its_old_session(site, ping):
    gateway = site.start()
    client = site.connect(None, "--lport", "40000", binding="")
    address = client.address
    client.process.signal(10)  # SIGUSR1: restart without a word
    client.wait_connected(times=2)
    assert client.address == address
    assert ping() == 1.0
    live = [c for c in gateway.ctl_json("connection", "list") if c["status"] == "active"]
    assert len(live) == 1


def test_client_behind_a_nat_that_changes_its_port_floats(site, ping):
    gateway = site.start()
    relay = site.lab.relay(site.lab.gateway_address, 1194, Weather())
    client = site.connect(host="127.0.0.1", port=relay.port)
    assert ping() == 1.0
    before = gateway.ctl_json("connection", "list")[0]["port"]
    relay.rebind()
    assert ping(count=5) >= 0.6
    assert gateway.ctl_json("connection", "list")[0]["port"] != before
    assert ping() == 1.0
    assert client.connected_count == 1


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_killed_gateway_comes_back_and_so_do_its_clients(site, ping, transport):
    gateway = site.start()
    client = site.connect(transport=transport)
    address = client.address
    gateway.kill()
    gateway.start()
    client.wait_connected(20, times=2)
    assert client.address == address
    assert ping() == 1.0
    tables = site.lab.gateway.run("nft", "list", "tables").stdout.split("\n")
    assert tables.count("table inet cvpnd") == 1
    gateway.stop()
    assert "cvpnd" not in site.lab.gateway.run("nft", "list", "ruleset").stdout


def test_clean_restart_sends_clients_back_at_once(site, ping):
    gateway = site.start(ping_s=10, ping_restart_s=120)
    client = site.connect()
    gateway.stop()
    gateway.start()
    client.wait_connected(10, times=2)
    assert ping() == 1.0


def test_stop_leaves_the_host_as_it_was(site):
    host = site.lab.gateway

    def state() -> list[str]:
        commands = ("nft list ruleset", "ip rule", "ip route show table all", "ip -6 route show table all", "ip link")
        shown = [re.sub(r"expires \d+sec", "", host.run(*command.split()).stdout) for command in commands]
        return [*shown, host.run("sh", "-c", "grep . /proc/sys/net/ipv4/conf/*/forwarding").stdout]

    before = state()
    gateway = site.start()
    site.connect()
    assert state() != before
    gateway.stop()
    assert state() == before


def test_broken_file_is_named_and_the_old_configuration_runs_on(site, ping):
    gateway = site.start()
    client = site.connect()
    gateway.write_config(site.toml().replace("10.100.0.0/22", "10.0.0.0/8"))
    gateway.reload()
    wait_until(lambda: "endpoint[0].client_cidr" in gateway.log(), 5)
    assert str(gateway.config_path) in gateway.log()
    refused = gateway.ctl("reload", check=False)
    assert refused.returncode == 1
    assert "choose a prefix from /12 to /22" in refused.stderr
    assert gateway.metrics()["cvpnd_last_reload_successful"] == 0
    assert ping() == 1.0
    assert client.connected_count == 1
    checked = host_check(gateway)
    assert checked.returncode == 1
    assert "endpoint[0].client_cidr" in checked.stderr


def test_a_file_that_was_changed_and_not_reloaded_is_told_until_it_is(site):
    gateway = site.start()

    def told(command: str = "status") -> bool:
        return f"{gateway.config_path} was changed at" in gateway.ctl(command, check=False).stdout

    gateway.write_config(site.toml())  # as it was, in another file
    time.sleep(2)
    assert not told() and gateway.metrics()["cvpnd_configuration_files_changed"] == 0
    gateway.write_config(site.toml("session_timeout_s = 28800"))
    wait_until(told, 10)
    assert told("doctor") and gateway.metrics()["cvpnd_configuration_files_changed"] == 1
    gateway.ctl("reload")
    assert not told() and gateway.metrics()["cvpnd_configuration_files_changed"] == 0


def test_file_that_is_empty_while_it_is_written_sends_nobody_away(site, ping):
    gateway = site.start()
    client = site.connect()
    gateway.write_config("")
    gateway.reload()
    wait_until(lambda: "no [[endpoint]] is left" in gateway.log(), 5)
    assert ping() == 1.0
    assert client.connected_count == 1


def host_check(gateway):
    import sys

    return gateway.namespace.run(
        sys.executable, "-P", "-m", "cvpnd", "check", "--config", gateway.config_path, check=False, env=gateway._env
    )


def test_same_certificate_on_several_devices(site, ping):
    site.start()
    first = site.connect()
    second = site.connect(certs.client(), name="second", client=site.lab.clients[1], host="198.51.100.1")
    assert first.address != second.address
    time.sleep(1)
    assert ping() == 1.0
    assert ping(client=site.lab.clients[1]) == 1.0


@pytest.mark.parametrize("delay_s", [0.3, 0.6, 0.9])
def test_a_start_cut_short_leaves_nothing_behind(site, delay_s):
    gateway = site.lab.gateway_process(site.toml(), wait=False)
    time.sleep(delay_s)
    gateway.running.stop()
    assert "cvpn0" not in site.lab.gateway.run("ip", "link").stdout
    assert "cvpnd" not in site.lab.gateway.run("nft", "list", "ruleset").stdout


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("stays", [True, False])
def test_a_client_whose_listener_goes_is_back_at_its_next_remote_at_once(site, ping, transport, stays):
    """Over UDP it tried for a minute where nobody listened any more. Where somebody does, it stays there."""
    first, second = (f"{transport}://0.0.0.0:{port}" for port in (1194, 443))
    gateway = site.start(listen=(first, second), ping_s=10, ping_restart_s=120)
    client = site.connect(None, "--remote", site.lab.gateway_address, "443", transport=transport)
    toml = site.toml(listen=(first,) if stays else (second,), ping_s=10, ping_restart_s=120)
    gateway.write_config(toml)
    began = time.monotonic()
    gateway.reload()
    client.wait_connected(20, times=2)
    print(f"back after {time.monotonic() - began:.1f} s")
    assert ping() == 1.0
    client.wait_for(r"Connection reset command was pushed by server \('\[PN?\]:configuration changed'\)")
    linked = re.findall(r"link remote: \[AF_INET\]\S+:(\d+)", client.log())
    assert linked == ["1194", "1194" if stays else "443"]


def test_reload_onto_a_port_that_is_taken_goes_back_and_later_succeeds(site, ping):
    """The first listener of the new configuration could be opened, the second not: neither stays behind, and nobody was
    sent away for it."""
    gateway = site.start(listen=("udp://0.0.0.0:1194",))
    client = site.connect()
    with site.lab.gateway.socket() as taken:
        taken.bind(("0.0.0.0", 4443))
        taken.listen()
        gateway.write_config(site.toml(listen=("udp://0.0.0.0:1195", "tcp://0.0.0.0:4443")))
        refused = gateway.ctl("reload", check=False)
        assert "4443: another program has this port" in refused.stderr
        assert ping() == 1.0
        assert client.log().count("Initialization Sequence Completed") == 1
        assert gateway.ctl_json("endpoint", "list")[0]["listen"] == ["udp://0.0.0.0:1194"]
    gateway.ctl("reload")
    site.connect(name="elsewhere", transport="tcp", port=4443)
    assert gateway.ctl_json("endpoint", "list")[0]["listen"] == ["udp://0.0.0.0:1195", "tcp://0.0.0.0:4443"]
