"""Every test here runs in the gateway's namespace of a lab of its own, against the real kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from helpers.lab import Lab
from helpers.tunnel_end import TunnelEnd

from cvpnd.host.gateway import HostGateway


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab, lab.gateway.entered():
        yield lab


@pytest.fixture
def runtime_dir(lab: Lab) -> Path:
    return lab.directory / "run"


@pytest.fixture
async def gateway(runtime_dir: Path) -> AsyncIterator[HostGateway]:
    gateway = HostGateway(runtime_dir)
    yield gateway
    await gateway.down()


@pytest.fixture
def tunnel(gateway: HostGateway) -> Iterator[Callable[..., TunnelEnd]]:
    """``tunnel("staff")`` plays that endpoint's clients."""
    opened: list[TunnelEnd] = []

    def open_end(endpoint: str = "staff") -> TunnelEnd:
        opened.append(TunnelEnd(gateway.tun_queues(endpoint), gateway.tun_offload(endpoint)))
        return opened[-1]

    yield open_end
    for end in opened:
        end.close()
