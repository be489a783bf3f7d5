"""Paths that carry less than Ethernet does, in the middle, where neither end sees it (PEERS.md 8):

    client ── 1500 ── router a ── NARROW ── router b ── 1500 ── gateway ── target

with routers that speak (ICMP "too big"), routers that are silent, and routers that drop fragments. Nothing may hang:
whatever does not fit arrives some other way, or its sender is told. ``PATHS=all`` tries every combination.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from helpers import other_releases
from helpers.lab import ECHO_PORT, TARGET_LEG, Lab, OpenVpnClient
from helpers.netns import Namespace
from helpers.openvpn3 import openvpn3_client

from .test_openvpn3 import profile

MEGABYTE = 1 << 20
GATEWAY, GATEWAY_V6 = "198.51.100.1", "2001:db8:2::1"
LISTEN = ("udp://0.0.0.0:1194", "tcp://0.0.0.0:1194", "udp://[::]:1194", "tcp://[::]:1194")
HEADERS = {"udp": 28, "udp6": 48}
OVERHEAD, OVERHEAD_OF_EPOCHS = 24, 28
TUNNEL_MTU = 1420


@dataclass(frozen=True)
class Path:
    transport: str
    mtu: int
    routers: str
    overhead: int = OVERHEAD

    def __str__(self) -> str:
        return f"{self.transport}-{self.mtu}-{self.routers}"

    @property
    def fits(self) -> int:
        return min(TUNNEL_MTU, self.mtu - HEADERS[self.transport] - self.overhead)


ALL = [
    Path(*each)
    for each in itertools.product(
        ("udp", "udp6", "tcp", "tcp6"), (1280, 1400, 1452, 1500), ("speak", "silent", "no-fragments")
    )
]
CHOSEN = [
    Path("udp", 1280, "silent"),
    Path("udp6", 1400, "speak"),
    Path("tcp", 1452, "silent"),
    Path("udp", 1500, "no-fragments"),
]


HOOKS = ("output", "forward")
DROPS = {
    "speak": (),
    "silent": ("icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"),
    "no-fragments": ("ip frag-off & 0x3fff != 0 drop", "exthdr frag exists drop"),
}


def _chain(routers: str) -> Callable[[str], str]:
    def text(hook: str) -> str:
        rules = "\n".join((f"type filter hook {hook} priority 0;", *DROPS[routers]))
        return f"table inet narrow {{\nchain {hook} {{\n{rules}\n}}\n}}\n"

    return text


class World:
    """The lab with two routers between the client and the gateway, which serves all the time."""

    def __init__(self, site: Any) -> None:
        self.site = site
        self.lab = site.lab
        self.client, self.b, self.a = site.lab.clients
        for router in (self.a, self.b):
            router.sysctl("net/ipv4/ip_forward", 1)
            router.sysctl("net/ipv6/conf/all/forwarding", 1)
        _join(self.client, "uplink", self.a, "downlink", 1)
        _join(self.a, "uplink", self.b, "downlink", 2)
        for family, to_client, to_b, to_a, to_gateway in (
            ("-4", "10.9.1.0/24", "10.9.2.2", "10.9.2.1", "198.51.100.2"),
            ("-6", "fd09:1::/64", "fd09:2::2", "fd09:2::1", "2001:db8:2::2"),
        ):
            up = "10.9.1.2" if family == "-4" else "fd09:1::2"
            self.client.run("ip", family, "route", "replace", "default", "via", up)
            self.a.run("ip", family, "route", "replace", "default", "via", to_b)
            self.b.run("ip", family, "route", "add", to_client, "via", to_a)
            self.lab.gateway.run("ip", family, "route", "add", to_client, "via", to_gateway)
        self.gateway = site.start(listen=LISTEN, ipv6=True)
        for own in ("10.100.0.1/32", "fd00:100::1/128"):  # for ``found``
            self.gateway.ctl("rule", "add", "staff", own, "--all-groups")
        self.lab.start_servers()

    def become(self, path: Path) -> None:
        for router, interface in ((self.a, "uplink"), (self.b, "downlink")):
            router.run("ip", "link", "set", interface, "mtu", path.mtu)
            router.run("nft", "-f", "-", input="flush ruleset\n" + "".join(map(_chain(path.routers), HOOKS)))
        for place in (self.client, self.lab.gateway, self.a, self.b):  # what was found out about the last path
            place.run("ip", "route", "flush", "cache")
            place.run("ip", "-6", "route", "flush", "cache")

    def connect(self, path: Path) -> OpenVpnClient:
        host = GATEWAY_V6 if "6" in path.transport else GATEWAY
        name = f"client-{path}"
        return self.site.connect(transport=path.transport, host=host, name=name, client=self.client)

    def found(self, version: int) -> int:
        """What the gateway tells a sender whose packets to the client are too big; 0 if it sends them."""
        shown = self.client.run(
            "ip", f"-{version}", "-json", "address", "show", "dev", "tun0", "scope", "global"
        ).stdout
        address = json.loads(shown)[0]["addr_info"][0]["local"]
        size = TUNNEL_MTU - (28 if version == 4 else 48)
        ping = ["ping", "-n", "-c", "1", "-W", "0.2", "-M", "do", "-s", str(size), address]
        self.lab.gateway.run("ip", f"-{version}", "route", "flush", "cache")
        text = self.lab.gateway.run(*ping, check=False).stdout
        told = re.search(r"mtu ?= ?(\d+)", text)
        return int(told[1]) if told else 0


def _join(here: Namespace, up: str, there: Namespace, down: str, number: int) -> None:
    here.ip_batch(
        f"link add {up} type veth peer name {down} netns {there.name}",
        f"address add 10.9.{number}.1/24 dev {up}",
        f"address add fd09:{number}::1/64 dev {up} nodad",
        f"link set {up} up",
    )
    there.ip_batch(
        f"address add 10.9.{number}.2/24 dev {down}",
        f"address add fd09:{number}::2/64 dev {down} nodad",
        f"link set {down} up",
    )


@pytest.fixture(scope="module")
def world(site_in: Callable[[Lab], Any]) -> Iterator[World]:
    with Lab(clients=3) as lab:
        yield World(site_in(lab))


def echo(world: World, host: str, size: int, *, tries: int = 12) -> int:
    """A datagram of this size, which may be fragmented, there and back; how many were sent until one came back."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with world.client.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, DONT
        for sent in range(1, tries + 1):
            sock.sendto(bytes([sent]) * size, (host, ECHO_PORT))
            try:
                if len(sock.recv(65536)) == size:
                    return sent
            except TimeoutError:
                continue
    raise AssertionError(f"{tries} datagrams of {size} bytes to {host} vanished")


