"""How much of a packet fits a peer's path in one piece, and what becomes of what does not: the specification of
``native/path.c`` and ``native/too_big.c``. What for is in native/README.md, "Path MTU".

A clock and answers in, wishes out: whoever owns the sockets asks. All lengths are those of tunnel packets unless they
are called ``outer``.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import Enum, auto

from cvpnd.dataplane.api import PeerSettings

OUTER_MIN = 1280
"""Nobody is believed that less fits: IPv6 has to carry this (RFC 8200 5), and IPv4 does."""
TUNNEL_MIN = 576
UDP_OVER_IPV4, UDP_OVER_IPV6 = 28, 48
TRY_S = 0.9
"""One try a second: who asks looks once a second."""
TRIES = 3
TRIES_UNHEARD = 6
TRIES_AGAIN = 6
"""Of what used to fit: loss must not shrink it."""
TRUSTED_S = 660
"""Then more may fit. Hosts forget their own findings after ten minutes."""
USED_S = 60
"""And then already it is asked whether what is known still fits, when long packets go there: a path that has become
narrow may swallow them in silence."""
LONG = 1200
"""Such packets are longer."""
SMALL = 256
SECRET = 12
"""Bytes in a blind packet."""
USUAL_OUTER = (1400, 1452)
ANY = 0xFFFF
ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
"""Of IPv4 (RFC 792): destination unreachable, source quench, redirect, time exceeded, parameter problem."""
ICMPV6_FIRST_QUERY = 128
"""Types below are errors (RFC 4443 2.1)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be sent now, each alone and not to be fragmented; 0 = nothing."""

    request: int = 0
    """Length of a request, padded …"""
    request_load: int = 0
    """… and of the answer it asks for."""
    small_load: int = 0
    """A request without padding, for this answer."""
    blind: int = 0
    """A packet that nobody reads, as long as a tunnel packet of this length sealed."""


@dataclass(slots=True, eq=False)
class Path:
    settings: PeerSettings
    spread_s: float = 0.0
    """Added to the time for which a finding is trusted, so that not all ask at once."""
    fits: int = field(init=False)
    mss_v4: int = field(init=False)
    mss_v6: int = field(init=False)
    proven: int = field(init=False)
    """So much passes whole, by the client's answer; 0 = it has given none."""
    secret: bytes = b""
    """What blind packets carry, and a router has to quote."""
    moved: bool = False
    """Set when the peer has another remote."""
    _used: bool = False
    _trusted: float = 0.0
    _again: bool = False  # only what is known is being tried
    _trying: bool = False
    _due: float = 0.0
    _outer_headers: int = UDP_OVER_IPV6  # no remote yet: the worst
    _largest: int = 0  # nothing longer is sent to this peer
    _length: int = 0  # being tried
    _good: int = 0  # longest that is known to fit; 0 = none yet
    _tries: int = 0
    _asked: int = 0  # requests whose answers have not come: more answers than these say nothing
    _heard: bool = False
    _deaf: bool = False
    _told: int = 0  # what routers say of the outer packet being tried; 0 = nothing
    _slack: int = field(init=False)  # what the client's answer falls short of the length asked for

    def __post_init__(self) -> None:
        self._slack = self.settings.data_header
        certain = self.settings.path_mtu == 0 or not self.settings.answers_occ
        self._publish(self._longest, self._longest if certain else min(self._inside(OUTER_MIN), self._longest), 0)

    @property
    def _longest(self) -> int:
        return self.settings.tunnel_mtu or ANY

    def _publish(self, fits: int, for_tcp: int, proven: int) -> None:
        self.fits, self.proven = fits, proven
        self.mss_v4 = min(self.settings.mss_v4, for_tcp - 40)
        self.mss_v6 = min(self.settings.mss_v6, for_tcp - 60)

    def _inside(self, outer: int) -> int:
        return outer - self._outer_headers - self.settings.data_header

    def due(self, now: float) -> bool:
        worn = self._trying or now >= self._trusted or self._used
        return self.settings.path_mtu != 0 and (self.moved or (now >= self._due and worn))

    def use(self, length: int) -> None:
        """A packet of this length is being sent."""
        self._used = self._used or length > LONG

    def look(self, outer_headers: int, now: float) -> Wish:
        if self.moved or not self._trying:
            self._begin(outer_headers, now)
        if self._looks_blind:
            return self._look_blind(now)
        first = self._good == 0
        most = TRIES_AGAIN if self._again else TRIES if self._heard else TRIES_UNHEARD
        if self._tries >= (most if first else TRIES):  # more, where a late first answer has made it fewer
            if not first:
                self._conclude(self._good, now)
                return Wish()
            if not self._heard:
                self._deaf, self._tries = True, 0
                return self._look_blind(now)
            self._good = min(self._inside(OUTER_MIN), self._largest)
            self._publish(self._good, self._good, self._good)
            self._try(self._next_longer(), now)
        self._tries += 1
        self._due = now + TRY_S
        self._asked += 1 if self._heard else 2
        return Wish(self._length, self._length + self._slack, 0 if self._heard else SMALL)

    def answered(self, length: int, now: float) -> None:
        """The client has sent a load of this length: so much passes, and a request as long has passed before."""
        if not self._trying or not self._asked:
            return
        self._asked -= 1
        self._heard, self._deaf = True, False
        if length <= SMALL:
            self._slack = SMALL - length
        if length < self._length:
            return
        self._good = self._length
        if self._good == self._largest:
            self._conclude(self._good, now)
        else:
            self._publish(self._good, self._good, self._good)
            self._try(self._next_longer(), now)

    def _begin(self, outer_headers: int, now: float) -> None:
        moved, self.moved = self.moved, False
        self._outer_headers = outer_headers
        self._largest = min(self._inside(self.settings.path_mtu), self._longest)
        self._again = not moved and now < self._trusted
        if self._again:
            self._largest = min(self.fits, self._largest)
        self._trying = True
        self._good = self._asked = self._told = 0
        self._try(self._largest, now)
        if moved:  # else what was found holds until something else is
            # TCP cannot take back its segment size, so it begins small where an answer is to be had in a moment.
            certain = not self.settings.answers_occ or self._deaf
            self._publish(self._largest, self._largest if certain else min(self._inside(OUTER_MIN), self._largest), 0)

    def _try(self, length: int, now: float) -> None:
        self._length, self._tries, self._due = length, 0, now

    def _next_longer(self) -> int:
        usual = map(self._inside, USUAL_OUTER)
        return next((length for length in usual if self._good < length < self._largest), self._largest)

    def _conclude(self, length: int, now: float) -> None:
        self._publish(length, length, self._good)
        self._trying = False
        if not self._again:
            self._trusted = now + TRUSTED_S + self.spread_s
        elif self._inside(OUTER_MIN) == length < self._largest:
            self._trusted = min(self._trusted, now + USED_S)  # perhaps nobody was there to answer: all is asked anew
        self._due = min(self._trusted, now + USED_S) if self._heard else self._trusted
        self._used = False

    @property
    def _looks_blind(self) -> bool:
        return not self.settings.answers_occ or self._deaf

    def told(self, outer_mtu: int) -> None:
        """A router on the way has quoted our blind packet, or this host refused it: no longer outer packet passes."""
        if self._trying and self._looks_blind and self._tries:
            self._told = max(outer_mtu, 1)

    def _told_length(self) -> int:
        if self._told == 0 or self._told >= self.settings.path_mtu:
            return self._largest
        return min(self._inside(max(self._told, OUTER_MIN)), self._largest)

    def _look_blind(self, now: float) -> Wish:
        """Who cannot be asked is sent something nobody reads; routers that do not pass it on say so."""
        told = self._told_length() if self._tries else self._length
        if told < self._length:  # the next router may let less through
            if told < self.fits:  # else what was found holds until nobody speaks
                self._publish(told, told, 0)
            self._try(told, now)
        if self._tries >= TRIES:
            self._conclude(self._length, now)
            return Wish()
        if not self._tries:  # a new one for each question: who was on the way once may not be any more
            self.secret = secrets.token_bytes(SECRET)
        self._tries += 1
        self._due = now + TRY_S
        return Wish(blind=self._length)


