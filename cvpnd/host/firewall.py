"""The nftables table `inet cvpnd`: who may open connections through the gateway, SNAT, and anti-spoofing.

    spoofing     prerouting, raw   client addresses only come out of their TUN; nobody writes to them from elsewhere
    forward      clients open connections to their endpoint's target interfaces, as far as its security groups let
                 them and not too many at once; only replies come back
    input        from a tunnel, the gateway host answers pings, and DNS where configured, and nothing else
    output       no ICMP redirects into a tunnel (the kernel sends them for traffic between clients)
    source_nat   per association, with source ports that are none of ours (CVE-2021-3773, "port shadow")

The table is replaced as a whole in one transaction, so there is no moment without it and no difference between start,
reload and repair. Its chains accept what they do not speak of: other tables decide on that, and on ours as well, since
in nftables any table can drop (`foreign.py`).
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from cvpnd.host import kernel_parts, nft
from cvpnd.host.errors import HostError
from cvpnd.host.plan import EndpointPlan, HostPlan, IPNetwork
from cvpnd.host.sysctl import Opened

FAMILY, TABLE = "inet", "cvpnd"

FIRST_NAT_PORT, LAST_PORT = 1024, 65535

NETLINK_NETFILTER, NFNLGRP_NFTABLES = 12, 7
NFTA_TABLE_NAME = 1
"""The table's name in every message, be it of a table, chain, rule, set or counter (linux/netfilter/nf_tables.h)."""
NFNL_SUBSYS_NFTABLES = 10
_NETLINK_HEADER = struct.Struct("=IH6xI")

Statement = dict[str, Any]


class KeptBack(NamedTuple):
    """Packets of clients, for one reason."""

    endpoint: str
    by: Literal["security-groups", "flows"]


ACCEPT: Statement = {"accept": None}
DROP: Statement = {"drop": None}
COUNT: Statement = {"counter": None}


# -- rendering ---------------------------------------------------------------------------------------------


def render(plan: HostPlan, opened: Opened | None = None) -> dict[str, Any]:
    """The batch for ``nft -j -f -`` that replaces whatever the table holds."""
    opened = opened or Opened()
    commands = _removal()
    commands.append({"add": {"table": {"family": FAMILY, "name": TABLE}}})

    def chain(name: str, rules: Iterable[Sequence[Statement]], **hook: Any) -> None:
        commands.append({"add": {"chain": {"family": FAMILY, "table": TABLE, "name": name, **hook}}})
        for rule in rules:
            commands.append({"add": {"rule": {"family": FAMILY, "table": TABLE, "chain": name, "expr": list(rule)}}})

    def base_chain(name: str, hook: str, priority: int, rules: Iterable[Sequence[Statement]], kind: str) -> None:
        chain(name, rules, type=kind, hook=hook, prio=priority, policy="accept")

    # a counter and a chain must exist before a rule names them
    for name in _counters(plan):
        commands.append({"add": {"counter": {"family": FAMILY, "table": TABLE, "name": name}}})
    for endpoint in plan.endpoints:
        if endpoint.egress is not None:
            chain(egress_chain(endpoint), _egress(endpoint))
    chain("too_many_flows", _too_many_flows(plan))
    chain("from_clients", _from_clients(plan))
    chain("to_clients", _to_clients(plan))
    chain("clients_to_host", _clients_to_host(plan))
    base_chain("spoofing", "prerouting", -300, _spoofing(plan), "filter")
    base_chain("forward", "forward", 0, _forward(plan, opened), "filter")
    base_chain("input", "input", 0, _from_tuns(plan, "clients_to_host"), "filter")
    base_chain("output", "output", 0, _output(plan), "filter")
    base_chain("source_nat", "postrouting", 100, _source_nat(plan), "nat")
    return {"nftables": commands}


def render_removal() -> dict[str, Any]:
    return {"nftables": _removal()}


def _removal() -> list[dict[str, Any]]:
    # adding first makes the deletion right whether or not the table is there
    return [{verb: {"table": {"family": FAMILY, "name": TABLE}}} for verb in ("add", "delete")]


