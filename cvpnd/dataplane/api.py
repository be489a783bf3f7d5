"""The narrow door between control and data.

``Session`` and login decide; what they decided is compiled into the few facts below, and the data plane
forwards packets by them. Two planes fit this door: ``native.NativeDataPlane`` (C workers, no GIL) and
``reference.ReferenceDataPlane`` (the plain Python twin, which is the specification). The same tests run on both.

Ownership: every file descriptor handed in belongs to the data plane from then on, which closes it, also when
the call raises. Calls come from one thread (the event loop's); none blocks for longer than a batch of packets.
Errors: ``KeyError`` for an id that does not exist, ``ValueError`` for an argument that is out of range or an id
that is already taken, ``OSError`` from the kernel. After an error nothing has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, Protocol

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

MAX_PEER_ID = 0xFFFFFE
"""0xFFFFFF means "no peer id" on the wire (openvpn-wire.md section 1)."""


HOSTS_REMEMBERED = 1024
"""A handshake asks forty times for the same two."""


class SocketAddress(NamedTuple):
    """Where a datagram came from or goes to. ``host`` is canonical text, IPv4-mapped IPv6 already folded to IPv4."""

    host: str
    port: int
    scope_id: int = 0


@lru_cache(maxsize=HOSTS_REMEMBERED)
def host_text(packed: bytes) -> str:
    """As ``SocketAddress`` has it; nothing for nothing."""
    return str(ip_address(packed)) if packed else ""


@lru_cache(maxsize=HOSTS_REMEMBERED)
def host_bytes(host: str) -> bytes:
    """The inverse. Raises ``ValueError``."""
    return ip_address(host).packed if host else b""


@lru_cache(maxsize=HOSTS_REMEMBERED)
def host_address(host: str) -> IPAddress:
    """Raises ``ValueError``."""
    return ip_address(host)


class Drop(StrEnum):
    """Why a packet went no further. The same words label the ``cvpnd_dropped_packets_total`` metric."""

    TRUNCATED = "truncated"  # shorter than its headers, or not of whole blocks
    BAD_OPCODE = "bad_opcode"  # not a packet a data socket should see
    UNKNOWN_PEER = "unknown_peer"  # no such peer id (on this endpoint)
    NO_KEY = "no_key"  # the peer has no key under that key id, or none for that epoch
    AUTH_FAILED = "auth_failed"  # the AEAD tag or the HMAC does not match
    REPLAYED = "replayed"  # authentic, but seen before or behind the window
    NOT_IP = "not_ip"  # authentic payload that is no well-formed IP packet, ping or notice
    COMPRESSED = "compressed"  # authentic payload that the client compressed; nothing is ever decompressed
    BAD_SOURCE = "bad_source"  # inner source is not one of the peer's leases, or an ICMP error is about others' packets
    BAD_FRAGMENT = "bad_fragment"  # a fragment that no packet can be made of
    INCOMPLETE = "incomplete"  # a fragment whose packet did not become whole in time, or beside too many others
    DENIED = "denied"  # the authorization rules do not allow the destination
    DENIED_SOURCE = "denied_source"  # from TUN: nor would they let the client write to where it comes from
    NO_ROUTE = "no_route"  # from TUN: the destination is nobody's lease
    NOT_READY = "not_ready"  # from TUN: the peer has no key or no address to send to
    TOO_BIG = "too_big"  # from TUN: longer than fits the client's path; its sender is told
    KEY_EXHAUSTED = "key_exhausted"  # packet ids used up, and no newer key is installed
    TUN_FULL = "tun_full"  # the kernel took no more (also write errors)
    LINK_FULL = "link_full"  # the UDP socket took no more (also send errors)
    TCP_QUEUE_FULL = "tcp_queue_full"  # a slow TCP client's queue is full
    EVENTS_FULL = "events_full"  # the ring to the control side is full, or what one client may have waiting there
    CONTROL_LIMIT = "control_limit"  # more control packets of one client in a second than any handshake needs
    STRAY_CONTROL = "stray_control"  # a control packet at a data socket, and not behind data of its client
    INBOX_FULL = "inbox_full"  # more packets were injected than the worker takes
    FLOAT_REFUSED = "float_refused"  # authentic, from yet another address: delivered, but the move is not reported


class Framing(IntEnum):
    """What surrounds each payload of a client whose configuration mentions compression (openvpn-wire.md 11.8)."""

    NONE = 0
    STUB_V2 = 1
    """Nothing, except that a payload which starts with 0x50 is marked."""
    COMP_LZO = 2
    """One byte, which says "not compressed"."""


class TunOffload(IntEnum):
    """What the queues of a TUN speak."""

    PLAIN = 0
    """Bare IP packets (IFF_NO_PI)."""
    TCP = 1
    """A virtio header before each (IFF_VNET_HDR); TCP packets come and go as super-packets."""
    TCP_UDP = 2
    """UDP packets too."""


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What the data plane has to know of one authenticated client."""

    endpoint: int
    addresses: tuple[IPAddress, ...]
    """Leases: the only inner sources accepted, and the inner destinations that lead to this peer."""
    groups: int
    """Bit set of group numbers; bit 0 ("all users") is set for everybody."""
    ping_interval_s: int
    """Send a ping after this long without sending anything; 0 = never."""
    timeout_s: int
    """Report ``PeerTimeout`` after this long without an authentic packet; 0 = never."""
    mss_v4: int = 0
    """Upper bound written into TCP SYN segments in both directions; 0 = leave alone."""
    mss_v6: int = 0
    tunnel_mtu: int = 0
    """The longest packet that the client takes; 0 = any."""
    path_mtu: int = 0
    """UDP: the longest IP packet that may be sent to it. What its path really takes is found out, and the bounds above
    follow; 0 = nobody looks. At least 1280."""
    data_header: int = 24
    """Bytes that its data packets put around a tunnel packet, at most."""
    answers_occ: bool = False
    """It answers OCC requests, so its path can be measured both ways (openvpn-wire.md 11.7)."""
    remote_peer_id: int | None = None
    """Written into packets to the client, if it chose one (openvpn-wire.md 9.3); None = the id it has here."""
    data_v1: bool = False
    """The client knows no peer ids: P_DATA_V1 in both directions. Over UDP its packets come by ``inject``."""
    framing: Framing = Framing.NONE


