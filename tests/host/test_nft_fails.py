"""What cannot be started, or does not come back, for a while: firewall and all else are put right after it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from helpers.host_state import host_state, ip
from helpers.lab import Lab, wait_until
from helpers.tunnel_end import PLANS
from helpers.watched import Watched

from cvpnd.host import nft
from cvpnd.host.errors import HostError
from cvpnd.host.gateway import HostGateway

SHORT_S = 0.5
"""Instead of ``nft.TIMEOUT_S``."""
REAL = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``nft`` in front of the real one, which is what it runs until a test writes another."""
    directory = tmp_path / "bin"
    directory.mkdir()
    path = directory / "nft"
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    write(path, f'{REAL} exec nft "$@"')
    return path


def write(path: Path, script: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(f"#!/bin/sh\n{script}\n")
    new.chmod(0o755)
    new.rename(path)


@contextlib.contextmanager
def without_files() -> Iterator[None]:
    """Nothing more can be opened by this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as lowest:  # noqa: PTH123 - the number is what is wanted
        number = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
async def watched(gateway: HostGateway) -> AsyncIterator[Watched]:
    await gateway.up(PLANS["staff"])
    async with Watched(gateway.watch(), gateway.watch_firewall()) as watched:
        await asyncio.sleep(1.0)
        assert watched.lines == []
        yield watched


async def test_firewall_and_device_come_back_after_files_were_short(
    lab: Lab, gateway: HostGateway, watched: Watched
) -> None:
    wanted = host_state()
    others = lab.gateway.start(
        "sh", "-c", "sleep 0.5; nft flush ruleset; ip link set cvpn0 down; echo flushed", label="others"
    )
    with without_files():
        await asyncio.sleep(5)
        watched.check()
    assert "flushed" in others.log()
    assert "cannot be put back" in gateway.trouble and "Too many open files" in gateway.trouble
    told = list(watched.lines)
    assert len(told) == 2 and sum("nftables table" in line for line in told) == 1, "each trouble once"
    await watched.until(lambda: host_state() == wanted and not gateway.trouble)
    assert any("in place again" in line for line in watched.lines[2:])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", "it was ended by SIGSEGV"),
        ("exec sleep 1000", "has not answered within 0.5 s"),
        ("echo out of memory >&2; exit 1", "out of memory"),
    ],
)
async def test_firewall_comes_back_after_nft_failed(
    lab: Lab, gateway: HostGateway, program: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    monkeypatch.setattr(nft, "TIMEOUT_S", SHORT_S)
    await gateway.up(PLANS["staff"])
    wanted = host_state()
    async with Watched(gateway.watch_firewall()) as watched:
        await asyncio.sleep(0.5)
        write(program, script)
        lab.gateway.run("sh", "-c", f"{REAL} nft flush ruleset")
        await asyncio.sleep(5)
        watched.check()
        assert words in gateway.trouble
        assert len(watched.lines) == 1, "told once"
        write(program, f'{REAL} exec nft "$@"')
        await watched.until(lambda: not gateway.trouble)
        assert host_state() == wanted


async def test_what_others_did_while_nobody_watched_is_put_right(lab: Lab, gateway: HostGateway) -> None:
    """As after a watcher that failed and begins again."""
    await gateway.up(PLANS["staff"])
    wanted = host_state()
    lab.gateway.run("nft", "insert", "rule", "inet", "cvpnd", "from_clients", "accept")
    ip("link set cvpn0 mtu 1300")
    ip("rule delete priority 1000")
    async with Watched(gateway.watch(), gateway.watch_firewall()) as watched:
        await watched.until(lambda: host_state() == wanted)
        async with Watched(gateway.watch(), gateway.watch_firewall()) as watched_again:
            await asyncio.sleep(1)
            assert watched_again.lines == []


async def test_record_that_cannot_be_written_is_a_failure_with_its_name_and_ends_no_watcher(
    lab: Lab, gateway: HostGateway, watched: Watched, runtime_dir: Path
) -> None:
    wanted = host_state()
    obstacle = runtime_dir / "host-sysctl.new"
    obstacle.mkdir()
    lab.gateway.sysctl("net/ipv4/conf/all/forwarding", 1)
    lab.gateway.sysctl("net/ipv4/conf/all/forwarding", 0)
    await watched.until(lambda: str(obstacle.with_suffix(".json")) in gateway.trouble)
    obstacle.rmdir()
    await watched.until(lambda: not gateway.trouble)
    assert host_state() == wanted


async def test_start_with_nft_that_hangs_fails_with_words_and_leaves_nothing(
    lab: Lab, gateway: HostGateway, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "TIMEOUT_S", SHORT_S)
    before = host_state()
    write(program, f"echo $$ >>{tmp_path}/pids; exec sleep 1000")
    with pytest.raises(HostError, match=r"has not answered within 0.*nft list tables"):
        await gateway.up(PLANS["staff"])
    with pytest.raises(HostError, match="has not answered"):
        await gateway.down()
    write(program, f'{REAL} exec nft "$@"')
    assert host_state() == before
    assert not gateway.claim.is_held
    assert still_there(tmp_path / "pids") == set()


async def test_nft_that_hangs_is_ended_with_whoever_waits_for_it(
    lab: Lab, gateway: HostGateway, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.up(PLANS["staff"])
    wanted = host_state()
    write(program, f"echo $$ >>{tmp_path}/pids; exec sleep 1000")
    updating = asyncio.create_task(gateway.update(PLANS["both"]))
    await asyncio.to_thread(wait_until, (tmp_path / "pids").exists, what="nft runs")
    await asyncio.sleep(0.2)
    assert still_there(tmp_path / "pids")
    monkeypatch.setattr(nft, "TIMEOUT_S", SHORT_S)
    updating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await updating
    assert still_there(tmp_path / "pids") == set()
    write(program, f'{REAL} exec nft "$@"')
    await gateway.update(PLANS["staff"])
    assert host_state() == wanted


async def test_change_with_nft_that_hangs_is_refused_and_the_old_state_stays(
    lab: Lab, gateway: HostGateway, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "TIMEOUT_S", SHORT_S)
    await gateway.up(PLANS["staff"])
    wanted = host_state()
    write(program, "exec sleep 1000")
    with pytest.raises(HostError, match="has not answered"):
        await gateway.update(PLANS["both"])
    write(program, f'{REAL} exec nft "$@"')
    assert host_state() == wanted


def still_there(pids: Path) -> set[str]:
    return {pid for pid in pids.read_text().split() if Path(f"/proc/{pid}").exists()}


async def test_each_step_of_a_stop_is_done_whatever_the_others_said(
    lab: Lab, gateway: HostGateway, program: Path, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.gateway.sysctl("net/ipv4/conf/lan/forwarding", 0)
    before = host_state()
    await gateway.up(PLANS["both"])
    with without_files(), pytest.raises(HostError) as raised:
        await gateway.down()
    assert not gateway.claim.is_held
    text = str(raised.value)
    assert "nft" in text and "netlink" in text and "host-sysctl" in text, text
    await gateway.up(PLANS["staff"])  # and the next start finds what was left
    await gateway.down()
    assert host_state() == before
