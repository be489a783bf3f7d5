"""How large a packet may be (openvpn-wire.md section 12).

Three sizes are derived from the configured path MTU: the MTU of our TUN device and of the clients that can be told
theirs (``tunnel_mtu``), and the TCP segment size written into SYNs, which also holds for clients that cannot be told.
They are upper bounds: the data plane finds out what a client's path really carries (native/README.md, "Path MTU")."""

from __future__ import annotations

from functools import lru_cache

from cvpnd.policy.model import P_DATA_V2_AEAD, ClientFacts, ClientMtu, DataOverhead, Transport

SMALLEST_MTU = 576
"""What every IPv4 host takes (RFC 791). A client that claims to accept less is not believed."""
PPPOE_HEADER = 8
"""Kept back from the tunnel's MTU: half of the world's home lines have 1492, and clients roam to them."""
IPV4_TCP_HEADERS = 40
IPV6_TCP_HEADERS = 60
STREAM_LENGTH_FIELD = 2

_OUTER_HEADERS = {
    ("udp", 4): 28,
    ("udp", 6): 48,
    ("tcp", 4): IPV4_TCP_HEADERS + STREAM_LENGTH_FIELD,
    ("tcp", 6): IPV6_TCP_HEADERS + STREAM_LENGTH_FIELD,
}


def largest_tunnel_packet(
    path_mtu: int, transport: Transport, outer_version: int, data: DataOverhead = P_DATA_V2_AEAD
) -> int:
    """The largest that crosses the path in one outer packet."""
    room = path_mtu - _OUTER_HEADERS[transport, outer_version] - data.clear
    if data.block > 1:
        room -= room % data.block + 1
    return room - data.inside


def tunnel_mtu(path_mtu: int, data: DataOverhead = P_DATA_V2_AEAD) -> int:
    """The MTU of an endpoint's TUN device: one for all of its clients, so the worst case, UDP over IPv6 over PPPoE.
    1420 for a path of 1500."""
    return largest_tunnel_packet(path_mtu - PPPOE_HEADER, "udp", 6, data)


def client_mtu(path_mtu: int, facts: ClientFacts, *, discovery: bool = True) -> ClientMtu:
    """The segment sizes fit the path and the MTU at both ends of the tunnel, whichever is smallest. ``discovery``: over
    UDP the data plane finds out what the path really carries; TCP does that for itself. Packets that are padded to
    blocks are not worth the trouble: only ancient clients send them, and those get the configured size."""
    return _client_mtu(
        path_mtu,
        facts.transport,
        facts.address.version,
        facts.data_overhead,
        facts.iv_mtu,
        facts.own_mtu,
        facts.answers_occ,
        discovery and facts.transport == "udp" and facts.data_overhead.block == 1,
    )


@lru_cache(maxsize=64)
def _client_mtu(
    path_mtu: int,
    transport: Transport,
    outer_version: int,
    data: DataOverhead,
    iv_mtu: int | None,
    own_mtu: int | None,
    answers_occ: bool,
    discovered: bool,
) -> ClientMtu:
    mtu = min(tunnel_mtu(path_mtu), tunnel_mtu(path_mtu, data))
    takes = own_mtu if iv_mtu is None else iv_mtu
    if takes is not None:
        mtu = max(min(mtu, takes), SMALLEST_MTU)
    fitting = min(mtu, largest_tunnel_packet(path_mtu, transport, outer_version, data))
    return ClientMtu(
        pushed=None if iv_mtu is None else mtu,
        tunnel=mtu,
        path=path_mtu if discovered else 0,
        data_header=data.clear + data.inside,
        mss_v4=fitting - IPV4_TCP_HEADERS,
        mss_v6=fitting - IPV6_TCP_HEADERS,
        answers_occ=answers_occ,
    )
