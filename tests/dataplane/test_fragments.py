"""Fragments that clients send go on when their packet is whole, all of them together, and not before."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from helpers.packets import (
    AUTHENTICATION,
    DESTINATION_OPTIONS,
    FRAGMENT,
    HOP_BY_HOP,
    ICMPV6,
    ROUTING,
    TCP,
    UDP,
    fragment,
    ip,
    udp,
)
from helpers.plane import TARGET, TARGET_V6, Client, Gateway

from cvpnd.dataplane.api import Drop
from cvpnd.dataplane.reference_fragments import (
    NONE,
    UNFINISHED_BYTES_OF_ALL,
    UNFINISHED_S,
    Place,
    Unfinished,
    most_of_peer,
)

UNFINISHED_PACKETS = 32
UNFINISHED_BYTES = 256 << 10
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def ends_of(client: Client, version: int) -> tuple[str, str]:
    return (client.address, TARGET) if version == 4 else (client.address_v6, TARGET_V6)


def fragments_of(client: Client, version: int, ends: list[int], identification: int = 1) -> list[bytes]:
    """A packet's, each up to one of these bytes of it."""
    source, target = ends_of(client, version)
    return [
        fragment(source, target, UDP, bytes([start % 251]) * (end - start), start, end < ends[-1], identification)
        for start, end in zip([0, *ends], ends, strict=False)
    ]


@VERSIONS
def test_fragments_go_on_when_none_is_missing(gateway: Gateway, version: int) -> None:
    client = gateway.client()
    fragments = fragments_of(client, version, [1200, 2400, 3000])
    for each in fragments[:2]:
        client.send(each)
    assert gateway.barrier() == []
    client.send(fragments[2])
    assert gateway.barrier() == fragments
    assert gateway.drops() == Counter()


@VERSIONS
def test_in_any_order(gateway: Gateway, version: int) -> None:
    client, rng = gateway.client(), random.Random(version)
    for identification in range(20):
        fragments = fragments_of(client, version, [8, 64, 800, 808, 1600, 1601], identification)
        for each in rng.sample(fragments, len(fragments)):
            client.send(each)
        assert gateway.barrier() == fragments
    assert gateway.drops() == Counter()


@VERSIONS
def test_the_longest_packet_in_the_fragments_of_a_link_of_576(gateway: Gateway, version: int) -> None:
    client = gateway.client()
    fragments = fragments_of(client, version, [*range(552, 65500, 552), 65500])
    for each in fragments:
        client.send(each)
    assert gateway.barrier() == fragments


def test_packets_are_told_apart(gateway: Gateway) -> None:
    """By addresses, protocol and identification, and the fragments of many may come mixed."""
    client, other = gateway.client(), gateway.client(2, ("10.100.0.3", "fd64::3"))
    mixed = [
        fragments_of(client, version, [800, 1000], identification) for version in (4, 6) for identification in (1, 2)
    ]
    mixed += [
        [fragment(client.address, TARGET, protocol, bytes(8), at, not at, 1) for at in (0, 8)] for protocol in (1, 6)
    ]
    mixed += [[fragment(client.address, "10.20.0.8", UDP, bytes(8), at, not at, 1) for at in (0, 8)]]
    others = fragments_of(other, 4, [800, 1000])
    for first, _ in mixed:
        client.send(first)
    other.send(others[0])
    assert gateway.barrier() == []
    for fragments in mixed:
        client.send(fragments[1])
        assert gateway.barrier() == fragments
    other.send(others[1])
    assert gateway.barrier() == others


@VERSIONS
def test_a_last_fragment_does_not_hide_a_hole(gateway: Gateway, version: int) -> None:
    """Nor does one that comes twice fill it."""
    client = gateway.client()
    first, middle, last = fragments_of(client, version, [800, 1600, 2400])
    for each in (first, last, last, first, first):
        client.send(each)
    assert gateway.barrier() == []
    for each in (last, middle):
        client.send(each)
    assert gateway.barrier() == [first, middle, last]


