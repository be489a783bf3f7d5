"""Fragments that clients send wait until their packet is whole, and go on together: the specification of
``native/fragments.c``, which says what for.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field

from cvpnd.dataplane.api import Drop

UNFINISHED_PACKETS = 32
UNFINISHED_BYTES = 256 << 10
"""Of one peer, with what each fragment costs beside its own bytes."""
UNFINISHED_BYTES_CROWDED = UNFINISHED_BYTES // 8
UNFINISHED_BYTES_OF_ALL = 128 << 20
"""Of all peers; while they have more, one may have less."""
UNFINISHED_S = 30.0
FRAGMENT_COST = 64
FRAGMENTS_OF_PACKET = 128
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS})
"""Those that the kernel goes over in search of the one that makes a fragment."""
NONE, TCP, UDP, ICMPV6 = 59, 6, 17, 58
LEAST_BEHIND_HEADERS = {NONE: 0, TCP: 20, UDP: 8, ICMPV6: 8}
"""What the kernel wants to see before it lets a first fragment wait; of all else a byte."""

Key = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """What a fragment says of itself: which packet it belongs to, and what of it it carries."""

    key: Key
    offset: int
    end: int
    more: bool

    def is_possible(self, header: int) -> bool:
        """A part that is not the last has a length in units of eight; no packet is longer than its length field can
        say."""
        carried = self.end - self.offset
        return carried > 0 and self.end + header <= 0xFFFF and not (self.more and carried % 8)


def locate(packet: bytes) -> Place | Drop | None:
    """None: no fragment. Of a well-formed packet."""
    return _locate_v4(packet) if packet[0] >> 4 == 4 else _locate_v6(packet)


def _locate_v4(packet: bytes) -> Place | Drop | None:
    header, bits = (packet[0] & 15) * 4, int.from_bytes(packet[6:8], "big")
    if not bits & 0x3FFF:
        return None
    if sum(struct.unpack(f"!{header // 2}H", packet[:header])) % 0xFFFF:  # the checksum's; never zero
        return Drop.BAD_FRAGMENT
    offset = (bits & 0x1FFF) * 8
    key = (packet[12:20], packet[4:6], packet[9:10])
    place = Place(key, offset, offset + len(packet) - header, bool(bits & 0x2000))
    return place if place.is_possible(header) else Drop.BAD_FRAGMENT


def _locate_v6(packet: bytes) -> Place | Drop | None:
    header, at, atomic = packet[6], 40, False
    while header in EXTENSIONS:
        start, was = at, header
        if was == FRAGMENT and atomic:
            return Drop.BAD_FRAGMENT  # the kernel goes by the first one alone
        behind = _behind(packet, header, at)
        if behind is None:
            return Drop.BAD_FRAGMENT if was == FRAGMENT else None  # the kernel makes nothing of the latter
        header, at = behind
        if was != FRAGMENT:
            continue
        if at == len(packet):
            return Drop.BAD_FRAGMENT  # the kernel would keep an empty queue for it
        bits = int.from_bytes(packet[start + 2 : start + 4], "big")
        atomic = not bits & 0xFFF9  # RFC 6946: all of the packet is in this one
        if atomic:
            continue
        if packet[6] == HOP_BY_HOP:
            return Drop.BAD_FRAGMENT  # for its options, the kernel may drop one of several
        offset = bits & 0xFFF8
        place = Place((packet[8:40], packet[start + 4 : start + 8]), offset, offset + len(packet) - at, bool(bits & 1))
        if offset == 0 and not _headers_are_whole(packet, header, at):
            return Drop.BAD_FRAGMENT
        return place if place.is_possible(start - 40) else Drop.BAD_FRAGMENT
    return None


def _behind(packet: bytes, header: int, at: int) -> tuple[int, int] | None:
    """The next header and where it is; None when the packet ends before."""
    if len(packet) - at < 8:
        return None
    if header == FRAGMENT:
        size = 8
    elif header == AUTHENTICATION:
        size = (packet[at + 1] + 2) * 4
    else:
        size = (packet[at + 1] + 1) * 8
    return None if len(packet) - at < size else (packet[at], at + size)


def upper_layer(packet: bytes) -> tuple[int, int] | None:
    """The protocol behind the extension headers of an IPv6 packet, or of its first fragment, and where it begins; None
    when it is not in there."""
    header, at = packet[6], 40
    while header in EXTENSIONS:
        behind = _behind(packet, header, at)
        if behind is None or (header == FRAGMENT and int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF8):
            return None
        header, at = behind
    return header, at


def _headers_are_whole(packet: bytes, header: int, at: int) -> bool:
    """A first fragment has to hold all headers (RFC 7112), and of those no second one that takes packets apart."""
    while header in EXTENSIONS:
        behind = None if header == FRAGMENT else _behind(packet, header, at)
        if behind is None:
            return False
        header, at = behind
    return len(packet) - at >= LEAST_BEHIND_HEADERS.get(header, 1)


@dataclass(slots=True, eq=False)
class Datagram:
    """Fragments that belong together."""

    since: float
    total: int = 0  # what all of them carry; 0 = the last one is not there yet
    fragments: dict[tuple[int, int], bytes] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        return sum(len(packet) + FRAGMENT_COST for packet in self.fragments.values())

    def takes(self, place: Place) -> bool:
        """Whether it contradicts none of the others."""
        if self.total and (place.end > self.total or (not place.more and place.end != self.total)):
            return False
        if not place.more and any(place.end < end for _, end in self.fragments):
            return False
        return all(end <= place.offset or place.end <= offset for offset, end in self.fragments)

    def add(self, place: Place, packet: bytes) -> None:
        self.fragments[place.offset, place.end] = packet
        if not place.more:
            self.total = place.end

    @property
    def whole(self) -> bool:
        return self.total == sum(end - offset for offset, end in self.fragments)

    def in_order(self) -> list[bytes]:
        return [self.fragments[place] for place in sorted(self.fragments)]


def most_of_peer(cost_of_all: int) -> int:
    return UNFINISHED_BYTES_CROWDED if cost_of_all > UNFINISHED_BYTES_OF_ALL else UNFINISHED_BYTES


@dataclass(slots=True, eq=False)
class Unfinished:
    """What is not whole yet, of one peer."""

    drops: Counter[Drop]
    _datagrams: dict[Key, Datagram] = field(default_factory=dict)  # oldest first

    def hold(self, place: Place, packet: bytes, now: float, most: int) -> list[bytes]:
        """All fragments of its packet if none is missing any more. ``most``: what all may cost."""
        datagram = self._datagrams.get(place.key)
        if datagram is not None and (
            not datagram.takes(place)
            or len(datagram.fragments) == FRAGMENTS_OF_PACKET
            or now - datagram.since >= UNFINISHED_S
        ):
            self._give_up(place.key)  # its id has come round again, and this is of the next packet
            datagram = None
        if datagram is None:
            datagram = self._datagrams[place.key] = Datagram(now)
        datagram.add(place, packet)
        if datagram.whole:
            return self._datagrams.pop(place.key).in_order()
        while len(self._datagrams) > UNFINISHED_PACKETS or self.cost > most:
            self._give_up(next(iter(self._datagrams)))
        return []

    def expire(self, now: float) -> None:
        for key in [key for key, datagram in self._datagrams.items() if now - datagram.since >= UNFINISHED_S]:
            self._give_up(key)

    @property
    def cost(self) -> int:
        return sum(datagram.cost for datagram in self._datagrams.values())

    def _give_up(self, key: Key) -> None:
        self.drops[Drop.INCOMPLETE] += len(self._datagrams.pop(key).fragments)
