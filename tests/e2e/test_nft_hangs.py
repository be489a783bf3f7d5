"""An nft that never answers: the daemon says so, goes on when it does again, and ends in time."""

from __future__ import annotations

import json
import time

import pytest
from helpers.host_state import ip, output_of
from helpers.lab import GatewayProcess, wait_until

STOP_S = 30
"""TimeoutStopSec of the unit."""
MOST_OF_A_CHANGE_S = 30
"""Twelve, a second for each try after that, and the look at the host that comes in between. Measured: 22; it was 56."""


@pytest.fixture
def hangs(faulty_nft):
    """While this file is there."""
    return faulty_nft("exec sleep 1000")


def gateway_process(site, hangs, **options) -> GatewayProcess:
    path = f"{hangs.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    site._gateway = site.lab.gateway_process(site.toml(), PATH=path, **options)
    return site._gateway


def served(gateway: GatewayProcess) -> set[str]:
    return {endpoint["name"] for endpoint in gateway.ctl_json("endpoint", "list")}


def test_start_says_so_and_leaves_nothing(site, hangs):
    hangs.touch()
    gateway = gateway_process(site, hangs, wait=False)
    assert gateway.running.wait(STOP_S) == 1
    assert "has not answered within 7 s and was ended" in gateway.log() and "Traceback" not in gateway.log()
    with site.lab.gateway.entered():
        assert "cvpn0" not in ip("link") and output_of("nft", "list", "tables") == ""


def test_the_table_comes_back_and_stop_ends_in_time(site, ping, hangs):
    gateway = gateway_process(site, hangs)
    site.connect()
    assert ping() == 1.0
    hangs.touch()
    site.lab.gateway.run("nft", "flush", "ruleset")
    gateway.running.wait_for("cannot be put back.*has not answered within 7 s", STOP_S)
    hangs.unlink()
    gateway.running.wait_for("nftables table.*in place again", STOP_S)
    assert ping() == 1.0
    hangs.touch()
    gateway.reload()  # which waits for nft when it is to stop
    time.sleep(1)
    begun = time.monotonic()
    gateway.running.popen.terminate()
    assert gateway.running.wait(STOP_S) == 1
    assert time.monotonic() - begun < STOP_S - 5
    assert "the host is not as it was, which the next start mends" in gateway.log()
    assert "Traceback" not in gateway.log()
    with site.lab.gateway.entered():
        wait_until(lambda: "cvpn0" not in ip("link"), what="its devices are gone")
        assert "20200" not in ip("rule")


def test_a_change_is_refused_in_time_and_all_is_as_before_once_nft_answers(site, ping, hangs):
    """Of the endpoint that the change takes away too, whose device is gone by then."""
    lab = site.toml(listen=("udp://0.0.0.0:1195",)).partition("[[endpoint]]")[2]
    lab = lab.replace('"staff"', '"lab"').replace("10.100.0.0/22", "10.104.0.0/22")
    both, one = f"{site.toml()}\n[[endpoint]]{lab}", site.toml()
    gateway = gateway_process(site, hangs)
    gateway.write_config(both)
    gateway.ctl("reload")
    gateway.ctl("rule", "add", "staff", "10.20.0.20/32", "--all-groups")
    site.connect()
    assert ping() == 1.0
    hangs.touch()
    gateway.write_config(one)
    begun = time.monotonic()
    refused = gateway.ctl("reload", check=False)
    took_s = time.monotonic() - begun
    print(f"refused after {took_s:.1f} s")
    assert refused.returncode == 1 and "has not answered within 7 s" in refused.stderr
    assert took_s < MOST_OF_A_CHANGE_S
    assert ping() == 1.0, "endpoints that stay go on"
    gateway.ctl("rule", "remove", "staff", "10.20.0.20/32", "--all-groups")  # who may go where does not wait for nft
    assert hangs.exists() and served(gateway) == {"staff"}
    hangs.unlink()
    wait_until(lambda: served(gateway) == {"staff", "lab"}, STOP_S, what="what was taken away is back")
    site.connect(name="lab", port=1195, client=site.lab.clients[1], host="198.51.100.1")
    assert ping(client=site.lab.clients[1]) == 1.0 and ping() == 1.0
    gateway.ctl("reload")
    assert json.loads(gateway.ctl("status", "--json", check=False).stdout)["problems"] == []
