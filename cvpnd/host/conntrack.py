"""Connections that the kernel still tracks for an address when somebody else gets it.

Without this the newcomer would receive what targets still send to the one before, and inherit their NAT mappings: TCP
connections that nobody closed are tracked for five days. So all of an address go when it changes hands; whoever comes
back to an address of their own keeps them.

The kernel has no index by address: finding those of one takes as long as finding those of a thousand (11 ms of CPU for
a table of 262,144 buckets, measured on Linux 6.18). So one walk serves all that came together, and another follows
after a while at the earliest."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator

from cvpnd.host.errors import NEEDS_CAPABILITY
from cvpnd.host.plan import IPAddress

PAUSE_SHARE = 10
"""How many times longer than the walk before took there is none: a table that somebody keeps full costs a tenth of a
core while they do."""
ANSWER_S = 5.0
RECEIVE_BYTES = 1 << 16

NETLINK_NETFILTER = 12
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1 << 8 | 1, 1 << 8 | 2
CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE = 1, 12, 18
"""linux/netfilter/nfnetlink_conntrack.h; the subsystem ctnetlink has number 1."""
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct(">BBH")
"""nfgenmsg: family, version, a number of no use here."""
_ATTRIBUTE = struct.Struct("=HH")
_TYPE = 0x3FFF
"""An attribute's, without its flags."""
_ADDRESSES_AT = 3 * _ATTRIBUTE.size
"""In the original tuple, which begins with itself, its addresses and the first of these; the kernel writes no other
order (``ctnetlink_dump_tuples``)."""


class Forgetter:
    """On the event loop's thread; the walks are in another."""

    def __init__(self) -> None:
        self._addresses: set[bytes] = set()
        self._asked = asyncio.Event()

    def ask(self, addresses: Iterable[IPAddress]) -> None:
        self._addresses.update(address.packed for address in addresses)
        self._asked.set()

    async def run(self) -> AsyncIterator[str]:
        """Until cancelled. Yields a line for the log when it failed."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            addresses, self._addresses = self._addresses, set()
            begun = time.monotonic()
            try:
                await asyncio.to_thread(forget, addresses)
            except OSError as error:
                yield f"{len(addresses)} addresses have new holders, who may receive what others left behind: {error}"
            await asyncio.sleep(PAUSE_SHARE * (time.monotonic() - begun))


def forget(addresses: Collection[bytes]) -> int:
    """Those that one of the addresses (packed) has opened, or that were opened to it; how many there were. Raises
    ``OSError``."""
    forgotten = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as netlink:
        netlink.settimeout(ANSWER_S)
        netlink.bind((0, 0))
        for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
            ours = frozenset(address for address in addresses if len(address) == size)
            for name in list(_connections(netlink, family, size, ours)) if ours else ():
                forgotten += _delete(netlink, family, name)
    return forgotten


def _connections(netlink: socket.socket, family: int, size: int, ours: frozenset[bytes]) -> Iterator[bytes]:
    """What names each of them in a deletion."""
    netlink.send(_message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, family))
    source, stride = _HEADER.size + _FAMILY.size + _ADDRESSES_AT, _ATTRIBUTE.size + size
    for message in _answers(netlink):
        first, second = message[source : source + size], message[source + stride : source + stride + size]
        if first in ours or second in ours:
            yield _name(message)


def _name(message: bytes) -> bytes:
    """The original tuple, zone and id: a connection that has taken the place of this one meanwhile is another."""
    wanted, at = b"", _HEADER.size + _FAMILY.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        end = at + (max(length, _ATTRIBUTE.size) + 3 & ~3)
        if kind & _TYPE in (CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE):
            wanted += message[at:end]
        at = end
    return wanted


def _delete(netlink: socket.socket, family: int, name: bytes) -> bool:
    """False: it has gone by itself."""
    netlink.send(_message(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, family, name))
    try:
        for _ in _answers(netlink):
            pass
    except FileNotFoundError:
        return False
    return True


def _message(kind: int, flags: int, family: int, attributes: bytes = b"") -> bytes:
    body = _FAMILY.pack(family, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body


def _answers(netlink: socket.socket) -> Iterator[bytes]:
    """Up to the end of a dump, or the word on what was asked. Raises ``OSError``."""
    while True:
        datagram, at = netlink.recv(RECEIVE_BYTES), 0
        while at + _HEADER.size <= len(datagram):
            length, kind, *_ = _HEADER.unpack_from(datagram, at)
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", datagram, at + _HEADER.size)
                if code:
                    raise OSError(-code, _explain(-code))
                return
            yield datagram[at : at + length]
            at += max(_HEADER.size, length + 3 & ~3)


def _explain(code: int) -> str:
    return NEEDS_CAPABILITY if code == errno.EPERM else f"conntrack: {os.strerror(code)}"