# -- packets that are too big --------------------------------------------------------------------------------------

IPV6_SMALLEST_MTU = 1280
DF, MF, OFFSET = 0x4000, 0x2000, 0x1FFF


class TooBig(Enum):
    REFUSED = auto()
    """Dropped, and its sender is told."""
    CUT = auto()
    """IPv4 that may be fragmented."""
    SENT_ALL = auto()
    """As it is: the packet around it is fragmented."""


def too_big_verdict(packet: bytes) -> TooBig:
    """IPv6 senders need not go below 1280, so up to there it is our turn. IPv4 options are too rare for code of
    their own."""
    if packet[0] >> 4 == 6:
        return TooBig.SENT_ALL if len(packet) <= IPV6_SMALLEST_MTU else TooBig.REFUSED
    field = int.from_bytes(packet[6:8], "big")
    if field & DF or (field & OFFSET) * 8 + len(packet) > 0xFFFF:  # the second is nobody's honest packet
        return TooBig.REFUSED
    return TooBig.CUT if packet[0] & 15 == 5 else TooBig.SENT_ALL


def too_big_answer(packet: bytes, mtu: int) -> bytes | None:
    """The ICMP error for the sender (RFC 1191, 8201). None when there must be none: about ICMP errors, fragments but
    the first, and to or about addresses that are no single host's. It comes from the packet's destination: the kernel
    drops what a device brings in from one of the host's own addresses."""
    if packet[0] >> 4 == 4:
        return _answer_v4(packet, mtu)
    source, destination, next_header, behind = packet[8:24], packet[24:40], packet[6], packet[40:]
    if any(a[0] == 0xFF or (not any(a[:15]) and a[15] <= 1) for a in (source, destination)):
        return None
    if next_header == 44 and (len(behind) < 8 or int.from_bytes(behind[2:4], "big") & 0xFFF8):
        return None
    if next_header == 58 and (not behind or behind[0] < ICMPV6_FIRST_QUERY):
        return None
    message = b"\x02\x00\x00\x00" + mtu.to_bytes(4, "big") + packet[: IPV6_SMALLEST_MTU - 48]
    pseudo = destination + source + len(message).to_bytes(4, "big") + b"\x00\x00\x00\x3a"
    header = b"\x60\x00\x00\x00" + len(message).to_bytes(2, "big") + b"\x3a\x40" + destination + source
    return header + _summed(message, 2, pseudo)


