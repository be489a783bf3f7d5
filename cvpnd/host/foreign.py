"""Other firewalls on this host, and which of them drop clients' packets: firewalld, ufw, Docker's, hand-made tables.

In nftables any chain of a hook can drop what all others accept, and iptables, legacy or not, sits in the same hooks. So
what their chains would do with the first packet of a connection is followed through their rules, as far as these are
understood: a condition that is not is taken as not met, so it may be said of a firewall that it drops what it does not.
"""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Literal

from cvpnd.host import firewall
from cvpnd.host.plan import HostPlan, IPNetwork

Entry = Mapping[str, Any]
"""One of ``nft -j list ruleset``."""

LEGACY = "legacy"
"""Ends the table's name, which nft has none for."""
EVERY_TUN, EVERY_TUN_IPTABLES = "cvpn*", "cvpn+"
_VERDICTS = ("accept", "drop", "reject", "return", "jump", "goto", "dnat", "redirect")
_XT_VERDICTS = {"REJECT": "reject", "DNAT": "dnat", "REDIRECT": "redirect"}
Hook = Literal["prerouting", "input", "forward", "output", "postrouting"]
_FORWARDED: tuple[Hook, ...] = ("prerouting", "forward", "postrouting")
"""What a packet passes that is for somebody else."""


@dataclass(frozen=True, slots=True)
class Packet:
    """That begins a connection, or an answer to one."""

    comes_by: Collection[str]
    """Interfaces, by one of them."""
    leaves_by: Collection[str] = ()
    source: IPNetwork | None = None
    """An address in it."""
    destination: IPNetwork | None = None
    transport: str = ""
    port: int = 0
    """Where it goes to; 0: anywhere."""
    state: Literal["new", "established"] = "new"

    def families(self) -> Collection[str]:
        network = self.source or self.destination
        if network is None:
            return ("ip", "ip6", "inet")
        return ("ip" if network.version == 4 else "ip6", "inet")


@dataclass(frozen=True, slots=True)
class ForeignDrop:
    text: str
    fix: str
    """A command."""


class Ruleset:
    def __init__(self, entries: Iterable[Entry]) -> None:
        """Of several tables."""
        self._chains: list[Entry] = []
        self._rules: dict[tuple[str, str, str], list[Entry]] = {}
        for entry in entries:
            if (chain := entry.get("chain")) is not None:
                self._chains.append(chain)
            elif (rule := entry.get("rule")) is not None:
                self._rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)

    def dropping(self, hook: Hook, packets: Iterable[Packet]) -> Iterator[tuple[Entry, Packet]]:
        """The chains there that are not ours and drop one of these, and the first that each drops."""
        return self._doing(("drop", "reject"), hook, packets)

    def redirecting(self, packets: Iterable[Packet]) -> Iterator[tuple[Entry, Packet]]:
        """The same of chains that give them to somebody else."""
        return self._doing(("dnat", "redirect"), "prerouting", packets)

    def _doing(
        self, verdicts: Collection[str], hook: Hook, packets: Iterable[Packet]
    ) -> Iterator[tuple[Entry, Packet]]:
        packets = list(packets)
        for chain in self._chains:
            if chain.get("hook") != hook or (chain["family"], chain["table"]) == (firewall.FAMILY, firewall.TABLE):
                continue
            meant = (
                each for each in packets if chain["family"] in each.families() and self._end(chain, each) in verdicts
            )
            if (first := next(meant, None)) is not None:
                yield chain, first

    def manager(self, chain: Entry) -> Literal["firewalld", "docker", "ufw", "iptables", "nft"]:
        """Whose table it is."""
        family, table = chain["family"], chain["table"]
        names = {each["name"] for each in self._chains if (each["family"], each["table"]) == (family, table)}
        if table == "firewalld":
            return "firewalld"
        if "DOCKER-USER" in names:
            return "docker"
        if any(name.startswith(("ufw-", "ufw6-")) for name in names):
            return "ufw"
        return "iptables" if chain["name"] in ("FORWARD", "INPUT", "OUTPUT") and family in ("ip", "ip6") else "nft"

    def _end(self, chain: Entry, packet: Packet) -> str | None:
        return self._verdict(chain["family"], chain["table"], chain["name"], packet) or chain.get("policy")

    def _verdict(self, family: str, table: str, name: str, packet: Packet) -> str | None:
        """None: the chain lets it go on where it came from. The kernel lets no chains go in circles."""
        for rule in self._rules.get((family, table, name), ()):
            for word, value in _outcome(rule["expr"], packet):
                if word in ("jump", "goto"):
                    there = self._verdict(family, table, value["target"], packet)
                    if there is not None or word == "goto":
                        return there
                else:
                    return None if word == "return" else word
        return None


