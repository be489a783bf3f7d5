"""The host side of a gateway without the daemon: plans for the lab, and a process that plays all clients of a TUN.

As a program it sets a plan up and waits to be killed: `python -m helpers.tunnel_end RUNTIME_DIR [PLAN]`.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from helpers.lab import OTHER_LEG, TARGET_LEG, LabError

from cvpnd.host.errors import HostError
from cvpnd.host.gateway import Association, EndpointPlan, ExtraRoute, HostGateway, HostPlan, Subnet
from cvpnd.host.tun import Offload

SUBNET_A = Subnet("subnet-a", IPv4Network(TARGET_LEG.network), TARGET_LEG.interface, IPv4Address(TARGET_LEG.host))
"""Its gateway is the target machine, which can thus play the router to the rest of the VPC."""
SUBNET_A_V6 = Subnet("subnet-a", IPv6Network(TARGET_LEG.network_v6), TARGET_LEG.interface)
SUBNET_B = Subnet("subnet-b", IPv4Network(OTHER_LEG.network), OTHER_LEG.interface)

VPC_MAIN = IPv4Network("10.20.0.0/16")

STAFF = EndpointPlan(
    name="staff",
    tun="cvpn0",
    client_cidr=IPv4Network("10.100.0.0/22"),
    client_cidr_v6=IPv6Network("fd99::/64"),
    mtu=1400,
    queues=2,
    associations=(Association(SUBNET_A, (VPC_MAIN,)), Association(SUBNET_A_V6)),
)
PARTNERS = EndpointPlan(
    name="partners",
    tun="cvpn1",
    client_cidr=IPv4Network("10.101.0.0/22"),
    associations=(Association(SUBNET_B),),
)
PORTS = frozenset({443, 1194})

PLANS = {
    "staff": HostPlan((STAFF,), PORTS),
    "both": HostPlan(
        (replace(STAFF, routes=(ExtraRoute(IPv4Network("10.50.0.0/16"), SUBNET_A),), client_to_client=True), PARTNERS),
        PORTS,
    ),
}


class TunnelEnd:
    """All clients of one endpoint: writes packets into its TUN, and reads what the kernel sends to them.

    With offload there is a virtio header before each; super-packets are not taken apart, nor checksums completed."""

    def __init__(self, queues: list[int], offload: Offload = Offload.PLAIN) -> None:
        self._queues = queues
        self._header = 0 if offload is Offload.PLAIN else 10

    def send(self, packet: bytes) -> None:
        os.write(self._queues[0], bytes(self._header) + packet)

    def receive(self, wanted: Callable[[bytes], bool] = lambda _: True, timeout_s: float = 1.0) -> bytes | None:
        """The next packet that ``wanted`` likes; others are passed over. None when it does not come."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            for queue in select.select(self._queues, [], [], left)[0]:
                packet = os.read(queue, 65536 + self._header)[self._header :]
                if wanted(packet):
                    return packet
        return None

    def expect(self, wanted: Callable[[bytes], bool], what: str) -> bytes:
        packet = self.receive(wanted, 3.0)
        if packet is None:
            raise LabError(f"nothing came back to the tunnel: {what}")
        return packet

    def close(self) -> None:
        for queue in self._queues:
            os.close(queue)
        self._queues = []


def carries(payload: bytes) -> Callable[[bytes], bool]:
    return lambda packet: packet.endswith(payload)


def icmp_kind(packet: bytes) -> int | None:
    """The type of an ICMP message, None for anything else."""
    return packet[20] if packet[0] >> 4 == 4 and packet[9] == 1 else None


def is_icmp(kind: int) -> Callable[[bytes], bool]:
    return lambda packet: icmp_kind(packet) == kind


async def _hold(runtime_dir: Path, plan: HostPlan) -> Any:
    gateway = HostGateway(runtime_dir)
    try:
        await gateway.up(plan)
        print("up", flush=True)
        await asyncio.Event().wait()
    finally:
        await gateway.down()


if __name__ == "__main__":
    try:
        asyncio.run(_hold(Path(sys.argv[1]), PLANS[sys.argv[2] if len(sys.argv) > 2 else "staff"]))
    except HostError as error:
        sys.exit(str(error))