@VERSIONS
@pytest.mark.parametrize(
    ("start", "end", "more"), [(792, 1600, True), (0, 800, True), (0, 8, True), (800, 1608, True), (1600, 1700, False)]
)
def test_what_contradicts_what_is_there_begins_anew(
    gateway: Gateway, version: int, start: int, end: int, more: bool
) -> None:
    """As when an identification comes round again after a loss. The kernel never sees an overlap (RFC 5722)."""
    client = gateway.client()
    first, _, last = fragments_of(client, version, [800, 1600, 1601])
    for each in (first, last):
        client.send(each)
    source, target = ends_of(client, version)
    client.send(fragment(source, target, UDP, bytes(end - start), start, more, 1))
    assert gateway.barrier() == []
    assert gateway.drops() == Counter({Drop.INCOMPLETE: 2})


def test_fragments_of_the_next_packet_with_that_identification_make_it_whole(gateway: Gateway) -> None:
    client = gateway.client()
    lost, again = fragments_of(client, 4, [800, 1600, 2400]), fragments_of(client, 4, [1200, 2000])
    for each in (lost[0], lost[1], *again):
        client.send(each)
    assert gateway.barrier() == again
    assert gateway.drops() == Counter({Drop.INCOMPLETE: 2})


def test_what_no_packet_can_be_made_of_is_dropped(gateway: Gateway) -> None:
    client = gateway.client()
    v4, v6 = ends_of(client, 4), ends_of(client, 6)
    head = bytes([UDP, 0, 0, 1]) + bytes(4)  # of a first fragment
    for packet in (
        fragment(*v4, UDP, bytes(9), 0, True, 1),
        fragment(*v4, UDP, b"", 8, False, 1),
        fragment(*v4, UDP, b"", 0, True, 1),
        fragment(*v4, UDP, bytes(8), 65528, False, 1),
        fragment(*v4, UDP, bytes(32), 65496, True, 1),
        fragment(*v6, UDP, bytes(9), 0, True, 1),
        fragment(*v6, UDP, b"", 8, False, 1),
        fragment(*v6, UDP, bytes(16), 65520, False, 1),
        ip(*v6, FRAGMENT, head[:7]),
        ip(*v6, FRAGMENT, head + b""),
        ip(*v6, FRAGMENT, bytes([FRAGMENT]) + head[1:] + head + bytes(8)),
        ip(*v6, FRAGMENT, bytes([ROUTING]) + head[1:] + bytes([FRAGMENT, 0]) + bytes(6) + head + bytes(8)),
        ip(*v6, FRAGMENT, bytes([HOP_BY_HOP]) + head[1:] + bytes([UDP, 1]) + bytes(6)),
    ):
        with gateway.dropping(bad_fragment=1):
            client.send(packet)
    assert gateway.barrier() == []


def test_what_the_kernel_would_not_let_wait_is_dropped(gateway: Gateway) -> None:
    """Else the rest of its packet would wait there without it."""
    client = gateway.client()
    v6 = ends_of(client, 6)
    last, last_v6 = fragments_of(client, 4, [8, 16])[1], fragments_of(client, 6, [8, 16])[1]
    atomic = bytes([FRAGMENT]) + bytes(7)
    for packet in (
        last[:10] + bytes([last[10] ^ 1]) + last[11:],
        last[:10] + bytes(2) + last[12:],
        ip(*v6, HOP_BY_HOP, bytes([FRAGMENT, 0, 1, 4]) + bytes(4) + last_v6[40:]),
        ip(*v6, HOP_BY_HOP, bytes([ROUTING, 0, 1, 4]) + bytes(4) + bytes([FRAGMENT]) + bytes(7) + last_v6[40:]),
        ip(*v6, FRAGMENT, atomic + last_v6[40:]),
        ip(*v6, FRAGMENT, atomic + bytes([UDP]) + bytes(15)),
        ip(*v6, FRAGMENT, bytes([ROUTING]) + bytes(7) + atomic + last_v6[40:]),
        ip(*v6, FRAGMENT, bytes([NONE]) + bytes(7)),  # an empty queue would stay
        ip(*v6, FRAGMENT, bytes([UDP]) + bytes(7)),
    ):
        with gateway.dropping(bad_fragment=1):
            client.send(packet)
    assert gateway.barrier() == []