def forward_drops(ruleset: Ruleset, packets: Iterable[Packet]) -> list[ForeignDrop]:
    """Others' chains that drop what clients send, and how to tell them otherwise."""
    packets = list(packets)
    return [
        ForeignDrop(
            f"table {chain['family']} {chain['table']}, chain {chain['name']}, drops forwarded packets, also those "
            f"from {', '.join(packet.comes_by)} to {', '.join(packet.leaves_by)}: clients do not reach what is there",
            _forward_fix(ruleset.manager(chain), chain),
        )
        for hook in _FORWARDED
        for chain, packet in ruleset.dropping(hook, packets)
    ]


def forwarded(plan: HostPlan) -> list[Packet]:
    """What clients send."""
    return [
        Packet((endpoint.tun,), (association.subnet.interface,), cidr, association.subnet.cidr)
        for endpoint in plan.endpoints
        for association in endpoint.associations
        for cidr in endpoint.client_cidrs
        if cidr.version == association.subnet.cidr.version
    ]


def port_fix(manager: str, chain: Entry, packet: Packet) -> str:
    """The command that lets clients in at a port of ours."""
    match manager:
        case "firewalld":
            return f"firewall-cmd --permanent --add-port={packet.port}/{packet.transport} && firewall-cmd --reload"
        case "ufw":
            return f"ufw allow {packet.port}/{packet.transport}"
        case "iptables" | "docker":
            insert = f"{_iptables(chain)} -I INPUT -p {packet.transport} --dport {packet.port} -j ACCEPT"
            return f"{insert}, for good where those rules are kept"
        case _:
            return (
                f"{_nft_insert(chain)} {packet.transport} dport {packet.port} accept, for good where that table is made"
            )


def answers_fix(manager: str, chain: Entry) -> str:
    """The command that lets answers out."""
    if manager in ("iptables", "docker", "ufw"):
        insert = f"{_iptables(chain)} -I OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"
        return f"{insert}, for good where those rules are kept"
    return f"{_nft_insert(chain)} ct state established accept, for good where that table is made"


def _forward_fix(manager: str, chain: Entry) -> str:
    match manager:
        case "firewalld":
            bind = f"firewall-cmd --permanent --zone=trusted --add-interface={EVERY_TUN_IPTABLES}"
            return f"{bind} && firewall-cmd --reload"
        case "ufw":
            return f"ufw route allow in on {EVERY_TUN_IPTABLES}"
        case "iptables" | "docker":
            insert = f"{_iptables(chain)} -I {'DOCKER-USER' if manager == 'docker' else 'FORWARD'}"
            there, back = f"{insert} -i {EVERY_TUN_IPTABLES} -j ACCEPT", f"{insert} -o {EVERY_TUN_IPTABLES} -j ACCEPT"
            return f"{there} && {back}, for good where those rules are kept"
        case _:
            there, back = (f"{_nft_insert(chain)} {way} '\"{EVERY_TUN}\"' accept" for way in ("iifname", "oifname"))
            wanted = there if chain["hook"] == "prerouting" else f"{there} && {back}"
            return f"{wanted}, for good where that table is made"


def _nft_insert(chain: Entry) -> str:
    return f"nft insert rule {chain['family']} {chain['table']} {chain['name']}"


def _iptables(chain: Entry) -> str:
    program = "iptables" if chain["family"] == "ip" else "ip6tables"
    return f"{program}-legacy" if chain["table"].endswith(LEGACY) else program


def _outcome(expressions: Sequence[Entry], packet: Packet) -> Iterator[tuple[str, Any]]:
    """The verdict of a rule, if it has one and all its conditions are met."""
    for each in expressions:
        match each:
            case {"match": condition}:
                met = _is_met(condition["left"], _values(condition["right"]), packet)
                if met is None or met == (condition["op"] == "!="):
                    return
            case {"xt": {"type": "target", "name": str(name)}} if name in _XT_VERDICTS:
                yield _XT_VERDICTS[name], None
            case {"xt": {"type": "match", "name": "addrtype"}} if packet.port:
                continue  # all that nft tells of it, and where it is asked of such packets, it is for LOCAL first
            case {"xt": {"type": "match", "name": "conntrack"}} if (
                packet.state == "established" and "accept" in expressions[-1]
            ):
                continue  # nft does not tell of which states, and those that are let through are established ones
            case {"counter": _} | {"log": _} | {"xt": {"type": "match", "name": "comment"}}:
                continue
            case _:
                word = next(iter(each))
                if word not in _VERDICTS:
                    return
                yield word, each[word]


