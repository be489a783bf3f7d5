"""Firewalls: our own table, and others that keep clients out or drop what they send."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from cvpnd.doctor.facts import Facts
from cvpnd.doctor.findings import Finding, problem, warning
from cvpnd.doctor.host import listeners, program
from cvpnd.host import firewall, foreign, kernel_parts, tracked
from cvpnd.host.errors import HostError

LEGACY_TABLES = {"ip": "ip_tables_names", "ip6": "ip6_tables_names"}
"""In /proc/net: what iptables-legacy has made."""
BEFORE_ANY = ("cvpn0",)
"""The first device that a daemon will have."""


def firewalls(facts: Facts) -> Iterator[Finding]:
    if program("nft") is None:
        return
    try:
        entries = asyncio.run(firewall.ruleset())
    except (HostError, OSError, ValueError) as error:
        yield warning("firewall", f"nftables cannot be read: {error}", "run cvpnctl doctor as root")
        return
    if facts.daemon is not None and not _has_our_table(entries):
        yield problem(
            "firewall", "cvpnd's own nftables table is gone: nothing is translated, and nothing keeps clients apart",
            "somebody removed it and cvpnd could not put it back, its log says why; systemctl reload cvpnd",
        )  # fmt: skip
    legacy: list[foreign.Entry] = []
    yield from _read_legacy(legacy)
    ruleset = foreign.Ruleset([*entries, *legacy])
    for drop in foreign.forward_drops(ruleset, _forwarded(facts)):
        yield problem("firewall", drop.text, drop.fix)
    yield from _closed_ports(facts, ruleset)


def kernel(facts: Facts) -> Iterator[Finding]:
    """What the daemon needs of it, on this host. A kernel loads what it has when it is asked."""
    if program("nft") is None:
        return
    limits = facts.config is None or any(endpoint.limits.flows_per_client for endpoint in facts.config.endpoints)
    modules = asyncio.run(kernel_parts.missing())
    if not tracked.is_there():
        modules.append(tracked.MODULE)
    for module in modules:
        if limits or module != "nft_connlimit":
            yield problem("kernel", kernel_parts.lack(module), kernel_parts.fix(module))


def _forwarded(facts: Facts) -> Iterator[foreign.Packet]:
    """What clients send to the endpoints' subnets."""
    if facts.config is None:
        return
    devices = tuple(sorted(facts.devices)) or BEFORE_ANY
    for endpoint in facts.config.endpoints:
        for subnet in (facts.config.subnet(chosen.subnet) for chosen in endpoint.associate):
            yield foreign.Packet(devices, (subnet.interface,), endpoint.client_cidr, subnet.cidr)
            if endpoint.client_cidr_v6 is not None and subnet.cidr_v6 is not None:
                yield foreign.Packet(devices, (subnet.interface,), endpoint.client_cidr_v6, subnet.cidr_v6)


def _has_our_table(entries: list[dict[str, dict[str, str]]]) -> bool:
    tables = [entry["table"] for entry in entries if "table" in entry]
    return any((table["family"], table["name"]) == (firewall.FAMILY, firewall.TABLE) for table in tables)


def _read_legacy(found: list[foreign.Entry]) -> Iterator[Finding]:
    """Adds to ``found``. The kernel is asked first: the program itself would make the table."""
    for family, tables in LEGACY_TABLES.items():
        try:
            there = (Path("/proc/net") / tables).read_text().split()
        except OSError:
            continue
        if "filter" not in there:
            continue
        name = "iptables-legacy" if family == "ip" else "ip6tables-legacy"
        path = program(name)
        if path is None:
            yield warning("firewall", f"{name} has rules here and is not installed, so that they cannot be read",
                          "apt-get install iptables")  # fmt: skip
            continue
        done = subprocess.run([path, "-S"], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            yield warning("firewall", f"{name}: {done.stderr.strip()}", f"{name} -S")
        found += foreign.legacy_entries(family, done.stdout)


def _closed_ports(facts: Facts, ruleset: foreign.Ruleset) -> Iterator[Finding]:
    """Where clients do not get in, or no answer gets out to them. Warnings where a rule may let everybody in whom we
    know nothing of."""
    outside = [link.name for link in facts.links if link.name != "lo" and link.name not in facts.devices]
    for endpoint, listen in listeners(facts.config):
        anywhere = ip_network("::/0" if ":" in listen.host else "0.0.0.0/0")
        port, of = f"{listen.transport} port {listen.port}", f"clients of endpoint {endpoint.name}"
        comes = foreign.Packet(outside, source=anywhere, transport=listen.transport, port=listen.port)
        yield from _given_away(ruleset, comes, port, of)
        for chain in _dropping(ruleset, ("prerouting", "input"), comes):
            yield warning(
                "firewall",
                f"{_named(chain)}, drops what comes to {port} and no rule there lets in: {of} may not get in",
                foreign.port_fix(ruleset.manager(chain), chain, comes),
            )
        answer = foreign.Packet((), outside, destination=anywhere, transport=listen.transport, state="established")
        for chain in _dropping(ruleset, ("output", "postrouting"), answer):
            yield warning(
                "firewall", f"{_named(chain)}, drops what it does not know, also answers over {listen.transport}: {of} "
                "may hear nothing",
                foreign.answers_fix(ruleset.manager(chain), chain),
            )  # fmt: skip


def _given_away(ruleset: foreign.Ruleset, comes: foreign.Packet, port: str, of: str) -> Iterator[Finding]:
    """By one interface at a time: rules say which, as a proxy's for one network, or which not, as Docker's."""
    by_chain: dict[str, tuple[foreign.Entry, list[str]]] = {}
    for name in comes.comes_by:
        for chain, _ in ruleset.redirecting([replace(comes, comes_by=(name,))]):
            by_chain.setdefault(_named(chain), (chain, []))[1].append(name)
    for chain, names in by_chain.values():
        everywhere = len(names) == len(comes.comes_by)
        told, by, there = (problem, "", "") if everywhere else (warning, f" by {', '.join(names)}", " there")
        yield told(
            "firewall",
            f"{_named(chain)}, gives what comes to {port}{by} to somebody else: {of} do not get in{there}",
            f"nft list chain {chain['family']} {chain['table']} {chain['name']} shows to whom, such as a container "
            "that publishes this port; take another there or in listen = […]",
        )


def _dropping(
    ruleset: foreign.Ruleset, hooks: tuple[foreign.Hook, ...], packet: foreign.Packet
) -> Iterator[foreign.Entry]:
    for hook in hooks:
        for chain, _ in ruleset.dropping(hook, [packet]):
            yield chain


def _named(chain: foreign.Entry) -> str:
    return f"table {chain['family']} {chain['table']}, chain {chain['name']}"