def _answer_v4(packet: bytes, mtu: int) -> bytes | None:
    source, destination, header = packet[12:16], packet[16:20], (packet[0] & 15) * 4
    if int.from_bytes(packet[6:8], "big") & OFFSET or any(
        a[0] in (0, 127) or a[0] >= 224 for a in (source, destination)
    ):
        return None
    if packet[9] == 1 and (len(packet) == header or packet[header] in ICMP_ERRORS):
        return None
    message = _summed(b"\x03\x04\x00\x00\x00\x00" + mtu.to_bytes(2, "big") + packet[: 576 - 28], 2)
    total = 20 + len(message)
    return (
        _summed(b"\x45\x00" + total.to_bytes(2, "big") + bytes(4) + b"\x40\x01\x00\x00" + destination + source, 10)
        + message
    )


def cut(packet: bytes, mtu: int) -> list[bytes]:
    """The fragments, each at most ``mtu`` long."""
    pieces = []
    while len(packet) > mtu:
        payload = (mtu - 20) // 8 * 8
        field = int.from_bytes(packet[6:8], "big")
        pieces.append(_fragment(packet[:20], packet[20 : 20 + payload], field | MF))
        packet = _fragment(packet[:20], packet[20 + payload :], field + payload // 8)
    return [*pieces, packet]


def _fragment(header: bytes, payload: bytes, field: int) -> bytes:
    length = (20 + len(payload)).to_bytes(2, "big")
    return _summed(header[:2] + length + header[4:6] + field.to_bytes(2, "big") + header[8:], 10) + payload


def _summed(data: bytes, at: int, before: bytes = b"") -> bytes:
    """With the Internet checksum of ``before`` and the data in its place (RFC 1071)."""
    data = data[:at] + b"\x00\x00" + data[at + 2 :]
    total = before + data + b"\x00" * (len(data) % 2)
    value = sum(int.from_bytes(total[i : i + 2], "big") for i in range(0, len(total), 2))
    while value > 0xFFFF:
        value = (value & 0xFFFF) + (value >> 16)
    return data[:at] + (~value & 0xFFFF).to_bytes(2, "big") + data[at + 2 :]
