"""A routing table per endpoint, selected by `iif` its TUN, and nothing in anybody else's.

    ip rule   1000: from all iif cvpn0 lookup 20200 proto 211
    ip route  table 20200 proto 211
        10.20.0.0/24 dev eth1                  a declared subnet: on its link
        10.20.0.0/16 via 10.20.0.254 dev eth1  the rest of the VPC
        10.100.0.0/22 dev cvpn0                the `local` route, if there is one
        unreachable 169.254.0.0/16             link-local, unless a route names a part of it
        unreachable default                    a destination without a route goes nowhere, not to the main table

What is ours is known by the protocol number alone, so what a killed predecessor left is seen and replaced like anything
else that is no longer wanted. Replies find their way by the main table, where the TUN's own address puts its CIDR.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any, Literal

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import rt_scope, rt_type

from cvpnd.host.errors import HostError, from_netlink
from cvpnd.host.netlink import listed
from cvpnd.host.plan import EndpointPlan, HostPlan, IPAddress, IPNetwork

PROTOCOL = 211
"""Ours in routes and rules: not among the numbers of iproute2's rt_protos."""
MAIN_TABLE = 254
FIRST_TABLE = 20200
RULE_PRIORITY = 1000
"""After the local table (0), before what VPN and mesh software usually puts in front of the main table (32766)."""
LAST_RESORT_METRIC = 0xFFFFFFFF
DEFAULT_METRIC = {4: 0, 6: 1024}  # what the kernel takes when none is given

RTNH_F_ONLINK = 4
"""The gateway is on that link because the configuration says so, whatever addresses the interface has."""

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
Kind = Literal["unicast", "unreachable"]

DEFAULT_V4, DEFAULT_V6 = ip_network("0.0.0.0/0"), ip_network("::/0")
LINK_LOCAL_V4 = ip_network("169.254.0.0/16")
"""No router may forward these (RFC 3927, 2.6.2), and the kernel would: under SNAT a cloud's metadata service would hand
the gateway's own credentials to a client. IPv6's never leave their link by the kernel's own rules."""