@pytest.mark.parametrize(("protocol", "least"), [(TCP, 20), (UDP, 8), (ICMPV6, 8), (132, 1)])
def test_a_first_fragment_holds_the_header_that_ports_are_in(gateway: Gateway, protocol: int, least: int) -> None:
    client = gateway.client()
    source, target = ends_of(client, 6)
    options = bytes([protocol, 0, 1, 4]) + bytes(4)
    for number, carried in enumerate(range(0, 32, 8)):
        content = bytes([128]) * carried  # of ICMPv6, no error
        parts = [
            fragment(source, target, DESTINATION_OPTIONS, options + content, 0, True, number),
            fragment(source, target, DESTINATION_OPTIONS, bytes(8), 8 + carried, False, number),
        ]
        with gateway.dropping(**({"bad_fragment": 1} if carried < least else {})):
            client.send(parts[0])
            client.send(parts[1])
        assert gateway.barrier() == (parts if carried >= least else [])


def test_nothing_need_be_behind_the_headers_of_a_first_fragment_that_names_none(gateway: Gateway) -> None:
    client = gateway.client()
    source, target = ends_of(client, 6)
    options = bytes([NONE, 0, 1, 4]) + bytes(4)
    parts = [fragment(source, target, DESTINATION_OPTIONS, options, at, at == 0, 1) for at in (0, 8)]
    for part in parts:
        client.send(part)
    assert gateway.barrier() == parts


def test_a_fragment_is_found_behind_other_headers(gateway: Gateway) -> None:
    client = gateway.client()
    source, target = ends_of(client, 6)
    for number, kind in enumerate((ROUTING, DESTINATION_OPTIONS, AUTHENTICATION)):
        size = 16
        before = bytes([FRAGMENT, 2 if kind == AUTHENTICATION else 1]) + bytes(size - 2)
        parts = [
            ip(source, target, kind, before + fragment(source, target, UDP, bytes(8), at, at == 0, number)[40:])
            for at in (0, 8)
        ]
        client.send(parts[0])
        assert gateway.barrier() == [], kind
        client.send(parts[1])
        assert gateway.barrier() == parts


def test_what_is_no_fragment_does_not_wait(gateway: Gateway) -> None:
    client = gateway.client()
    v4, v6 = ends_of(client, 4), ends_of(client, 6)
    whole = udp(*v6, b"whole")
    atomic = ip(*v6, FRAGMENT, bytes([UDP]) + bytes(7) + whole[40:])  # RFC 6946
    for packet in (
        udp(*v4, b"may not be fragmented", fragment=0x4000),
        udp(*v4, b"reserved", fragment=0x8000),
        atomic,
        ip(*v6, HOP_BY_HOP, bytes([UDP, 0, 1, 4, 0, 0, 0, 0]) + whole[40:]),
        ip(*v6, HOP_BY_HOP, bytes([FRAGMENT, 9]) + bytes(30)),  # ends within its headers
    ):
        client.send(packet)
        assert gateway.delivered() == packet


def test_of_too_many_unfinished_ones_the_oldest_is_given_up(gateway: Gateway) -> None:
    client = gateway.client()
    packets = [fragments_of(client, 4, [800, 1600, 1700], number) for number in range(UNFINISHED_PACKETS + 1)]
    for first, middle, _ in packets:
        client.send(first)
        client.send(middle)
    assert gateway.barrier() == []
    assert gateway.drops() == Counter({Drop.INCOMPLETE: 2})
    client.send(packets[0][2])  # alone now, it makes the next oldest one go
    assert gateway.barrier() == []
    assert gateway.drops() == Counter({Drop.INCOMPLETE: 4})
    for fragments in packets[2:]:
        client.send(fragments[2])
        assert gateway.barrier() == fragments


