"""A part of netfilter that the kernel does not have is named, and what to do about it."""

from __future__ import annotations

import pytest
from helpers.host_state import host_state
from helpers.lab import Lab
from helpers.tunnel_end import PLANS

from cvpnd.doctor import firewalls
from cvpnd.doctor.facts import Facts
from cvpnd.host import firewall, kernel_parts
from cvpnd.host.errors import HostError
from cvpnd.host.gateway import HostGateway

ABSENT = "nft_queue"


@pytest.fixture
def absent(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """One part more that we need, which the kernel under test does not have."""
    monkeypatch.setitem(kernel_parts.NFTABLES, ABSENT, ("filter", "forward", "queue num 1"))
    done = lab.gateway.run(
        "nft", "add table ip t; add chain ip t c { type filter hook forward priority 0; }; add rule ip t c queue num 1",
        check=False,
    )  # fmt: skip
    if done.returncode == 0:
        lab.gateway.run("nft", "delete", "table", "ip", "t")
        pytest.skip("this kernel has nft_queue")


async def test_this_kernel_has_all_and_to_ask_changes_nothing(lab: Lab) -> None:
    before = host_state()
    assert await kernel_parts.missing() == []
    assert host_state() == before


async def test_a_start_names_what_the_kernel_does_not_have(
    gateway: HostGateway, absent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firewall, "ACCEPT", {"queue": {"num": 1}})
    with pytest.raises(
        HostError, match=f"this kernel does not have {ABSENT}: modprobe {ABSENT}, of a container"
    ) as told:
        await gateway.up(PLANS["both"])
    assert str(told.value).count("this kernel") == 1


def test_doctor_names_it(lab: Lab, absent: None, tmp_path) -> None:
    (found,) = firewalls.kernel(Facts(tmp_path / "cvpnd.toml"))
    assert (found.level, found.what) == ("problem", f"this kernel does not have {ABSENT}")
    assert found.fix.startswith(f"modprobe {ABSENT}, of a container on its host")
