"""Packets that nobody reads, so that routers which do not pass them on say so: the specification of ``native/blind.c``.
Why from sockets of their own, and who is believed, is in native/README.md, "Path MTU"."""

from __future__ import annotations

import ctypes
import errno
import hmac
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

from cvpnd.dataplane.api import SocketAddress
from cvpnd.dataplane.reference_path import SECRET
from cvpnd.dataplane.reference_sockets import IP_PMTUDISC_PROBE, set_path_discovery, sockaddr, source_control

IP_RECVERR, IPV6_RECVERR = 11, 25
SO_ATTACH_FILTER = 26
LOCAL = 1
"""Where an error began: at this host (linux/errqueue.h)."""
OWNER = slice(4, 8)
QUOTE = 8 + SECRET
"""A packet begins as data does, then comes whose it is, then the secret."""


class Blind:
    """The sockets of all workers, one of each family."""

    def __init__(self) -> None:
        self._sockets = {4: _open(socket.AF_INET), 6: _open(socket.AF_INET6)}
        self._heard: list[tuple[int, bytes, int]] = []

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()

    def send(self, header: bytes, owner: int, secret: bytes, length: int, remote: SocketAddress, local: str) -> int:
        """Not to be fragmented on its way. What passes, if this host itself refuses to send it, else 0."""
        sock = self._sockets[ip_address(remote.host).version]
        packet = (header + owner.to_bytes(4, "big") + secret).ljust(length, b"\x00")
        for _ in range(3):  # what routers have said about another one is told once, by whatever is sent next
            try:
                sock.sendmsg([packet], source_control(sock, local), 0, sockaddr(sock, remote))
            except OSError:
                refused = self._hear(sock)
                if refused:
                    return refused
            else:
                break
        return 0

    def heard(self) -> list[tuple[int, bytes, int]]:
        """What routers have said: whose packet they quote, with which secret, and what passes."""
        for sock in self._sockets.values():
            self._hear(sock)
        heard, self._heard = self._heard, []
        return heard

    def _hear(self, sock: socket.socket) -> int:
        """Keeps what routers have said. What passes, if this host has refused a packet, else 0."""
        refused = 0
        for mtu, origin, quote in _errors(sock):
            if origin == LOCAL:
                refused = mtu
            elif len(quote) == QUOTE:
                self._heard.append((int.from_bytes(quote[OWNER], "big"), quote[OWNER.stop :], mtu))
        return refused


def is_secret(secret: bytes, quoted: bytes) -> bool:
    return bool(secret) and hmac.compare_digest(secret, quoted)


def _open(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0), 8)  # takes nothing; errors pass
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(instruction)))
    set_path_discovery(sock, IP_PMTUDISC_PROBE, IP_PMTUDISC_PROBE)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    return sock


def _errors(sock: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """What passes, where the error began, and the beginning of the packet."""
    while True:
        try:
            quote, ancillary, _, _ = sock.recvmsg(QUOTE, 512, socket.MSG_ERRQUEUE)
        except OSError:
            return
        for level, kind, data in ancillary:
            if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
                number, origin, _, _, _, mtu, _ = struct.unpack_from("=IBBBBII", data)
                if number == errno.EMSGSIZE:
                    yield mtu or 1, origin, quote
