"""The nouns of a login: who it is, what they were given, and the rules and routes it is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, NamedTuple

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
Transport = Literal["udp", "tcp"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom every configured authentication method vouched for."""

    common_name: str
    """From the verified certificate."""
    username: str
    """From the user method; empty where the certificate is all there is."""
    groups: frozenset[str]
    certificate_fingerprint: str
    """SHA-256 over DER, hex."""

    @property
    def user(self) -> str:
        """The one name under which leases are remembered and people are listed."""
        return self.username or self.common_name


@dataclass(frozen=True, slots=True)
class Rule:
    """An authorization rule. ``group`` None means all users."""

    network: IPNetwork
    group: str | None
    description: str
    origin: str
    """``file`` or ``store``, as in ``endpoints.model.RuleView``."""


@dataclass(frozen=True, slots=True)
class Route:
    destination: IPNetwork
    target: str
    """Subnet id, or ``local`` for the other clients."""
    origin: str
    """``associate`` or ``add-route``, as in ``endpoints.model.RouteView``."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A client's addresses inside the tunnel."""

    v4: IPv4Address
    v6: IPv6Address | None = None

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The only inner sources accepted from this client."""
        return (self.v4,) if self.v6 is None else (self.v4, self.v6)


@dataclass(frozen=True, slots=True)
class ClientMtu:
    """One client's sizes, as ``policy.mtu`` makes them."""

    pushed: int | None
    """``tun-mtu``; None: the client keeps its own, normally 1500, and we accept up to that."""
    tunnel: int
    """The longest packet that is sent to it."""
    path: int
    """What its path is taken to carry until it is found to carry less; 0: not found out, as over TCP."""
    data_header: int
    mss_v4: int
    mss_v6: int
    answers_occ: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """What a login ends with: enough for the data plane, the client and the log."""

    lease: Lease
    groups: frozenset[str]
    options: tuple[str, ...]
    """Pushed; the wire adds cipher, flags and peer id."""
    sizes: ClientMtu


class ProtoBit(IntFlag):
    """IV_PROTO bits that decide what is pushed (openvpn-wire.md section 9.2)."""

    DNS_OPTION = 1 << 6
    DNS_OPTION_V2 = 1 << 11


class DataOverhead(NamedTuple):
    """What a client's data packets put around a tunnel packet, inside UDP or TCP (openvpn-wire.md section 12)."""

    clear: int = 24
    """Bytes that are not encrypted: opcode and peer id, packet id, tag."""
    inside: int = 0
    """Bytes encrypted with it: compression framing."""
    block: int = 1
    """What is encrypted is padded to a multiple of this, if it is not 1, and by one byte at least."""


P_DATA_V2_AEAD = DataOverhead()


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What is known of the client's software and place when its options are made."""

    proto: int
    """IV_PROTO; 0 if it sent none."""
    iv_mtu: int | None
    """IV_MTU, the largest tun-mtu it accepts; None: it does not understand a pushed one."""
    own_mtu: int | None
    """That of its own configuration, which it keeps if it does not. It drops what is longer. None: not told."""
    platform: str
    """IV_PLAT, as sent: ``win``, ``linux``, ``android`` …"""
    transport: Transport
    address: IPAddress
    """Where its packets come from; IPv4-mapped already folded."""
    server_address: IPAddress | None = None
    """The gateway's own address that they arrive at, None if not known."""
    lan: IPNetwork | None = None
    """Its local network: told by the client, or that of our interface if it is attached directly. None: not known."""
    data_overhead: DataOverhead = P_DATA_V2_AEAD
    answers_occ: bool = False
    """Its version answers OCC requests in the data channel: OpenVPN 2. Where the kernel carries its data none
    will come, which is found out."""