def _match(left: dict[str, Any], right: Any, op: str = "==") -> Statement:
    return {"match": {"op": op, "left": left, "right": right}}


def _meta(key: str, value: str | Iterable[str], op: str = "==") -> Statement:
    right: Any = value if isinstance(value, str) else {"set": sorted(value)}
    return _match({"meta": {"key": key}}, right, op)


def _address(side: str, network: IPNetwork, op: str = "==") -> Statement:
    """``side`` is saddr or daddr; a network of one address is matched as the address."""
    right: Any = str(network.network_address)
    if network.num_addresses > 1:
        right = {"prefix": {"addr": right, "len": network.prefixlen}}
    return _match({"payload": {"protocol": "ip" if network.version == 4 else "ip6", "field": side}}, right, op)


def _payload(protocol: str, field: str, value: Any) -> Statement:
    return _match({"payload": {"protocol": protocol, "field": field}}, value)


def _state(*states: str) -> Statement:
    return _match({"ct": {"key": "state"}}, list(states), "in")


def _jump(chain: str) -> Statement:
    return {"jump": {"target": chain}}


def _tuns(plan: HostPlan) -> list[str]:
    return [endpoint.tun for endpoint in plan.endpoints]


def _from_tuns(plan: HostPlan, chain: str) -> list[list[Statement]]:
    return [[_meta("iifname", _tuns(plan)), _jump(chain)]] if plan.endpoints else []


def _spoofing(plan: HostPlan) -> list[list[Statement]]:
    rules: list[list[Statement]] = []
    for endpoint in plan.endpoints:
        nat = endpoint.nat_by_interface()
        # Behind NAT replies are addressed to the gateway. Whoever writes to a client's address itself is a routed
        # target network, or somebody probing for a client (CVE-2019-14899).
        may_address_clients = {endpoint.tun, "lo", *(name for name, translated in nat.items() if not translated)}
        for cidr in endpoint.client_cidrs:
            rules.append([_meta("iifname", {endpoint.tun, "lo"}, "!="), _address("saddr", cidr), COUNT, DROP])
            rules.append([_meta("iifname", may_address_clients, "!="), _address("daddr", cidr), COUNT, DROP])
            # the data plane checks each packet against its lease; this holds should it ever not
            rules.append([_meta("iifname", endpoint.tun), _address("saddr", cidr, "!="), COUNT, DROP])
        if endpoint.client_cidr_v6 is None:
            rules.append([_meta("iifname", endpoint.tun), _meta("nfproto", "ipv6"), COUNT, DROP])
    return rules


def _forward(plan: HostPlan, opened: Opened) -> list[list[Statement]]:
    if not plan.endpoints:
        return []
    rules = _from_tuns(plan, "from_clients")
    rules.append([_meta("oifname", _tuns(plan)), _jump("to_clients")])
    # Forwarding is on for these interfaces only because clients need it: keep everybody else out, as before
    for family, interfaces in (("ipv4", opened.ipv4), ("ipv6", opened.ipv6)):
        for name in sorted(interfaces):
            rules.append([_meta("nfproto", family), _meta("iifname", name), _meta("oifname", name, "!="), COUNT, DROP])
    if opened.ipv6_everywhere:
        rules.append([_meta("nfproto", "ipv6"), COUNT, DROP])
    return rules


def _replies() -> list[list[Statement]]:
    return [[_state("established", "related"), ACCEPT], [_state("invalid"), COUNT, DROP]]


