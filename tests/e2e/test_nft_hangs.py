"""An nft that never answers: the daemon says so, goes on when it does again, and ends in time."""

from __future__ import annotations

import time

import pytest
from helpers.host_state import ip, output_of
from helpers.lab import GatewayProcess, wait_until

REAL = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
STOP_S = 30
"""TimeoutStopSec of the unit."""


@pytest.fixture
def hangs(tmp_path):
    """While this file is there."""
    program = tmp_path / "nft"
    program.write_text(f'#!/bin/sh\n{REAL}\n[ -e {tmp_path}/hangs ] && exec sleep 1000\nexec nft "$@"\n')
    program.chmod(0o755)
    return tmp_path / "hangs"


def gateway_process(site, hangs, **options) -> GatewayProcess:
    path = f"{hangs.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    site._gateway = site.lab.gateway_process(site.toml(), PATH=path, **options)
    return site._gateway


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