@dataclass(frozen=True, slots=True)
class Route:
    table: int
    destination: IPNetwork
    kind: Kind = "unicast"
    interface: str | None = None
    gateway: IPAddress | None = None
    metric: int = 0
    label: str = field(default="", compare=False)
    """Whose it is, for errors: the subnet's id or the endpoint's name."""

    @property
    def place(self) -> tuple[int, IPNetwork, int]:
        """Two routes of one place replace each other."""
        return self.table, self.destination, self.metric

    def __str__(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        return f"route {self.destination}{via} through {self.interface}"


@dataclass(frozen=True, slots=True)
class Rule:
    version: int
    interface: str
    table: int
    priority: int = RULE_PRIORITY


def wanted_routes(endpoint: EndpointPlan, table: int, *, ipv6: bool) -> list[Route]:
    routes = [
        Route(
            table,
            path.destination,
            "unicast",
            path.interface,
            path.gateway,
            DEFAULT_METRIC[path.destination.version],
            path.subnet_id,
        )
        for path in endpoint.paths()
    ]
    if endpoint.client_to_client:
        for cidr in endpoint.client_cidrs:
            routes.append(
                Route(table, cidr, interface=endpoint.tun, metric=DEFAULT_METRIC[cidr.version], label=endpoint.name)
            )
    for nowhere in (LINK_LOCAL_V4, DEFAULT_V4, *((DEFAULT_V6,) if ipv6 else ())):
        routes.append(Route(table, nowhere, "unreachable", metric=LAST_RESORT_METRIC, label=endpoint.name))
    return routes


def wanted_rules(endpoint: EndpointPlan, table: int, *, ipv6: bool) -> list[Rule]:
    return [Rule(version, endpoint.tun, table) for version in ((4, 6) if ipv6 else (4,))]


class RoutingTables:
    """Which endpoint has which table, and the reconciliation with the kernel."""

    def __init__(self) -> None:
        self._table_of: dict[str, int] = {}
        self._in_place: tuple[set[Route], set[Rule]] | None = None
        """As we left them; None while nobody knows."""

    async def apply(
        self, netlink: AsyncIPRoute, plan: HostPlan, indexes: Mapping[str, int], *, ipv6: bool, look: bool = True
    ) -> None:
        """Make our routes and rules exactly those of the plan. An empty plan removes them all. Without ``look`` those
        that we put in place are taken to be there still."""
        present, self._in_place = self._in_place, None
        if look or present is None or any(endpoint.name not in self._table_of for endpoint in plan.endpoints):
            names = {index: name for name, index in indexes.items()}
            present_routes, present_rules, foreign_tables = await _read_kernel(netlink, names, ipv6=ipv6)
            present = set(present_routes), set(present_rules)
            self._assign_tables(plan, foreign_tables)
        else:
            self._assign_tables(plan, set())
        routes: set[Route] = set()
        rules: set[Rule] = set()
        for endpoint in plan.endpoints:
            table = self._table_of[endpoint.name]
            routes.update(wanted_routes(endpoint, table, ipv6=ipv6))
            rules.update(wanted_rules(endpoint, table, ipv6=ipv6))
        await _reconcile_routes(netlink, routes, present[0], indexes)
        await _reconcile_rules(netlink, rules, present[1])
        self._in_place = routes, rules

    async def lost_rules(self, netlink: AsyncIPRoute, *, ipv6: bool) -> bool:
        """Whether somebody has removed rules that we put in place."""
        if self._in_place is None:
            return False
        present: set[Rule] = set()
        for version in (4, 6) if ipv6 else (4,):
            present.update((await _read_rules(netlink, version))[0])
        return not self._in_place[1] <= present

    def are_wanted(self, places: Collection[tuple[int, IPNetwork, int]]) -> bool:
        """Whether any of these is a route that we put in place."""
        return self._in_place is not None and any(route.place in places for route in self._in_place[0])

    async def lost_routes(self, netlink: AsyncIPRoute, indexes: Mapping[str, int], *, ipv6: bool) -> set[Route]:
        """Those that we put in place and that are not there any more."""
        if self._in_place is None:
            return set()
        names = {index: name for name, index in indexes.items()}
        present: set[Route] = set()
        for version, table in {(route.destination.version, route.table) for route in self._in_place[0]}:
            if version == 4 or ipv6:
                ours = partial(_our_route, version=version, names=names, foreign=set())
                present.update(await listed(netlink.route, ours, family=FAMILY[version], table=table))
        return self._in_place[0] - present

    def _assign_tables(self, plan: HostPlan, foreign: set[int]) -> None:
        """An endpoint keeps its table for life; a table that somebody else uses is left alone."""
        names = [endpoint.name for endpoint in plan.endpoints]
        self._table_of = {name: table for name, table in self._table_of.items() if name in names}
        for name in names:
            if name not in self._table_of:
                taken = foreign | set(self._table_of.values())
                self._table_of[name] = next(n for n in range(FIRST_TABLE, FIRST_TABLE + 100_000) if n not in taken)


async def _read_kernel(
    netlink: AsyncIPRoute, names: Mapping[int, str], *, ipv6: bool
) -> tuple[list[Route], list[Rule], set[int]]:
    """Our routes, our rules, and the numbers of tables that others use."""
    routes: list[Route] = []
    rules: list[Rule] = []
    foreign: set[int] = set()
    for version in (4, 6) if ipv6 else (4,):
        ours = partial(_our_route, version=version, names=names, foreign=foreign)
        routes += await listed(netlink.route, ours, family=FAMILY[version])
        rules_there, tables_there = await _read_rules(netlink, version)
        rules += rules_there
        foreign |= tables_there
    return routes, rules, foreign


async def _read_rules(netlink: AsyncIPRoute, version: int) -> tuple[list[Rule], set[int]]:
    """Our rules, and the numbers of the tables that others' rules name."""
    rules: list[Rule] = []
    foreign: set[int] = set()
    for message in await listed(netlink.rule, lambda message: message, family=FAMILY[version]):
        table = message.get("table")
        if message.get("protocol") == PROTOCOL:
            rules.append(Rule(version, message.get("iifname") or "", table, message.get("priority") or 0))
        else:
            foreign.add(table)
    return rules, foreign


def _our_route(message: Any, version: int, names: Mapping[int, str], foreign: set[int]) -> Route | None:
    """Or None, and its table is added to ``foreign``."""
    table = message.get("table")
    if message["proto"] == PROTOCOL:
        return _parse_route(message, version, table, names)
    foreign.add(table)
    return None


def _parse_route(message: Any, version: int, table: int, names: Mapping[int, str]) -> Route:
    reject = message["type"] == rt_type["unreachable"]
    gateway = message.get("gateway")
    return Route(
        table=table,
        destination=ip_network(_destination(message, version)),
        kind="unreachable" if reject else "unicast",
        # IPv6 shows `dev lo` for routes that lead nowhere
        interface=None if reject else names.get(message.get("oif"), "?"),
        gateway=ip_address(gateway) if gateway else None,
        metric=message.get("priority") or 0,
    )


def _destination(message: Any, version: int) -> str:
    default = DEFAULT_V4 if version == 4 else DEFAULT_V6  # the kernel leaves it out
    return f"{message.get('dst') or default.network_address}/{message['dst_len']}"


async def _reconcile_routes(
    netlink: AsyncIPRoute, wanted: set[Route], present: set[Route], indexes: Mapping[str, int]
) -> None:
    # Additions come first, so that a destination is never without a route that it keeps
    for route in wanted - present:
        try:
            await netlink.route("replace", **_arguments(route, indexes))
        except NetlinkError as error:
            raise from_netlink(error, f"{route.label}: {route}") from error
        except KeyError as error:
            raise HostError(f"{route.label}: the interface {route.interface} is gone") from error
    superfluous = present - wanted
    places = {route.place for route in wanted} if superfluous else set()
    for route in superfluous:
        if route.place not in places:
            arguments = _place_arguments(route) | {"scope": rt_scope["nowhere"]}  # in a deletion: any scope
            await _delete(netlink.route, f"remove {route}", **arguments)


def _place_arguments(route: Route) -> dict[str, Any]:
    """What a deletion needs to find it."""
    arguments: dict[str, Any] = {
        "family": FAMILY[route.destination.version],
        "dst": str(route.destination),
        "table": route.table,
        "proto": PROTOCOL,
        "type": route.kind,
    }
    if route.metric:
        arguments["priority"] = route.metric
    return arguments


def _arguments(route: Route, indexes: Mapping[str, int]) -> dict[str, Any]:
    arguments = _place_arguments(route)
    if route.interface is not None:
        arguments["oif"] = indexes[route.interface]
        if route.gateway is not None:
            arguments |= {"gateway": str(route.gateway), "flags": RTNH_F_ONLINK}
        elif route.destination.version == 4:
            arguments["scope"] = rt_scope["link"]
    return arguments


async def _reconcile_rules(netlink: AsyncIPRoute, wanted: set[Rule], present: set[Rule]) -> None:
    for rule in wanted - present:
        try:
            await netlink.rule("add", **_rule_arguments(rule))
        except NetlinkError as error:
            raise from_netlink(error, f"rule for {rule.interface}") from error
    for rule in present - wanted:
        await _delete(netlink.rule, f"remove the rule for {rule.interface}", **_rule_arguments(rule))


def _rule_arguments(rule: Rule) -> dict[str, Any]:
    return {
        "family": FAMILY[rule.version],
        "iifname": rule.interface,
        "table": rule.table,
        "priority": rule.priority,
        "protocol": PROTOCOL,
    }


async def _delete(call: Any, doing: str, **arguments: Any) -> None:
    try:
        await call("delete", **arguments)
    except NetlinkError as error:
        if error.code not in (2, 3):  # ENOENT, ESRCH: it went by itself, with its interface
            raise from_netlink(error, doing) from error


# -- reverse path ------------------------------------------------------------------------------------------


async def interfaces_with_other_way_back(netlink: AsyncIPRoute, plan: HostPlan, indexes: Mapping[str, int]) -> set[str]:
    """Target interfaces whose replies a strict rp_filter would drop: the main table, which that filter asks, sends at
    least one of their destinations somewhere else or nowhere. (IPv4 only: IPv6 has no such filter.)"""

    def of_main(message: Any) -> tuple[IPv4Network, int | None] | None:
        there = message.get("table") == MAIN_TABLE
        return (IPv4Network(_destination(message, 4)), message.get("oif")) if there else None

    main = await listed(netlink.route, of_main, family=socket.AF_INET, table=MAIN_TABLE)
    main.sort(key=lambda entry: entry[0].prefixlen, reverse=True)  # the first that contains a network decides
    found: set[str] = set()
    for endpoint in plan.endpoints:
        for path in endpoint.paths():
            destination = path.destination
            if isinstance(destination, IPv4Network):
                back = next((oif for network, oif in main if destination.subnet_of(network)), None)
                if back != indexes[path.interface]:
                    found.add(path.interface)
    return found
