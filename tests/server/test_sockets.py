"""The kernel sorts data from control, over IPv4 and IPv6, and says which of our addresses was meant."""

from __future__ import annotations

import select
import socket

import pytest

from cvpnd.server.sockets import IP_PKTINFO, IPV6_PKTINFO, ListenError, open_tcp_socket, open_udp_group

WORKERS = 3
CONTROL, FIRST, SECOND, THIRD = range(4)


def free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("packet", "where"),
    [
        (b"\x38" + bytes(13), CONTROL),  # reset
        (b"\x20" + bytes(40), CONTROL),
        (b"\x30" + bytes(40), CONTROL),  # P_DATA_V1 names no peer
        (b"", CONTROL),
        (b"\x48", CONTROL),
        (b"\x48\x00\x00", CONTROL),
        (b"\x48\xff\xff\xff" + bytes(40), CONTROL),  # "no peer id"
        (b"\x48\x00\x00\x00", FIRST),
        (b"\x4b\x00\x00\x01" + bytes(40), SECOND),
        (b"\x4f\x00\x00\x02" + bytes(40), THIRD),
        (b"\x48\x01\x00\x00" + bytes(40), FIRST + 0x10000 % WORKERS),
        (b"\x48\xff\xff\xfe" + bytes(40), FIRST + 0xFFFFFE % WORKERS),
    ],
)
def test_packets_reach_the_socket_of_their_kind(host, packet, where):
    port = free_port(host)
    group = open_udp_group(host, port, WORKERS)
    try:
        with socket.socket(group.control.family, socket.SOCK_DGRAM) as client:
            client.sendto(packet, (host, port))
        sockets = [group.control, *group.data]
        readable, _, _ = select.select(sockets, [], [], 2)
        assert [sockets.index(s) for s in readable] == [where]
        data, ancillary, _, _ = readable[0].recvmsg(2048, 256)
        assert data == packet
        ((_, kind, told),) = ancillary
        assert kind == (IPV6_PKTINFO if ":" in host else IP_PKTINFO)
        address = told[:16] if ":" in host else told[8:12]  # ipi_addr
        assert socket.inet_ntop(group.control.family, address) == host
    finally:
        group.close()


def test_a_port_in_use_is_an_error_although_it_could_be_shared():
    port = free_port("127.0.0.1")
    group = open_udp_group("127.0.0.1", port, 1)
    try:
        with pytest.raises(ListenError, match=f"udp://127.0.0.1:{port}: another program has this port"):
            open_udp_group("127.0.0.1", port, 1)
    finally:
        group.close()
    open_udp_group("127.0.0.1", port, 1).close()


def test_an_address_of_somebody_else_is_named():
    with pytest.raises(ListenError, match=r"tcp://203\.0\.113\.9:443: this host has no such address"):
        open_tcp_socket("203.0.113.9", 443)