def _too_many_flows(plan: HostPlan) -> list[list[Statement]]:
    """Of one client, which could else fill the table of all. What is tracked already goes on.

    For a new one the kernel looks through those that the client has: measured (Linux 6.18) it takes 6 us more where
    they are 4,000, 30 us where they are 8,000, next to nothing where they are 1,000. Packets of what is tracked never
    come here. When the table is replaced, counting begins anew. A ``meter``: in JSON nft 1.0.6 knows no dynamic set."""
    rules: list[list[Statement]] = []
    for endpoint in plan.endpoints:
        for cidr in endpoint.client_cidrs if endpoint.flows_per_client else ():
            protocol = "ip" if cidr.version == 4 else "ip6"
            meter = {
                "name": f"flows_{endpoint.tun}_{protocol}",
                "key": {"payload": {"protocol": protocol, "field": "saddr"}},
                "size": endpoint.client_cidr.num_addresses,
                "stmt": {"ct count": {"val": endpoint.flows_per_client, "inv": True}},
            }
            refused = {"counter": refused_flows_counter(endpoint)}
            rules.append([_meta("iifname", endpoint.tun), {"meter": meter}, refused, DROP])
    return rules


def _from_clients(plan: HostPlan) -> list[list[Statement]]:
    rules = [*_replies(), [_jump("too_many_flows")]]
    for endpoint in plan.endpoints:
        from_tun = _meta("iifname", endpoint.tun)
        if endpoint.client_to_client:
            rules.append([from_tun, _meta("oifname", endpoint.tun), ACCEPT])
        if targets := set(endpoint.nat_by_interface()):  # another endpoint's TUN is never among these
            allowed = ACCEPT if endpoint.egress is None else _jump(egress_chain(endpoint))
            rules.append([from_tun, _meta("oifname", targets), allowed])
    return [*rules, [COUNT, DROP]]


def egress_chain(endpoint: EndpointPlan) -> str:
    return f"egress_{endpoint.tun}"


def denied_counter(endpoint: EndpointPlan) -> str:
    return f"denied_{endpoint.tun}"


def refused_flows_counter(endpoint: EndpointPlan) -> str:
    return f"refused_flows_{endpoint.tun}"


def _counters(plan: HostPlan) -> dict[str, KeptBack]:
    """By name, and what each counts."""
    egress = {denied_counter(e): KeptBack(e.name, "security-groups") for e in plan.endpoints if e.egress is not None}
    flows = {refused_flows_counter(e): KeptBack(e.name, "flows") for e in plan.endpoints if e.flows_per_client}
    return egress | flows


def _egress(endpoint: EndpointPlan) -> list[list[Statement]]:
    """The endpoint's security groups. Replies have been let through before."""
    rules: list[list[Statement]] = []
    for allowed in endpoint.egress or ():
        matches = [_address("daddr", allowed.network)] if allowed.network.prefixlen else [_family(allowed.network)]
        if allowed.ports is not None:
            first, last = allowed.ports
            matches.append(_payload(allowed.protocol, "dport", first if first == last else {"range": [first, last]}))
        elif allowed.protocol != "all":
            names = {"icmp": "icmp" if allowed.network.version == 4 else "ipv6-icmp"}
            matches.append(_meta("l4proto", names.get(allowed.protocol, allowed.protocol)))
        rules.append([*matches, ACCEPT])
    return [*rules, [{"counter": denied_counter(endpoint)}, DROP]]


def _family(network: IPNetwork) -> Statement:
    return _meta("nfproto", "ipv4" if network.version == 4 else "ipv6")


def _to_clients(plan: HostPlan) -> list[list[Statement]]:
    rules = _replies()
    for endpoint in plan.endpoints:
        nat = endpoint.nat_by_interface()
        if endpoint.allow_inbound and nat:
            rules.append([_meta("iifname", nat), _meta("oifname", endpoint.tun), ACCEPT])
    return [*rules, [COUNT, DROP]]


def _clients_to_host(plan: HostPlan) -> list[list[Statement]]:
    rules = [*_replies(), [_jump("too_many_flows")]]
    for endpoint in plan.endpoints:
        for address in endpoint.gateway_addresses:
            there = [_meta("iifname", endpoint.tun), _match(
                {"payload": {"protocol": "ip" if address.version == 4 else "ip6", "field": "daddr"}}, str(address)
            )]  # fmt: skip
            rules.append(
                [*there, _payload("icmp" if address.version == 4 else "icmpv6", "type", "echo-request"), ACCEPT]
            )
            if endpoint.dns:
                rules += [[*there, _payload(protocol, "dport", 53), ACCEPT] for protocol in ("udp", "tcp")]
    return [*rules, [COUNT, DROP]]