def _is_met(left: Any, values: Sequence[Any], packet: Packet) -> bool | None:
    """None: it is not understood."""
    match left:
        case {"meta": {"key": "iifname" | "iif" | "oifname" | "oif" as key}}:
            names = packet.comes_by if key.startswith("i") else packet.leaves_by
            return any(fnmatch.fnmatchcase(name, str(value)) for name in names for value in values)
        case {"meta": {"key": "l4proto"}} | {"payload": {"field": "protocol" | "nexthdr"}} if packet.transport:
            return packet.transport in values
        case {"ct": {"key": "state"}}:
            return packet.state in values
        case {"payload": {"field": "saddr" | "daddr" as field}}:
            network = packet.source if field == "saddr" else packet.destination
            return network is not None and any(_within(network, value) for value in values)
        case {"payload": {"protocol": protocol, "field": "dport"}} if packet.port:
            return protocol in (packet.transport, "th") and any(_has(value, packet.port) for value in values)
    return None


def _values(right: Any) -> Sequence[Any]:
    match right:
        case {"set": list(values)} | list(values):
            return values
    return [right]


def _within(network: IPNetwork, value: Any) -> bool:
    match value:
        case {"prefix": {"addr": address, "len": length}}:
            value = f"{address}/{length}"
    try:
        around = ip_network(value)
    except (TypeError, ValueError):
        return False
    return around.version == network.version and network.subnet_of(around)  # type: ignore[arg-type]


def _has(value: Any, port: int) -> bool:
    match value:
        case {"range": [int(first), int(last)]}:
            return first <= port <= last
    return bool(value == port)


# -- iptables-legacy ----------------------------------------------------------------------------------------


def legacy_entries(family: str, saved: str) -> list[Entry]:
    """``iptables-legacy -S`` in nft's words, as far as they matter here."""
    entries: list[Entry] = []
    place = {"family": family, "table": f"filter-{LEGACY}"}
    for line in saved.splitlines():
        match shlex.split(line):
            case ["-P", name, policy]:
                hook = {"hook": name.lower(), "policy": policy.lower()}
                entries.append({"chain": {**place, "name": name, **hook}})
            case ["-N", name]:
                entries.append({"chain": {**place, "name": name}})
            case ["-A", name, *words]:
                entries.append({"rule": {**place, "chain": name, "expr": list(_legacy_rule(words))}})
    return entries


def _legacy_rule(words: Sequence[str]) -> Iterator[Entry]:
    rest = iter(words)
    for word in rest:
        if word == "!":
            word, op = next(rest, ""), "!="
        else:
            op = "=="
        value = next(rest, "")
        match word:
            case "-i" | "-o":
                key = "iifname" if word == "-i" else "oifname"
                yield _condition(op, {"meta": {"key": key}}, value.replace("+", "*"))
            case "-s" | "-d":
                field = "saddr" if word == "-s" else "daddr"
                yield _condition(op, {"payload": {"field": field}}, value)
            case "--dport":
                yield _condition(op, {"payload": {"protocol": "th", "field": "dport"}}, _legacy_port(value))
            case "-p":
                yield _condition(op, {"meta": {"key": "l4proto"}}, value)
            case "-m" | "--comment":
                continue  # what an extension is for is in its options
            case "--ctstate":
                yield _condition(op, {"ct": {"key": "state"}}, value.lower().split(","))
            case "--dst-type" if value == "LOCAL":
                yield {"xt": {"type": "match", "name": "addrtype"}}
            case "-j" if value in ("ACCEPT", "DROP", "REJECT", "RETURN", "LOG"):
                yield {value.lower(): None}
                return
            case "-j" | "-g":
                yield {"jump" if word == "-j" else "goto": {"target": value}}
                return
            case _:
                yield {"condition": [word, value]}


def _legacy_port(text: str) -> Any:
    first, _, last = text.partition(":")
    return {"range": [int(first), int(last)]} if last else int(first)


def _condition(op: str, left: Entry, right: Any) -> Entry:
    return {"match": {"op": op, "left": left, "right": right}}