@dataclass(frozen=True, slots=True)
class DataKeys:
    """One key slot's material, server side. ``open`` is client to server, ``seal`` is server to client.

    ``epoch``: for the epoch format (openvpn-wire.md 11.3). Then the keys are the secrets of epoch 1, 32 bytes whatever
    the cipher, and the IVs are empty. ``digest``: of the HMAC beside a CBC cipher (11.2), whose keys, as long as its
    result, then stand in place of the IVs; empty for an AEAD cipher."""

    cipher: str
    open_key: bytes
    open_iv: bytes
    seal_key: bytes
    seal_iv: bytes
    epoch: bool = False
    digest: str = ""

    def __repr__(self) -> str:
        return f"DataKeys({self.cipher}, …)"


@dataclass(frozen=True, slots=True)
class PeerStats:
    """Counted on inner packets; "in" is from the client."""

    bytes_in: int
    packets_in: int
    bytes_out: int
    packets_out: int
    idle_s: float
    """Seconds since the last authentic packet."""
    packets_denied: int = 0
    """From the client, dropped as ``denied``."""

    @property
    def counts(self) -> tuple[int, ...]:
        """What only grows: bytes in and out, packets in, out and denied."""
        return self.bytes_in, self.bytes_out, self.packets_in, self.packets_out, self.packets_denied


NO_STATS = PeerStats(bytes_in=0, packets_in=0, bytes_out=0, packets_out=0, idle_s=0.0)


def add_counts(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(int.__add__, one, other))


# -- what the workers tell ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StrayControl:
    """A control packet reached a data socket glued behind data of its client (receive coalescing); it belongs to the
    listener."""

    listener: int
    source: SocketAddress
    local: str
    packet: bytes


@dataclass(frozen=True, slots=True)
class TcpControl:
    """A control frame on a TCP connection that a worker owns, without its length prefix."""

    peer_id: int
    packet: bytes


@dataclass(frozen=True, slots=True)
class TcpClosed:
    """The connection is gone (end of file, error, or a framing violation). The peer is still there."""

    peer_id: int
    detail: str


@dataclass(frozen=True, slots=True)
class FloatSeen:
    """An authentic packet came from a new address. Nothing has moved: call ``set_remote`` to move the peer.

    At most one a second for each peer."""

    peer_id: int
    listener: int
    source: SocketAddress
    local: str


@dataclass(frozen=True, slots=True)
class PeerTimeout:
    """Nothing authentic for ``timeout_s``. Reported once."""

    peer_id: int


@dataclass(frozen=True, slots=True)
class PeerExit:
    """The client said goodbye on the data channel (OCC EXIT)."""

    peer_id: int