def _output(plan: HostPlan) -> list[list[Statement]]:
    if not plan.endpoints:
        return []
    to_tuns = _meta("oifname", _tuns(plan))
    return [
        [to_tuns, _payload("icmp", "type", "redirect"), DROP],
        [to_tuns, _payload("icmpv6", "type", "nd-redirect"), DROP],
    ]


def _source_nat(plan: HostPlan) -> list[list[Statement]]:
    low, high = nat_ports(plan.listening_ports)
    rules: list[list[Statement]] = []
    for endpoint in plan.endpoints:
        interfaces = [name for name, translated in endpoint.nat_by_interface().items() if translated]
        for cidr in endpoint.client_cidrs if interfaces else ():
            leaving = [_address("saddr", cidr), _meta("oifname", interfaces)]
            ports = {"masquerade": {"port": {"range": [low, high]}}}
            rules.append([*leaving, _meta("l4proto", {"tcp", "udp"}), COUNT, ports])
            rules.append([*leaving, COUNT, {"masquerade": None}])  # what has no ports, ICMP above all
    return rules


def nat_ports(listening: Iterable[int]) -> tuple[int, int]:
    """The widest range of unprivileged ports without any of ours.

    Were a client's source port 1194 kept, the gateway's own port 1194 would lead to that client for one peer.
    """
    edges = sorted({FIRST_NAT_PORT - 1, *(port for port in listening if port >= FIRST_NAT_PORT), LAST_PORT + 1})
    ranges = [(low + 1, high - 1) for low, high in itertools.pairwise(edges)]
    return max(ranges, key=lambda ends: ends[1] - ends[0])


# -- the kernel --------------------------------------------------------------------------------------------


async def put(batch: dict[str, Any]) -> int:
    """Put what was rendered in place, or in the place of what is there. All or nothing. Returns the netlink port by
    which the kernel calls who has done it: libmnl's sockets have the number of the process."""
    try:
        _, process = await nft.run(json.dumps(batch), "-j", "-f", "-")
    except nft.NftHangsError:
        raise
    except HostError as error:
        raise await kernel_parts.explain(error) from error
    return process


async def remove() -> None:
    """Remove the table, if it is there."""
    await put(render_removal())


async def kept_back(plan: HostPlan) -> dict[KeptBack, int]:
    """Packets that were kept back since the table was last put in place."""
    names = _counters(plan)
    if not names:
        return {}
    listing = await nft.listed("list", "counters", "table", FAMILY, TABLE)
    counters = (entry["counter"] for entry in listing if "counter" in entry)
    return {names[each["name"]]: each["packets"] for each in counters if each["name"] in names}


async def ruleset() -> list[dict[str, Any]]:
    """All tables of this host, without what is in their sets."""
    return await nft.listed("-t", "list", "ruleset")


async def is_there() -> bool:
    """Whether the table is. (Not as JSON: nft 1.0.6 crashes as it writes the flags of a dormant one.)"""
    return f"table {FAMILY} {TABLE}" in (await nft.run("", "list", "tables", FAMILY))[0].splitlines()


_OUR_NAME = struct.pack("=HH", 4 + len(TABLE) + 1, NFTA_TABLE_NAME) + TABLE.encode() + b"\0"
"""As an attribute, with its length: not the end of another name."""


def note(by: set[int], notice: bytes) -> bool:
    """Adds to ``by`` whose messages, by netlink port, changed our table or anything in it; whether there was one. One
    datagram holds several (nlmsghdr, nfgenmsg, attributes with the table's name)."""
    found = False
    while len(notice) >= _NETLINK_HEADER.size:
        length, kind, port = _NETLINK_HEADER.unpack_from(notice)
        if kind >> 8 == NFNL_SUBSYS_NFTABLES and _OUR_NAME in notice[:length]:
            by.add(port)
            found = True
        notice = notice[max(_NETLINK_HEADER.size, (length + 3) & ~3) :]
    return found
