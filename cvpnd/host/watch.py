"""What the kernel tells of changes to interfaces, addresses, routes, rules and forwarding, whoever made them.

Read by hand from one socket: of a host with a full routing table only our own routes' removals are wanted, which a
number in a fixed place tells."""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from cvpnd.host.plan import IPNetwork

GROUPS = (1, 5, 7, 8, 9, 11, 19, 24, 25)
"""rtnetlink.h, RTNLGRP_: LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF,
IPV6_NETCONF."""
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _DELROUTE, _DELRULE, _NEWNETCONF = 16, 17, 20, 21, 25, 33, 80
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_LINK = struct.Struct("=BxHiII")  # ifinfomsg
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_IFLA_IFNAME, _RTA_DST, _RTA_PRIORITY, _RTA_TABLE = 3, 1, 6, 15


@dataclass(slots=True)
class Touched:
    """Since the last look."""

    everything: bool = False
    """Also what is not named below: more happened than the kernel had room to tell."""
    another_try: bool = False
    """At what failed before; nobody need have done anything."""
    interfaces: set[str] = field(default_factory=set)
    addresses: bool = False
    routes: set[tuple[int, IPNetwork, int]] = field(default_factory=set)
    """Table, destination and metric of removed ones with our protocol number, our own removals among them."""
    rules: bool = False
    forwarding: bool = False


def note(seen: Touched, notice: bytes, protocol: int) -> bool:
    """Whether there is anything to look at. One datagram holds several messages; what is cut short is left out.
    ``protocol``: of the routes whose removal is wanted."""
    rest = memoryview(notice)
    while len(rest) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(rest)
        if not _HEADER.size <= length <= len(rest):
            break
        with contextlib.suppress(struct.error, ValueError):
            _note_message(seen, kind, rest[_HEADER.size : length], protocol)
        rest = rest[(length + 3) & ~3 :]
    return seen != Touched()


def _note_message(seen: Touched, kind: int, body: memoryview, protocol: int) -> None:
    if kind in (_NEWLINK, _DELLINK):
        name = _attributes(body[_LINK.size :]).get(_IFLA_IFNAME, b"")
        seen.interfaces.add(name.rstrip(b"\0").decode(errors="replace"))
    elif kind in (_NEWADDR, _DELADDR):
        index = _ADDRESS.unpack_from(body)[4]
        seen.addresses = True
        with contextlib.suppress(OSError):  # gone already, which is told apart
            seen.interfaces.add(socket.if_indextoname(index))
    elif kind == _DELROUTE:
        family, bits, _, _, table, by, _, _, _ = _ROUTE.unpack_from(body)
        if by == protocol:
            found = _attributes(body[_ROUTE.size :])
            packed = found.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16))
            table = _NUMBER.unpack(found[_RTA_TABLE])[0] if _RTA_TABLE in found else table
            metric = _NUMBER.unpack(found[_RTA_PRIORITY])[0] if _RTA_PRIORITY in found else 0
            seen.routes.add((table, ip_network((ip_address(packed), bits)), metric))
    elif kind == _DELRULE:
        seen.rules = True
    elif kind == _NEWNETCONF:
        seen.forwarding = True


def _attributes(data: memoryview) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            break
        found[kind] = bytes(data[_ATTRIBUTE.size : length])
        data = data[(length + 3) & ~3 :]
    return found
