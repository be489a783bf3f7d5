"""What the plain Python data plane says to sockets: addresses in the form of their family, the address a datagram came
to and is answered from, and the kernel's own path discovery."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address

from cvpnd.dataplane.api import SocketAddress

IP_PKTINFO, IPV6_PKTINFO = 8, 50
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
IP_PMTUDISC_WANT, IP_PMTUDISC_PROBE, IP_PMTUDISC_OMIT = 1, 3, 5


def canonical(address: tuple[str, int] | tuple[str, int, int, int]) -> SocketAddress:
    host = ip_address(address[0].partition("%")[0])
    folded = getattr(host, "ipv4_mapped", None) or host
    return SocketAddress(str(folded), address[1], address[3] if len(address) == 4 else 0)


def sockaddr(sock: socket.socket, remote: SocketAddress) -> tuple[str, int] | tuple[str, int, int, int]:
    """In the form of the socket's family, which may be IPv6 and carry IPv4 too."""
    version = ip_address(remote.host).version
    if not 0 < remote.port <= 0xFFFF:
        raise ValueError("port out of range")
    if sock.family == socket.AF_INET:
        if version != 4:
            raise ValueError("an IPv6 address on an IPv4 listener")
        return remote.host, remote.port
    host = remote.host if version == 6 else f"::ffff:{remote.host}"
    return host, remote.port, 0, remote.scope_id


def set_path_discovery(sock: socket.socket, v4: int, v6: int) -> None:
    sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, v4)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, v6)


def pass_over_icmp(sock: socket.socket) -> None:
    """Of IPv4, routers may cut packets, and the kernel cuts none to what ICMP errors say, which anybody can send. Of
    IPv6, routers cut nothing, and the kernel neither."""
    set_path_discovery(sock, IP_PMTUDISC_OMIT, IP_PMTUDISC_PROBE)


@contextlib.contextmanager
def path_discovery(sock: socket.socket, v4: int, v6: int) -> Iterator[None]:
    """Another way for what is sent meanwhile."""
    set_path_discovery(sock, v4, v6)
    try:
        yield
    finally:
        pass_over_icmp(sock)


def local_address(ancillary: list[tuple[int, int, bytes]]) -> str:
    """The gateway's own address that a datagram was sent to; empty if the kernel did not say."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            return str(ip_address(data[8:12]))
        if (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
            return canonical((str(ip_address(data[:16])), 0)).host
    return ""


def source_control(sock: socket.socket, local: str) -> list[tuple[int, int, bytes]]:
    """The inverse: send from this address."""
    if not local:
        return []
    host, *_ = sockaddr(sock, SocketAddress(local, 1))
    if sock.family == socket.AF_INET:
        return [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + socket.inet_aton(host) + bytes(4))]
    return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, host) + bytes(4))]
