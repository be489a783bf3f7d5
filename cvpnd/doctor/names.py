"""Names: those in profiles, and the resolvers that clients are told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from cvpnd.doctor.facts import Facts
from cvpnd.doctor.findings import Finding, problem, warning

PATIENCE_S = 2.0
QUESTION = bytes.fromhex("0100000100000000000000000200 01".replace(" ", ""))
"""RFC 1035: recursion desired, one question: the root's name servers."""


def names(facts: Facts) -> Iterator[Finding]:
    """The names in profiles."""
    for endpoint in () if facts.config is None else facts.config.endpoints:
        if endpoint.remote is None or _is_address(endpoint.remote):
            continue
        found = _resolve(endpoint.remote)
        if not found:
            yield problem(
                "dns", f"endpoint {endpoint.name}: its remote {endpoint.remote} has no address: profiles lead nowhere",
                "add the name to your DNS, or correct remote = …",
            )  # fmt: skip
        elif not found & facts.own_addresses:
            shown = ", ".join(sorted(map(str, found)))
            yield warning(
                "dns", f"endpoint {endpoint.name}: its remote {endpoint.remote} leads to {shown}, not to this host",
                "right if a router passes its ports on to here; else correct the name",
            )  # fmt: skip


def resolvers(facts: Facts) -> Iterator[Finding]:
    """Asked from here, where clients' questions come from too."""
    for endpoint in () if facts.config is None else facts.config.endpoints:
        for address in endpoint.dns_servers:
            if address not in facts.own_addresses and not _answers_dns(address):
                yield problem(
                    "dns", f"endpoint {endpoint.name}: resolver {address}, which clients are told, does not answer",
                    "correct dns_servers, or start it; dig @" + str(address) + " tries it",
                )  # fmt: skip


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _resolve(name: str) -> set[IPv4Address | IPv6Address]:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except OSError:
        return set()
    return {ip_address(answer[4][0]) for answer in answers}


def _answers_dns(address: IPv4Address | IPv6Address) -> bool:
    number = os.urandom(2)
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        asking.settimeout(PATIENCE_S)
        try:
            asking.connect((str(address), 53))
            asking.send(number + QUESTION)
            return asking.recv(4096)[:2] == number
        except OSError:
            return False
