"""Sockets of a listener: a UDP port shared by the control side and the workers, or a TCP port.

All UDP sockets of one listener share their port through SO_REUSEPORT. A classic BPF program picks the socket:
``P_DATA_V2`` goes to data socket ``1 + peer_id % workers``, all else to socket 0, which the event loop reads.
So a flood of handshakes costs a worker nothing, and a peer is always received by the same worker.
The program sees the UDP payload from offset 0; a load past its end returns 0, so short datagrams fall to socket 0.
"""

from __future__ import annotations

import ctypes
import errno
import resource
import socket
import struct
from dataclasses import dataclass
from functools import lru_cache

SO_ATTACH_REUSEPORT_CBPF = 51
IP_PKTINFO = 8
IP_MTU_DISCOVER, IP_PMTUDISC_OMIT = 10, 5
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
SO_RCVBUFFORCE = 33
CONTROL_BUFFER_BYTES = 16 << 20
"""The default holds some 150 small datagrams: two hundred clients that start at once would lose half of them. This is a
third of a second of a flood of 100,000 a second: who reads them may not get a core any sooner. Used only then."""
FILES_KEPT_FREE = 32
"""For the admin socket, metrics, the store, logs and reloads."""

_LD_WORD, _TAX, _RSH, _JEQ, _TXA, _AND, _MOD, _ADD, _RET_A, _RET = 0x20, 7, 0x74, 0x15, 0x87, 0x54, 0x94, 0x04, 0x16, 6
_DATA_V2 = 9
_NO_PEER_ID = 0xFFFFFF


def takes_one_of_the_last_files(accepted: socket.socket, kept_free: int) -> bool:
    """The kernel gives out the lowest free number, so that one of the highest means that others are hardly left."""
    return accepted.fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - kept_free


class ListenError(Exception):
    """An address cannot be listened on; the text names it and the fix."""


@dataclass(slots=True)
class UdpGroup:
    """``control`` belongs to the event loop; each of ``data`` is handed to a worker."""

    control: socket.socket
    data: list[socket.socket]

    def close(self) -> None:
        for sock in (self.control, *self.data):
            sock.close()


def _steering_program(workers: int) -> list[tuple[int, int, int, int]]:
    """(code, jump if true, jump if false, k), see linux/filter.h."""
    return [
        (_LD_WORD, 0, 0, 0),
        (_TAX, 0, 0, 0),
        (_RSH, 0, 0, 27),
        (_JEQ, 0, 6, _DATA_V2),
        (_TXA, 0, 0, 0),
        (_AND, 0, 0, 0xFFFFFF),
        (_JEQ, 3, 0, _NO_PEER_ID),
        (_MOD, 0, 0, workers),
        (_ADD, 0, 0, 1),
        (_RET_A, 0, 0, 0),
        (_RET, 0, 0, 0),
    ]


def _attach_steering(sock: socket.socket, workers: int) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _steering_program(workers))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HL", len(code) // 8, ctypes.addressof(buffer))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _explain(error: OSError, transport: str, host: str, port: int) -> ListenError:
    fix = {
        errno.EADDRINUSE: "another program has this port; stop it or choose another port",
        errno.EADDRNOTAVAIL: "this host has no such address; see 'ip address'",
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
    }.get(error.errno or 0, str(error))
    return ListenError(f"cannot listen on {transport}://{f'[{host}]' if ':' in host else host}:{port}: {fix}")


def _udp_socket(host: str, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(_family(host), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            # Whatever ICMP errors say, which come to any of them: anybody can send one who knows a client's address.
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def open_udp_group(host: str, port: int, workers: int) -> UdpGroup:
    """Bind one control and ``workers`` data sockets. Raises ``ListenError``."""
    sockets: list[socket.socket] = []
    try:
        # SO_REUSEPORT would let a second daemon of the same user take a share of the packets in silence, so the
        # port is first bound alone.
        _udp_socket(host, port, shared=False).close()
        for index in range(workers + 1):
            sockets.append(_udp_socket(host, port, shared=True))
            if index == 0:
                _attach_steering(sockets[0], workers)
        try:
            sockets[0].setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, CONTROL_BUFFER_BYTES)
        except PermissionError:  # without CAP_NET_ADMIN (unit tests): what net.core.rmem_max allows
            sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CONTROL_BUFFER_BYTES)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise _explain(error, "udp", host, port) from error
    return UdpGroup(sockets[0], sockets[1:])


TCP_SEGMENT = {socket.AF_INET: 1280 - 40, socket.AF_INET6: 1280 - 60}
"""What passes any path that carries IPv6, in both directions: where larger segments vanish without a word, both ends
would hang, since the kernel probes for such paths only if ``net.ipv4.tcp_mtu_probing`` is on."""


def open_tcp_socket(host: str, port: int) -> socket.socket:
    """A listening, non-blocking TCP socket. Raises ``ListenError``."""
    sock = socket.socket(_family(host), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, TCP_SEGMENT[sock.family])
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise _explain(error, "tcp", host, port) from error
    return sock


def check_free(transport: str, host: str, port: int) -> None:
    """Raises ``ListenError`` where nobody could listen now."""
    if transport == "udp":
        open_udp_group(host, port, 1).close()
    else:
        open_tcp_socket(host, port).close()


@lru_cache(maxsize=64)
def ancillary_from_local(local: str) -> tuple[tuple[int, int, bytes], ...]:
    """To send from this address of ours; empty: from any."""
    if not local:
        return ()
    if ":" in local:
        return ((socket.IPPROTO_IPV6, IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, local) + bytes(4)),)
    return ((socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + socket.inet_aton(local) + bytes(4)),)
