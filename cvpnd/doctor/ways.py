"""The ways of packets between clients and their networks: addresses and routes of others, forwarding, and what the
kernel would do with a packet."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cvpnd.config import Config, EndpointConfig, SubnetConfig, covers
from cvpnd.doctor.facts import Facts
from cvpnd.doctor.findings import Finding, problem
from cvpnd.doctor.host import has_ipv6, sysctl

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
MAIN_TABLE = 254
RELOAD = "then systemctl reload cvpnd"

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def overlaps(facts: Facts) -> Iterator[Finding]:
    """Addresses and routes of this host within a client CIDR."""
    if facts.config is None:
        return
    routes = _routes()
    for endpoint in facts.config.endpoints:
        for cidr in client_cidrs(endpoint):
            for link in facts.links:
                for address in link.addresses:
                    if link.name not in facts.devices and address.network.overlaps(cidr):
                        yield problem(
                            "addresses", f"{link.name} has {address}, which lies in the client CIDR {cidr} of endpoint "
                            f"{endpoint.name}: clients there and that network hide each other",
                            "choose another client CIDR, or another network for the interface",
                        )  # fmt: skip
            for destination, device in routes:
                if device not in facts.devices and covers(cidr, destination):
                    if any(a.network == destination for link in facts.links for a in link.addresses):
                        continue  # told above
                    leads = "" if device is None else f" through {device}"
                    yield problem(
                        "addresses",
                        f"a route to {destination}{leads} takes packets of clients of {endpoint.name} away",
                        f"ip route del {destination}, or another client CIDR",
                    )


def client_cidrs(endpoint: EndpointConfig) -> Iterator[Network]:
    yield endpoint.client_cidr
    if endpoint.client_cidr_v6 is not None:
        yield endpoint.client_cidr_v6


def _routes() -> list[tuple[Network, str | None]]:
    """Destination and device of the main table; without a device it leads nowhere."""
    found: list[tuple[Network, str | None]] = []
    with IPRoute() as netlink:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}
        for family in FAMILIES.values():
            for route in netlink.get_routes(family=family, table=MAIN_TABLE):
                destination = route.get_attr("RTA_DST")
                if destination is not None and route["dst_len"]:
                    network = ip_network(f"{destination}/{route['dst_len']}")
                    found.append((network, names.get(route.get_attr("RTA_OIF"))))
    return found


def forwarding(facts: Facts) -> Iterator[Finding]:
    """The daemon switches it on for each interface at start and reload; a host-wide 0 afterwards undoes that."""
    if facts.config is None:
        return
    closed = {version: sorted(name for name in _forwarders(facts, version) if not _forwards(version, name))
              for version in FAMILIES}  # fmt: skip
    for version, names in closed.items():
        if names:
            setting = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
            yield problem(
                "forwarding",
                f"IPv{version} is not forwarded from {', '.join(names)}: it was switched off after cvpnd's start",
                f"remove {setting} = 0 from /etc/sysctl.conf and /etc/sysctl.d, {RELOAD}",
            )
    if not any(closed.values()):
        yield from _ways(facts, facts.config)


def _forwarders(facts: Facts, version: int) -> set[str]:
    """Interfaces whose packets the daemon has forwarded."""
    names: set[str] = set()
    for endpoint, device in facts.served():
        if any(cidr.version == version for cidr in client_cidrs(endpoint)):
            for subnet in subnets_of(facts.config, endpoint):
                if any(network.version == version for network in subnet.networks):
                    names |= {device, subnet.interface}
    return names if version == 4 else set(filter(has_ipv6, names))


def subnets_of(config: Config | None, endpoint: EndpointConfig) -> list[SubnetConfig]:
    return [] if config is None else [config.subnet(chosen.subnet) for chosen in endpoint.associate]


def _forwards(version: int, name: str) -> bool:
    """IPv6 has such a setting of an interface since Linux 6.17."""
    if version == 4:
        return sysctl(f"net/ipv4/conf/{name}/forwarding") != "0"
    own = sysctl(f"net/ipv6/conf/{name}/force_forwarding")
    return own == "1" or sysctl("net/ipv6/conf/all/forwarding") != "0"


def _ways(facts: Facts, config: Config) -> Iterator[Finding]:
    """Whether the kernel sends a client's packet into its network, and the answer to its client. Rules of others for
    routing, which go before ours or before the main table, and a VPN of the host's own change that."""
    with IPRoute() as netlink:
        indexes = {link.get_attr("IFLA_IFNAME"): link["index"] for link in netlink.get_links()}
        for endpoint, device in facts.served():
            if device not in indexes:
                continue
            for cidr in client_cidrs(endpoint):
                client = cidr[-2]
                back = way(netlink, client, indexes)
                if back != device:
                    yield problem(
                        "routing", f"answers to clients of {endpoint.name} go {told(back)}, not through {device}",
                        f"ip route get {client} shows it; ip rule, by whose rule. Except {cidr} there",
                    )  # fmt: skip
                yield from _ways_there(facts, netlink, indexes, device, client, subnets_of(config, endpoint))


def _ways_there(
    facts: Facts, netlink: IPRoute, indexes: dict[str, int], device: str, client: Address, subnets: list[SubnetConfig]
) -> Iterator[Finding]:
    for subnet in subnets:
        destination = _somebody_in(facts, subnet, client.version)
        if destination is None:
            continue
        there = way(netlink, destination, indexes, client, device)
        if there not in {each.interface for each in subnets}:
            yield problem(
                "routing", f"packets of clients to {destination} in subnet {subnet.id} go {told(there)}, not through "
                f"{subnet.interface}",
                f"ip route get {destination} from {client} iif {device} shows it; ip rule, by whose rule. That one "
                f"needs a preference after 1000, {RELOAD}",
            )  # fmt: skip


def _somebody_in(facts: Facts, subnet: SubnetConfig, version: int) -> Address | None:
    """None: nobody of that version can be reached, as ``interfaces`` has said."""
    link = facts.link(subnet.interface)
    if link is None or not link.up or not link.carrier or (version == 6 and not has_ipv6(link.name)):
        return None
    for network in subnet.networks:
        if network.version == version and any(address.ip in network for address in link.addresses):
            return next((a for a in map(ip_address, network.hosts()) if a not in facts.own_addresses), None)
    return None


def told(device: str | None) -> str:
    return "nowhere" if device is None else f"through {device}"


def way(
    netlink: IPRoute, destination: Address, indexes: dict[str, int], source: Address | None = None, device: str = ""
) -> str | None:
    """By which interface a packet leaves, of this host's own or of one that came in by ``device``; None: by none."""
    asked: dict[str, Any] = {"dst": str(destination), "family": FAMILIES[destination.version]}
    if source is not None:
        asked |= {"src": str(source)} | ({"iif": indexes[device]} if device else {})
    try:
        (route,) = netlink.route("get", **asked)
    except NetlinkError as error:
        if error.code in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        return None
    index = route.get_attr("RTA_OIF")
    return next((name for name, each in indexes.items() if each == index), None)
