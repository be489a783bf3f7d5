"""Every generation of clients, played by our own: connect, ping, renew the keys, ping, leave."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import wire_vectors as v
from helpers.lab import wait_until
from helpers.netns import Process
from helpers.wrappings import tls_crypt_v2
from light_client.__main__ import print_generations
from light_client.driver import ClientResult
from light_client.generations import GENERATIONS, LEGACY_GENERATIONS

from cvpnd.wire.wrap.key_files import serialise_v2_server_key

DATA_FORMATS = {
    "2.7": "epoch",
    "2.8": "epoch … ID=",
    "openvpn3": "epoch",
    "comp-lzo": "V2 FA",
    "no peer id": "V1",
}
"""Of all others: V2."""

BENCH = Path(__file__).parents[2] / "bench"


def start(site, *options: str, transport: str = "udp", label: str = "light-client") -> Process:
    profile = site.profile(transport=transport, name="light")
    return site.lab.client.start(
        sys.executable, "-m", "light_client", "--remote", f"{site.lab.gateway_address}:1194", "--json",
        "--ca", "ca.crt", "--cert", "client.crt", "--key", "client.key", "--timeout", "20",
        *(["--tcp"] if transport == "tcp" else []), *options,
        label=label, cwd=profile.parent, env={"PYTHONPATH": str(BENCH)},
    )  # fmt: skip


def results(process: Process, timeout_s: float = 90) -> list[ClientResult]:
    process.wait(timeout_s)
    report: dict[str, Any] = json.loads(process.log().strip().splitlines()[-1])
    return [ClientResult(**result) for result in report["results"]]


@pytest.mark.parametrize(("transport", "wrapping"), [("udp", ""), ("tcp", ""), ("udp", "tls-crypt-v2")])
def test_every_generation_connects_pings_renegotiates_and_leaves(site, transport, wrapping):
    case = tls_crypt_v2()
    (site.directory / "v2.key").write_bytes(serialise_v2_server_key(v.V3_SERVER_KEY))
    protection = 'tls_crypt_v2 = { server_key = "v2.key" }' if wrapping else ""
    gateway = site.start(f"hand_window_s = 5\ncontrol_protection = {{ {protection} }}")
    key = case.real_client_options(site.directory) if wrapping else []
    played = results(
        start(site, "--generation", "all", "--ping", "10.20.0.10", "--pings", "3", "--renegotiate", "--hold", "3",
              *key, transport=transport)
    )  # fmt: skip
    print(f"\n{transport} {wrapping or 'plain'}:")
    print_generations(played)
    expected = [each for each in GENERATIONS if each.knows_own_keys or not wrapping]
    assert [result.generation for result in played] == [each.name for each in expected]
    for result, each in zip(played, expected, strict=True):
        assert result.ok, (result.generation, result.error)
        assert result.pings_sent == len(result.round_trips_ms) >= 6, (result.generation, "a ping was lost")
        assert result.keys == 2, result.generation
        assert result.push_replies == 1, (result.generation, "a repeated PUSH_REQUEST gets no second reply")
        assert result.derivation == ("EKM" if each.proto & 8 else "PRF"), result.generation
        first, _, last = DATA_FORMATS.get(each.name, "V2").partition(" … ")
        assert result.data_format.startswith(first) and result.data_format.endswith(last), result.generation
        if each.habits.packets_per_epoch:
            assert result.data_format.split()[1] != "1", (result.generation, "no epoch followed the first one")
        assert result.undecryptable == 0, result.generation
        # an acknowledgement that was under way in the wrapping that it has just left
        left = {"not_authentic"} if each.habits.one_wrapping else set()
        assert result.drops.keys() <= left, result.generation
    wait_until(lambda: len(ends(gateway)) == len(expected), 15, "the end of each")
    usual = {"tcp-closed"} if transport == "tcp" else {"client-exit", "client-reconnected", "client-timeout"}
    assert set(ends(gateway)) <= usual
    silent = [each.name for each in expected if not each.habits.says_goodbye]
    if transport == "udp":
        assert ends(gateway).count("client-exit") == len(expected) - len(silent)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_generations_without_an_aead_cipher_are_served_where_cbc_is_on_and_only_there(site, transport):
    gateway = site.start('legacy_cbc_ciphers = ["AES-256-CBC", "AES-128-CBC"]\nhand_window_s = 5')
    options = ("--generation", "legacy", "--ping", "10.20.0.10", "--pings", "3", "--renegotiate", "--hold", "2")
    played = results(start(site, *options, transport=transport))
    print(f"\n{transport}:")
    print_generations(played)
    assert [result.generation for result in played] == [each.name for each in LEGACY_GENERATIONS]
    for result, each in zip(played, LEGACY_GENERATIONS, strict=True):
        assert result.ok, (result.generation, result.error)
        assert result.cipher == (each.cipher or "AES-256-CBC"), result.generation
        assert "CBC" in result.data_format, result.generation
        assert result.pings_sent == len(result.round_trips_ms) >= 6, (result.generation, "a ping was lost")
        assert (result.keys, result.undecryptable, result.drops) == (2, 0, {}), result.generation
    assert [result.data_format for result in played] == ["V1 CBC", "V2 CBC", "V2 CBC FA", "V2 CBC"]
    (modern,) = results(start(site, "--generation", "2.6", "--ping", "10.20.0.10", transport=transport))
    assert modern.cipher == "AES-256-GCM"
    gateway.write_config(site.toml())
    gateway.reload()
    refused = results(start(site, *options, transport=transport))
    assert {result.error for result in refused} == {
        "AUTH_FAILED,Data channel cipher negotiation failed (no shared cipher)"
    }


def ends(gateway) -> list[str]:
    entries = [e for e in gateway.connection_log() if e["connection-log-type"] == "connection-reset"]
    return [entry["connection-end-reason"] for entry in entries]


def test_client_that_comes_back_at_once_from_its_port_is_served_with_its_second_reset(site):
    """Three clients in turn on one port, which vanish without a word; each relies on IV_PROTO bit 2 for its options."""
    gateway = site.start()
    (result,) = results(start(site, "--generation", "2.6", "--ping", "10.20.0.10", "--pings", "2", "--rounds", "3"))
    assert result.ok, result.error
    assert result.connect_ms is not None
    assert result.connect_ms < 4500, (
        "the second reset (2 s) is answered; an option that has to be asked for comes 5 s later"
    )
    wait_until(lambda: ends(gateway) == ["client-reconnected", "client-reconnected", "client-exit"], 5)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_lost_ping_is_missed_and_one_that_is_only_late_is_not(site, transport):
    """Else the tests above would fail for a machine that is busy, or for nothing."""
    gateway, target = site.start(ping_restart_s=30), site.lab.target
    target.run("nft", "add table ip t { chain c { type filter hook input priority 0; icmp sequence 4 drop; }; }")
    hold = ("--generation", "2.6", "--ping", "10.20.0.10", "--pings", "3", "--hold", "3")
    client = start(site, *hold, transport=transport)
    wait_until(lambda: [c for c in gateway.ctl_json("connection", "list") if c["status"] == "active"], 10)
    time.sleep(1.2)
    gateway.running.signal(signal.SIGSTOP)
    time.sleep(3.4)
    gateway.running.signal(signal.SIGCONT)
    (result,) = results(client)
    assert result.ok, result.error
    assert result.pings_sent - len(result.round_trips_ms) == 1, result.round_trips_ms
    assert max(result.round_trips_ms) > 1000


def test_changed_routes_reach_clients_that_take_updates_and_send_back_the_others(site):
    gateway = site.start()
    new = start(site, "--generation", "2.7", "--ping", "10.20.0.10", "--hold", "6", label="2.7")
    old = start(site, "--generation", "2.6", "--ping", "10.20.0.10", "--hold", "6", label="2.6")
    wait_until(lambda: len([c for c in gateway.ctl_json("connection", "list") if c["status"] == "active"]) == 2, 10)
    extra = ", ".join(f'{{ destination = "172.16.{n}.0/24", target = "subnet-a" }}' for n in range(60))
    gateway.write_config(site.toml(f'dns_servers = ["10.20.0.10"]\nroute = [{extra}]'))
    gateway.reload()
    (updated,) = results(new)
    assert updated.ok, updated.error
    assert updated.updates == 1
    assert len([option for option in updated.options if option.startswith("route ")]) == 62
    assert "dns server 0 address 10.20.0.10" in updated.options
    (sent_back,) = results(old)
    assert sent_back.error.startswith("RESTART,[P]:")
