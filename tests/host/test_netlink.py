"""Lists that the kernel says were changed while they were read are read again."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import pytest
from helpers.lab import Lab
from pyroute2.netlink import NLM_F_DUMP_INTR

from cvpnd.host import netlink as kernel
from cvpnd.host.errors import HostError

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