@dataclass(frozen=True, slots=True)
class KeyUsed:
    """The peer sent its first authentic packet under this key, which from now on is the sending key too."""

    peer_id: int
    key_id: int


@dataclass(frozen=True, slots=True)
class RekeyNeeded:
    """A usage limit of this key is near (packet ids, AEAD blocks, forgeries or epochs, openvpn-wire.md 11.4). Reported
    once for a key."""

    peer_id: int
    key_id: int


Event = StrayControl | TcpControl | TcpClosed | FloatSeen | PeerTimeout | PeerExit | KeyUsed | RekeyNeeded


class DataPlane(Protocol):
    """About a dozen verbs. A worker is a thread with one queue of every TUN and one socket of every UDP listener;
    peer ``p`` is received by worker ``p % workers``."""

    @property
    def workers(self) -> int: ...

    @property
    def crypto_backend(self) -> str:
        """For the log line at start, e.g. ``"OpenSSL EVP (OpenSSL 3.0.17)"``."""
        ...

    # endpoints
    def add_endpoint(self, endpoint: int, tun_fds: Sequence[int], offload: TunOffload = TunOffload.PLAIN) -> None:
        """``tun_fds``: one non-blocking queue for each worker. The plain twin takes ``PLAIN`` only."""
        ...

    def remove_endpoint(self, endpoint: int) -> None:
        """Its listeners and peers must be gone already, else ``ValueError``."""
        ...

    def set_rules(self, endpoint: int, rules: Sequence[tuple[IPNetwork, int]]) -> None:
        """Replace all authorization rules in one step: (prefix, bit set of groups). Prefixes are unique."""
        ...

    def change_rules(self, endpoint: int, changes: Mapping[IPNetwork, int | None]) -> None:
        """Replace the bit sets of these prefixes in one step and leave all others; None: the prefix has none any more.
        After an error all rules are as before."""
        ...

    # listeners
    def add_listener(self, listener: int, endpoint: int, udp_fds: Sequence[int]) -> None:
        """``udp_fds``: one bound, non-blocking UDP socket for each worker (packet info already switched on)."""
        ...

    def remove_listener(self, listener: int) -> None: ...

    # peers
    def add_peer(self, peer_id: int, settings: PeerSettings) -> None: ...

    def remove_peer(self, peer_id: int) -> None:
        """Wipes its keys; flushes what its TCP connection takes at once and closes it."""
        ...

    def set_remote(self, peer_id: int, listener: int, remote: SocketAddress, local: str) -> None:
        """UDP: send to ``remote`` from ``local`` (the gateway's own address; empty = the kernel's choice)."""
        ...

    def attach_tcp(self, peer_id: int, fd: int, received: bytes) -> None:
        """TCP: hand the connected socket over; ``received`` was read already and is not yet parsed (may begin or
        end in the middle of a frame)."""
        ...

    def send_control(self, peer_id: int, packet: bytes) -> None:
        """TCP: queue one control packet (the frame's length prefix is added). Closed connection: silently dropped."""
        ...

    def inject(self, peer_id: int, packet: bytes) -> None:
        """UDP: a data packet that names no peer, found to be this one's by its source address. It never moves the peer.
        Dropped as ``inbox_full`` while the peer's worker has too many of them waiting."""
        ...

    def set_groups(self, peer_id: int, groups: int) -> None: ...

    # keys
    def install_key(self, peer_id: int, key_id: int, keys: DataKeys) -> None:
        """Packets under ``key_id`` (0-7) open from now on. The peer's first key is also the sending key at once;
        a later one becomes it by ``use_key``, with the peer's first packet under it, or when the key before it is used
        up. Replaces a key of that id."""
        ...

    def use_key(self, peer_id: int, key_id: int) -> None: ...

    def remove_key(self, peer_id: int, key_id: int) -> None: ...

    # what happened
    def event_fd(self) -> int:
        """Readable while events wait."""
        ...

    def poll_events(self) -> list[Event]:
        """All events waiting, oldest first."""
        ...

    def peer_stats(self, peer_id: int) -> PeerStats: ...

    def drops(self) -> Mapping[Drop, int]: ...

    def totals(self) -> Mapping[str, int]:
        """Running totals: ``tun_packets_in``, ``tun_packets_out``, ``link_packets_in``, ``link_packets_out``,
        ``receive_calls``, ``receive_messages``, ``tun_write_calls`` … The quotients explain almost every regression:
        segments per message both ways, packets per TUN write."""
        ...

    def close(self) -> None:
        """Stop the workers, close every descriptor, wipe every key. Idempotent."""
        ...
