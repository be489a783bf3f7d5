"""What the kernel's connection tracking knows of clients' addresses, and forgetting it.

A tracked connection outlives the session whose client opened it: what belongs to it passes the firewall, and SNAT
translates it back to that address, whoever has the address now. The kernel can delete one entry or all of them, so
those that matter are looked for in a dump of the table. Blocking, for a thread: with 200,000 entries in the table a
look takes 0.8 s, and to delete 60,000 of them another second; meanwhile another thread waits for 5 ms at most (measured
on two virtual cores, Linux 6.18).
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from cvpnd.host.errors import NEEDS_CAPABILITY, HostError
from cvpnd.host.kernel_parts import fix, lack

Wanted = Callable[[bytes], bool]
"""Of an address, packed."""
_Concerned = Callable[[list[tuple[bytes, bytes]]], list[bytes]]
"""Of the source and destination of an entry's directions: those for whose sake it is to be deleted, or none."""

MODULE = "nf_conntrack_netlink"

ROUNDS = 3
"""What was being set up during one is found by the next."""
LOOKS = 5
"""Until one is whole."""
TIMEOUT_S = 5
"""For one answer of the kernel, which is never that long without one."""
AT_ONCE = 128
"""Deletions in one message to the kernel: were all refused, the socket would have room for the answers."""

_NETLINK_NETFILTER = 12
_GET, _DELETE, _STATISTICS = 0x0101, 0x0102, 0x0105  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_…
_ERROR, _DONE = 2, 3
_REQUEST, _INTERRUPTED, _DUMP = 0x1, 0x10, 0x300
_TUPLE_ORIGINAL, _ID, _ZONE = 1, 12, 18
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ABOUT = struct.Struct("=BBH")  # nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=i")
_BEGIN = _HEADER.size + _ABOUT.size


def _addresses(size: int, source: int, destination: int) -> re.Pattern[bytes]:
    """A CTA_TUPLE_IP, of which an entry has one for either direction. Walking through attributes in Python takes ten
    times as long."""
    both = b"".join(
        re.escape(_ATTRIBUTE.pack(_ATTRIBUTE.size + size, kind)) + b"(.{%d})" % size for kind in (source, destination)
    )
    return re.compile(re.escape(_ATTRIBUTE.pack(3 * _ATTRIBUTE.size + 2 * size, 1 | _NESTED)) + both, re.DOTALL)


_FAMILIES = {socket.AF_INET: _addresses(4, 1, 2), socket.AF_INET6: _addresses(16, 3, 4)}


class _Found(NamedTuple):
    deletions: list[bytes]
    addresses: set[bytes]


_FIXES = {
    errno.EPERM: NEEDS_CAPABILITY,
    errno.EINVAL: f"{lack(MODULE)}: {fix(MODULE)}",  # what it says of a part that is not there
    errno.EINTR: "the kernel's table keeps changing while it is read (nf_conntrack_buckets?)",
}


def forget(wanted: Wanted) -> set[bytes]:
    """Delete what is tracked from and to every ``wanted`` address, before and behind translation. Returns those of
    which something is tracked still. Raises ``HostError``."""
    return _forget(lambda pairs: [each for pair in pairs for each in pair if wanted(each)])


def forget_between(wanted: Callable[[bytes, bytes], bool]) -> set[bytes]:
    """The same of what is tracked between two ``wanted`` addresses, in either direction. Returns the first ones."""
    return _forget(lambda pairs: [one for a, b in pairs for one, other in ((a, b), (b, a)) if wanted(one, other)])


def is_there() -> bool:
    """Whether the kernel has the ``MODULE``, which it loads when it is asked."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as kernel:
        kernel.send(_message(_STATISTICS, _REQUEST, socket.AF_UNSPEC, b""))
        try:
            next(_entries(kernel), None)
        except OSError as error:
            return error.errno != errno.EINVAL
        return True


def _forget(concerned: _Concerned) -> set[bytes]:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as kernel:
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", TIMEOUT_S, 0))
            found = _find(kernel, concerned)
            for _ in range(ROUNDS):
                if not found.addresses:
                    break
                _delete(kernel, found.deletions)
                found = _find(kernel, concerned)
            return found.addresses
    except BlockingIOError as error:
        raise HostError("connection tracking: the kernel does not answer") from error
    except OSError as error:
        raise HostError(f"connection tracking: {_FIXES.get(error.errno or 0, error.strerror)}") from error


def _find(kernel: socket.socket, concerned: _Concerned) -> _Found:
    found = _Found([], set())
    for family, both_addresses in _FAMILIES.items():
        for entry in _table(kernel, family):
            addresses = concerned(both_addresses.findall(entry))
            if addresses:
                found.addresses.update(addresses)
                found.deletions.append(_message(_DELETE, _REQUEST, family, _name(entry)))
    return found


def _table(kernel: socket.socket, family: int) -> Iterator[bytes]:
    """All entries, some of them twice if a look was interrupted: what moved meanwhile may be missing in it."""
    for _ in range(LOOKS):
        kernel.send(_message(_GET, _REQUEST | _DUMP, family, b""))
        if (yield from _entries(kernel)):
            return
    raise OSError(errno.EINTR, os.strerror(errno.EINTR))


def _delete(kernel: socket.socket, deletions: list[bytes]) -> None:
    """Whatever is refused, the next look finds it still there: an entry may be gone by itself, or have been handed to a
    flow table."""
    for first in range(0, len(deletions), AT_ONCE):
        kernel.send(b"".join(deletions[first : first + AT_ONCE]))
        try:
            while True:
                kernel.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass


def _message(kind: int, flags: int, family: int, attributes: bytes) -> bytes:
    about = _ABOUT.pack(family, 0, 0)
    return _HEADER.pack(_BEGIN + len(attributes), kind, flags, 0, 0) + about + attributes


def _entries(kernel: socket.socket) -> Generator[bytes, None, bool]:
    """Of a dump, without the headers. Whether it was whole."""
    whole = True
    while True:
        answer, at = kernel.recv(1 << 16), 0
        while len(answer) - at >= _HEADER.size:
            length, kind, flags, _, _ = _HEADER.unpack_from(answer, at)
            whole = whole and not flags & _INTERRUPTED
            if kind in (_DONE, _ERROR):
                code = -_NUMBER.unpack_from(answer, at + _HEADER.size)[0]
                if code or kind == _ERROR:
                    raise OSError(code, os.strerror(code))
                return whole
            if not _BEGIN <= length <= len(answer) - at:
                raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
            yield answer[at + _BEGIN : at + length]
            at += (length + 3) & ~3


def _name(entry: bytes) -> bytes:
    """What tells an entry from all others, also from one that takes its place."""
    name = b""
    while len(entry) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(entry)
        if length < _ATTRIBUTE.size:
            break
        if kind & ~_NESTED in (_TUPLE_ORIGINAL, _ID, _ZONE):
            name += entry[:length] + bytes(-length % 4)
        entry = entry[(length + 3) & ~3 :]
    return name
