"""Lists that the kernel says were changed while they were read are read again."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from pathlib import Path

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


def flags(message) -> int:
    return message["header"]["flags"]


async def test_a_list_that_changed_meanwhile_is_read_again(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.gateway.ip_batch(*(f"link add a{n} type veth peer name b{n}" for n in range(OTHERS // 2)))
    comings = tmp_path / "comings"
    comings.write_text("link add x type veth peer name y\nlink del x\n" * 100)
    others = lab.gateway.start("sh", "-c", f"while ip -batch {comings}; do :; done", label="others")
    async with kernel.netlink_socket() as netlink:
        interrupted, until = 0, time.monotonic() + 20
        while not interrupted and time.monotonic() < until:
            messages = [flags(message) async for message in await netlink.link("dump")]
            interrupted += sum(bool(each & NLM_F_DUMP_INTR) for each in messages)
        assert interrupted, "or what follows would say nothing"
        monkeypatch.setattr(kernel, "LOOKS", 1000)
        for _ in range(20):
            found = await kernel.listed(netlink.link, flags)
            assert len(found) >= OTHERS and not any(each & NLM_F_DUMP_INTR for each in found)
        monkeypatch.setattr(kernel, "LOOKS", 1)
        monkeypatch.setattr(kernel, "PAUSE_S", 0)
        with pytest.raises(HostError, match="change faster than they can be read"):
            for _ in itertools.count():
                await kernel.listed(netlink.link, flags)
                assert time.monotonic() < until
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
