"""Lists that the kernel says were changed while they were read are read again."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from helpers.host_state import ip
from helpers.lab import Lab
from pyroute2.netlink import NLM_F_DUMP_INTR

from cvpnd.host import netlink as kernel
from cvpnd.host import watch
from cvpnd.host.errors import HostError
from cvpnd.host.notices import MOST_SETTLE_S, SETTLE_S, Notices

OTHERS = 60
"""Interfaces, for a list that the kernel tells in several parts."""


def flags(message: dict[str, Any]) -> int:
    return int(message["header"]["flags"])


async def each_of(messages: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for message in messages:
        yield message


async def test_a_list_that_changed_meanwhile_is_read_again(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.gateway.ip_batch(*(f"link add a{n} type veth peer name b{n}" for n in range(OTHERS // 2)))
    comings = tmp_path / "comings"
    comings.write_text("link add x type veth peer name y\nlink del x\n" * 20_000)
    others = lab.gateway.start("ip", "-batch", comings, label="others")
    async with kernel.netlink_socket() as netlink:
        interrupted = 0

        async def links(command: str) -> AsyncIterator[dict[str, Any]]:
            """What the kernel tells. Others make changes until two lists were interrupted by them."""
            nonlocal interrupted
            messages = [message async for message in await netlink.link(command)]
            interrupted += any(flags(each) & NLM_F_DUMP_INTR for each in messages)
            if interrupted >= 2:
                others.signal(signal.SIGSTOP)
            return each_of(messages)

        monkeypatch.setattr(kernel, "LOOKS", 10_000)
        monkeypatch.setattr(kernel, "PAUSE_S", 0.001)
        while interrupted < 2:
            found = await kernel.listed(links, flags)
            assert len(found) >= OTHERS and not any(each & NLM_F_DUMP_INTR for each in found)
            await asyncio.sleep(0)
        others.signal(signal.SIGCONT)
        monkeypatch.setattr(kernel, "LOOKS", 1)
        with pytest.raises(HostError, match="change faster than they can be read"):
            while others.running:
                await kernel.listed(netlink.link, flags)
                await asyncio.sleep(0)
    others.kill()


async def test_while_thousands_of_changes_go_on_all_is_looked_at_ever_more_slowly(lab: Lab, tmp_path: Path) -> None:
    comings = tmp_path / "comings"
    routes = [f"10.9{n % 10}.{n // 10 % 250}.{n // 2500}/32 dev lan2" for n in range(2500)]
    comings.write_text("".join(f"route {verb} {each}\n" for verb in ("add", "del") for each in routes))
    with Notices(socket.NETLINK_ROUTE, watch.GROUPS, bool) as notices:
        others = lab.gateway.start("sh", "-c", f"while ip -batch {comings}; do :; done", label="others")
        looks = []
        while len(looks) < 6:
            if await notices.wait(5):
                looks.append(time.monotonic())
        others.kill()
        pauses = [later - earlier for earlier, later in itertools.pairwise(looks)]
        assert pauses[-1] > MOST_SETTLE_S - SETTLE_S, pauses
        while await notices.wait(1):
            pass
        begun = time.monotonic()
        ip("route add 10.9.9.9/32 dev lan2")
        assert not await notices.wait(5) and time.monotonic() - begun < 1, "a single one is told at once again"
