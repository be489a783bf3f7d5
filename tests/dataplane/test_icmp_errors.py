"""ICMP errors of a client are about what went to itself. A host that is told of another client's packets would believe
it of the connection that is quoted, and the kernel's connection tracking takes the error for a part of that."""

from __future__ import annotations

import pytest
from helpers.packets import ICMP, icmp, icmp_echo, ip, udp
from helpers.plane import TARGET, TARGET_V6, Client, Gateway

ERRORS = {4: (3, 4, 5, 11, 12), 6: (0, 1, 2, 3, 4, 127)}
ANOTHER = {4: "10.100.0.3", 6: "fd64::3"}
PADDING, ATOMIC, FIRST_OF_MANY = (60, b"\1\4\0\0\0\0"), (44, b"\0\0abcd"), (44, b"\0\1abcd")
"""Extension headers, without what says which one follows."""


def behind(packet: bytes, *extensions: tuple[int, bytes]) -> bytes:
    """The same IPv6 packet with extension headers."""
    protocol, carried = packet[6], packet[40:]
    for kind, content in reversed(extensions):
        protocol, carried = kind, bytes([protocol, 0]) + content + carried
    return ip(packet[8:24], packet[24:40], protocol, carried)


def ends(client: Client, version: int) -> tuple[str, str]:
    return (client.address, TARGET) if version == 4 else (client.address_v6, TARGET_V6)


def error(client: Client, version: int, quoted: bytes, kind: int | None = None) -> bytes:
    return icmp(*ends(client, version), ERRORS[version][-1] if kind is None else kind, 0, bytes(4) + quoted)


@pytest.mark.parametrize("version", [4, 6])
def test_what_went_to_another_client_or_to_nobody_is_a_bad_source(gateway: Gateway, version: int) -> None:
    client = gateway.client()
    here, there = ends(client, version)
    about_another = udp(there, ANOTHER[version], bytes(8))
    lies = [error(client, version, about_another, kind) for kind in ERRORS[version]]
    quotes = [b"", udp(there, here)[: 19 if version == 4 else 39], udp(*reversed(ends(client, 10 - version)))]
    lies += [error(client, version, quoted) for quoted in quotes]
    if version == 4:  # quoted in the piece that comes behind
        lies.append(ip(here, there, ICMP, lies[0][20:44], fragment=0x2000))
    else:
        lies += [behind(lies[0], *by) for by in ([PADDING], [PADDING, ATOMIC], [FIRST_OF_MANY], [ATOMIC, PADDING])]
        lies.append(error(client, 6, udp(there, f"::ffff:{client.address}", bytes(8))))
    with gateway.dropping(bad_source=len(lies)):
        for packet in lies:
            client.send(packet)
    assert gateway.barrier() == []


@pytest.mark.parametrize("version", [4, 6])
def test_what_went_to_the_client_itself_passes_as_does_all_that_is_no_error(gateway: Gateway, version: int) -> None:
    client = gateway.client()
    here, there = ends(client, version)
    passing = [error(client, version, udp(there, here, bytes(8)), kind) for kind in ERRORS[version]]
    passing.append(icmp_echo(here, there, udp(there, ANOTHER[version])))
    if version == 6:
        passing += [behind(passing[0], PADDING), behind(passing[0], PADDING, ATOMIC)]
    for packet in passing:
        client.send(packet)
        assert gateway.delivered() == packet
    assert gateway.drops() == {}
