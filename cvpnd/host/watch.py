"""What the kernel tells of changes to interfaces, addresses, routes, rules and forwarding, whoever made them.

Read by hand from one socket: of a host with a full routing table only our own routes' removals are wanted, which a
number in a fixed place tells."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from cvpnd.host.plan import IPNetwork

SETTLE_S = 0.3
"""What changes does so several times in a row."""

_GROUPS = (1, 5, 7, 8, 9, 11, 19, 24, 25)
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
_BUFFER = 1 << 20


@dataclass(slots=True)
class Touched:
    """Since the last look."""

    everything: bool = False
    """Also what is not named below: more happened than the kernel had room to tell."""
    interfaces: set[str] = field(default_factory=set)
    addresses: bool = False
    routes: set[tuple[int, IPNetwork, int]] = field(default_factory=set)
    """Table, destination and metric of removed ones with our protocol number, our own removals among them."""
    rules: bool = False
    forwarding: bool = False


async def touched(protocol: int) -> AsyncIterator[Touched]:
    """Runs until cancelled. ``protocol``: of the routes whose removal is wanted."""
    loop, any_of_it = asyncio.get_running_loop(), asyncio.Event()
    seen = Touched()

    def read() -> None:
        try:
            while notice := sock.recv(1 << 16):
                _note(seen, notice, protocol)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            seen.everything = True
        if seen != Touched():
            any_of_it.set()

    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.bind((0, 0))
        for group in _GROUPS:
            sock.setsockopt(270, 1, group)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP: bind() knows the first 32 alone
        loop.add_reader(sock, read)
        try:
            while True:
                await any_of_it.wait()
                await asyncio.sleep(SETTLE_S)
                any_of_it.clear()
                now, seen = seen, Touched()
                yield now
        finally:
            loop.remove_reader(sock)


def _note(seen: Touched, notice: bytes, protocol: int) -> None:
    """One datagram holds several messages. What is cut short is left out."""
    rest = memoryview(notice)
    while len(rest) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(rest)
        if not _HEADER.size <= length <= len(rest):
            return
        with contextlib.suppress(struct.error, ValueError):
            _note_message(seen, kind, rest[_HEADER.size : length], protocol)
        rest = rest[(length + 3) & ~3 :]


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