def settled(world: World, path: Path) -> None:
    """Wait until the gateway has found what fits."""
    expected = 0 if path.fits == TUNNEL_MTU else path.fits
    deadline = time.monotonic() + 15
    while (told := world.found(4)) != expected:
        assert time.monotonic() < deadline, f"{path}: senders are told {told} instead of {expected}"
        time.sleep(0.2)


@pytest.mark.parametrize("path", ALL if os.environ.get("PATHS") == "all" else CHOSEN, ids=str)
def test_nothing_hangs_on_a_narrow_path(world: World, path: Path) -> None:
    world.become(path)
    client = world.connect(path)
    try:
        _use(world, path)
    finally:
        client.stop()


def _use(world: World, path: Path) -> None:
    for host in (TARGET_LEG.host, TARGET_LEG.host_v6):  # at once, before anything is known
        world.lab.download(world.client, host, MEGABYTE, 10)
        world.lab.upload(world.client, host, MEGABYTE, 10)
    udp = path.transport.startswith("udp")
    if udp:
        settled(world, path)
        assert world.found(6) == (0 if path.fits == TUNNEL_MTU else max(path.fits, 1280))
    fragments_arrive = path.routers != "no-fragments"
    upstream = not udp or (path.routers == "speak" and fragments_arrive) or path.mtu >= 1500
    sizes = [path.fits - 28 if udp else TUNNEL_MTU - 28, *([1472] if upstream else [])]
    for size in sizes:
        echo(world, TARGET_LEG.host, size)
    if path.transport == "udp6" and path.routers == "speak":
        echo(world, TARGET_LEG.host_v6, 1280 - 48)  # no sender need go below, so the packet around it is cut
    for host in (TARGET_LEG.host, TARGET_LEG.host_v6):
        world.lab.download(world.client, host, MEGABYTE, 10)
        world.lab.upload(world.client, host, MEGABYTE, 10)


@pytest.mark.skipif(
    not (other_releases.DIRECTORY / "openvpn3-client").exists(), reason="make test-clients fetches OpenVPN 3"
)
@pytest.mark.parametrize(
    "path",
    [Path(*each, "speak", OVERHEAD_OF_EPOCHS) for each in (("udp", 1400), ("udp6", 1400), ("udp6", 1280))],
    ids=str,
)
def test_what_routers_say_counts_for_who_answers_nothing(world: World, tmp_path: pathlib.Path, path: Path) -> None:
    world.become(path)
    with openvpn3_client(world.client, tmp_path) as client:
        client.connect(profile(GATEWAY_V6 if path.transport == "udp6" else GATEWAY, 1194, "udp"))
        try:
            _use(world, path)
        finally:
            client.disconnect()