def test_of_too_many_bytes_the_oldest_is_given_up(gateway: Gateway) -> None:
    client = gateway.client()
    long = [fragments_of(client, 4, [*range(1400, 65000, 1400), 65000], number) for number in range(4)]
    for fragments in long:
        for each in fragments[:-1]:
            client.send(each)
    assert gateway.barrier() == []
    assert gateway.drops() == Counter({Drop.INCOMPLETE: len(long[0]) - 1})
    for fragments in long[1:]:
        client.send(fragments[-1])
        assert gateway.barrier() == fragments


def test_one_client_s_fragments_leave_another_s_alone(gateway: Gateway) -> None:
    attacker, victim = gateway.client(), gateway.client(2, ("10.100.0.3", "fd64::3"))
    fragments = fragments_of(victim, 4, [1400, 2800, 4000])
    for each in fragments[:2]:
        victim.send(each)
    for number in range(600):
        attacker.send(fragments_of(attacker, 4, [1400, 2800], number)[0])
        if number % 100 == 0:
            assert gateway.barrier() == []
    victim.send(fragments[2])
    assert gateway.barrier() == fragments
    assert gateway.drops() == Counter({Drop.INCOMPLETE: 600 - UNFINISHED_PACKETS})


def test_a_removed_client_s_fragments_are_forgotten(gateway: Gateway) -> None:
    client = gateway.client()
    first, last = fragments_of(client, 4, [800, 1000])
    client.send(first)
    assert gateway.barrier() == []
    gateway.plane.remove_peer(client.peer_id)
    again = gateway.client()
    again.send(last)
    assert gateway.barrier() == []


def test_a_denied_fragment_makes_nothing_whole(gateway: Gateway) -> None:
    """Not when its packet began while there was a rule."""
    client = gateway.client()
    first, last = fragments_of(client, 4, [800, 1000])
    client.send(first)
    assert gateway.barrier() == []
    gateway.set_rules(1, {"10.21.0.0/16": 1})
    client.send(last)
    assert gateway.barrier() == []
    assert gateway.drops() == Counter({Drop.DENIED: 1})


def test_fragments_come_without_a_peer_id_too(gateway: Gateway) -> None:
    client = gateway.client(data_v1=True)
    fragments = fragments_of(client, 4, [1200, 2400, 3000])
    for each in fragments:
        client.send(each)
    assert [gateway.delivered() for _ in fragments] == fragments


def test_what_waits_for_too_long_is_given_up() -> None:
    drops: Counter[Drop] = Counter()
    unfinished = Unfinished(drops)
    key = (b"one",)
    assert unfinished.hold(Place(key, 0, 8, True), bytes(28), 100.0, UNFINISHED_BYTES) == []
    unfinished.expire(100.0 + UNFINISHED_S - 0.1)
    assert not drops
    late = Place(key, 8, 16, False)  # of another
    assert unfinished.hold(late, bytes(28), 100.0 + UNFINISHED_S, UNFINISHED_BYTES) == []
    assert drops == {Drop.INCOMPLETE: 1}
    unfinished.expire(100.0 + 2 * UNFINISHED_S)
    assert drops == {Drop.INCOMPLETE: 2}


def test_while_all_have_much_each_may_have_less() -> None:
    assert most_of_peer(UNFINISHED_BYTES_OF_ALL) == UNFINISHED_BYTES
    most = most_of_peer(UNFINISHED_BYTES_OF_ALL + 1)
    assert most == UNFINISHED_BYTES // 8
    drops: Counter[Drop] = Counter()
    unfinished = Unfinished(drops)
    for number in range(3):
        unfinished.hold(Place((bytes([number]),), 0, 12000, True), bytes(12020), 0.0, most)
    assert drops == {Drop.INCOMPLETE: 1}
    unfinished.hold(Place((b"long",), 0, 60000, True), bytes(60020), 0.0, most)
    assert drops == {Drop.INCOMPLETE: 4}
    assert unfinished.cost == 0
