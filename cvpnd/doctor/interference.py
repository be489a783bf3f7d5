"""What in the kernel takes packets away besides firewalls and routes: policies of IPsec, strict filters of the way
back, and queues that are full or somebody else's."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from pyroute2 import IPRoute

from cvpnd.config import covers
from cvpnd.config.values import overlap
from cvpnd.doctor.facts import Facts, Link
from cvpnd.doctor.findings import Finding, problem, warning
from cvpnd.doctor.host import listeners, program, sysctl
from cvpnd.doctor.ways import MAIN_TABLE, Network, client_cidrs, subnets_of, told, way

ANYBODY = ip_address("192.0.0.8")
"""Somebody to whom only a default route leads: the dummy address of RFC 7600."""
STRICT = "1"
ORDINARY_QUEUES = frozenset({"noqueue", "pfifo_fast", "pfifo", "bfifo", "fq", "fq_codel", "cake", "sfq", "mq"})
"""Those that kernels and distributions give to every interface."""
LOST_SHARE, LOST_AT_LEAST = 0.01, 100
"""Of packets to clients: TCP finds out how fast it may send by losing a few."""
POLICY = re.compile(r"^src (\S+) dst (\S+) .*\n\s+dir (\w+) (?:action (\w+) )?.*?priority (\d+)", re.MULTILINE)

ROUTE_BASED = re.compile(r"^\s+(?:mark|if_id) 0x", re.MULTILINE)
"""It takes what a route sends into its interface, or a mark to it. ``mark 0/…`` takes what has none, as all of ours."""
OF_ONE_KIND = re.compile(r"^src \S+ dst \S+ .*\b(?:proto|dev) ")
"""Of one protocol or of one interface."""


@dataclass(frozen=True, slots=True)
class _Policy:
    source: Network
    destination: Network
    direction: str
    priority: int
    takes: bool
    """It drops, or wants what it is for to come and go through a tunnel. Else it exempts that from others."""


def ipsec(facts: Facts) -> Iterator[Finding]:
    """A policy decides after the route: ``ip route get`` knows nothing of it."""
    path = program("ip")
    if facts.config is None or path is None:
        return
    policies = _policies(path)
    for endpoint, _ in facts.served():
        for cidr in client_cidrs(endpoint):
            for subnet in subnets_of(facts.config, endpoint):
                for there in subnet.networks:
                    taken = [_taken(policies, cidr, there), _taken(policies, there, cidr)]
                    for policy in dict.fromkeys(filter(None, taken)):
                        yield problem(
                            "ipsec",
                            f"an IPsec policy from {policy.source} to {policy.destination} takes packets between "
                            f"clients of {endpoint.name} and subnet {subnet.id}: dropped, or into its tunnel",
                            f"ip xfrm policy shows it, and whose it is; except {cidr} there (strongSwan: a connection "
                            "with mode = pass), or choose another client CIDR",
                        )


def _policies(path: str) -> list[_Policy]:
    done = subprocess.run([path, "xfrm", "policy"], capture_output=True, text=True, timeout=30, check=False)
    found = []
    for shown in re.split(r"^(?=src )", done.stdout, flags=re.MULTILINE):
        if (match := POLICY.match(shown)) and not ROUTE_BASED.search(shown):
            source, destination, direction, action, priority = match.groups()
            takes = action == "block" or bool(re.search(r"^\s+tmpl ", shown, re.MULTILINE))
            if not takes and OF_ONE_KIND.search(shown):
                continue  # the rest goes on to the next policy
            found.append(_Policy(ip_network(source), ip_network(destination), direction, int(priority), takes))
    return sorted(found, key=lambda policy: policy.priority)


def _taken(policies: list[_Policy], source: Network, destination: Network) -> _Policy | None:
    """By which of them packets that pass are taken; the one of the lowest number decides."""
    for direction in ("fwd", "out"):
        for policy in policies:
            both = ((policy.source, source), (policy.destination, destination))
            if policy.direction != direction or not all(overlap(*pair) for pair in both):
                continue
            if policy.takes:
                return policy
            if all(covers(*pair) for pair in both):
                break
    return None


def ways_back(facts: Facts) -> Iterator[Finding]:
    """Two ways to the Internet: the kernel drops what comes by the one if answers would leave by the other, and its
    filter is strict."""
    if facts.config is None:
        return
    everywhere = sysctl("net/ipv4/conf/all/rp_filter") or "0"
    for link in _with_default_route(facts):
        own = sysctl(f"net/ipv4/conf/{link.name}/rp_filter") or "0"
        if max(own, everywhere) != STRICT:
            continue
        for address in (each.ip for each in link.addresses if each.version == 4):
            ports = [listen for _, listen in listeners(facts.config) if listen.host in ("0.0.0.0", str(address))]  # noqa: S104
            with IPRoute() as netlink:
                indexes = {each.get_attr("IFLA_IFNAME"): each["index"] for each in netlink.get_links()}
                back = way(netlink, ANYBODY, indexes, address)
            if ports and back != link.name:
                yield warning(
                    "rp_filter",
                    f"answers from {address} to the Internet go {told(back)}, so that the kernel drops what clients "
                    f"send there by {link.name}, whose rp_filter is strict",
                    f"sysctl -w net.ipv4.conf.{link.name}.rp_filter=2, for good in /etc/sysctl.d; or a rule that sends "
                    f"answers back: ip rule add from {address} lookup …",
                )


def _with_default_route(facts: Facts) -> list[Link]:
    """Of the main table; none where it spreads packets over several itself, which the filter knows."""
    with IPRoute() as netlink:
        defaults = [
            route for route in netlink.get_routes(family=socket.AF_INET, table=MAIN_TABLE) if not route["dst_len"]
        ]
        names = {each["index"]: each.get_attr("IFLA_IFNAME") for each in netlink.get_links()}
    if any(route.get_attr("RTA_MULTIPATH") for route in defaults):
        return []
    through = {names.get(route.get_attr("RTA_OIF")) for route in defaults}
    return [link for link in facts.links if link.name in through - facts.devices]


def queues(facts: Facts) -> Iterator[Finding]:
    """On the way to clients."""
    for endpoint, device in facts.served():
        link = facts.link(device)
        if link is None:
            continue
        if link.dropped > LOST_AT_LEAST and link.dropped > LOST_SHARE * (link.sent + link.dropped):
            yield warning(
                "buffers",
                f"{endpoint.name}: the kernel dropped {link.dropped} packets to clients at {device} beside {link.sent} "
                "that it sent: they come faster than the data plane takes them",
                "more workers or cores",
            )
        for kind, dropped in _shapers(device):
            yield warning(
                "shaping",
                f"{device} has a queue of somebody else's ({kind}), which dropped {dropped} packets to clients of "
                f"{endpoint.name}",
                f"tc -statistics qdisc show dev {device}; tc qdisc del dev {device} root takes it away",
            )


def _shapers(device: str) -> Iterator[tuple[str, int]]:
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=device):
            for queue in netlink.get_qdiscs(index):
                kind, statistics = queue.get_attr("TCA_KIND"), queue.get_attr("TCA_STATS2")
                dropped = statistics.get_attr("TCA_STATS_QUEUE")["drops"]
                if kind not in ORDINARY_QUEUES and dropped:
                    yield kind, dropped
