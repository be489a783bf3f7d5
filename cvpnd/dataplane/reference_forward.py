"""What the reference data plane decides about a packet, without IO and without a clock.

Client to target network (``link_to_tun``, ``frame_to_tun``):
  1. A control packet becomes an event, within its client's share (``control_limit``); over UDP only one that came glued
     behind data of its client (``stray_control``) belongs here. P_DATA_V1, which has no peer id, comes through the
     control side (``injected_to_tun``).
  2. The peer id leads to the peer (``unknown_peer``), the key id to a key (``no_key``).
  3. The packet is opened (``auth_failed``), and only then held against the replay window (``replayed``).
  4. It is authentic now: the peer is alive, its key may become the sending key, a new address becomes an event.
  5. Compression framing is taken off (``compressed``). Keepalives and notices end here. The rest must be IP
     (``not_ip``) from one of the peer's leases, and an ICMP error about a packet to one of them (``bad_source``).
  6. The most specific rule that contains the destination must meet the peer's groups (``denied``).
  7. The MSS of a TCP SYN is lowered.
  8. A fragment waits until its packet is whole (``bad_fragment``, ``incomplete``); all else goes to the TUN.
Target network to client (``tun_to_link``): the destination leads to a peer (``no_route``), which a rule must let write
to the source, or to where the packet went that an ICMP error quotes (``denied_source``); what is longer than fits it is
cut, or dropped (``too_big``) and its sender told; the peer has a way out and a key (``not_ready``) with a packet id
left, or else a newer one that is installed (``key_exhausted``); MSS as above; sealed and sent.

Section numbers are those of openvpn-wire.md. Every packet either goes on, or ends here as it should, or is one drop;
``float_refused`` and ``events_full`` may count beside a packet that goes on: then it is the report that was dropped.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from ipaddress import ip_address

from cvpnd.dataplane.api import (
    Drop,
    Event,
    FloatSeen,
    Framing,
    IPAddress,
    IPNetwork,
    KeyUsed,
    PeerExit,
    PeerSettings,
    RekeyNeeded,
    SocketAddress,
    StrayControl,
    TcpControl,
)
from cvpnd.dataplane.reference_events import EventQueue
from cvpnd.dataplane.reference_fragments import Place, Unfinished, locate, most_of_peer, upper_layer
from cvpnd.dataplane.reference_keys import (
    CBC_OVERHEAD_MAX,
    OVERHEAD,
    OVERHEAD_V1,
    P_DATA_V1,
    P_DATA_V2,
    KeyLimits,
    KeySlot,
)
from cvpnd.dataplane.reference_path import (
    IPV6_SMALLEST_MTU,
    Path,
    TooBig,
    cut,
    too_big_answer,
    too_big_verdict,
)

CLIENT_CONTROL = frozenset({3, 4, 5, 7, 10, 11})
"""Control opcodes that a client may send (2.2)."""
CONTROL_PER_S = 250.0
"""Control packets of one peer; a busy handshake has some 50 in all."""
KEEPALIVE = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")
OCC_MAGIC = bytes.fromhex("287f346bd4ef7a812d56b8d3afc5459c")
OCC_MTU_LOAD_REQUEST, OCC_MTU_LOAD, OCC_EXIT = 2, 3, 6
NO_PEER_ID = 0xFFFFFF
ICMP_ERRORS_OF_THE_WAY, ICMPV6_ERRORS_OF_THE_WAY = (3, 11, 12), (1, 2, 3, 4)
"""Unreachable, too big, time exceeded, parameter problem. Not redirects, which are the next router's and none comes
this way, and not source quench, which nobody sends (RFC 6633)."""
ICMP_ERRORS, ICMPV6_ERRORS = (3, 4, 5, 11, 12), tuple(bytes([kind]) for kind in range(128))
PACKET_MAX = 2048
"""Longest inner packet; the MTU inside is 1500 as a rule."""
FRAMING_MAX = 2
LINK_PACKET_MAX = PACKET_MAX + FRAMING_MAX + CBC_OVERHEAD_MAX
FLOAT_EVENT_INTERVAL_S = 0.2
TOO_BIG_INTERVAL_S = 0.01
"""Between two answers about one peer."""


# -- what one packet meets ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inner:
    """The IP header inside the tunnel."""

    source: IPAddress
    destination: IPAddress
    length: int  # by the header; what follows is padding


def parse_inner(packet: bytes) -> Inner | None:
    """None unless the bytes start with a complete, well-formed IP packet."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        header, length = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
        if 20 <= header <= length <= len(packet):
            return Inner(ip_address(packet[12:16]), ip_address(packet[16:20]), length)
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        length = 40 + int.from_bytes(packet[4:6], "big")
        if length <= len(packet):
            return Inner(ip_address(packet[8:24]), ip_address(packet[24:40]), length)
    return None


def strip_framing(framing: Framing, payload: bytes) -> bytes | Drop:
    """The payload without what a client with compression in its configuration puts around it (11.8)."""
    if framing is Framing.NONE or (framing is Framing.STUB_V2 and payload[0] != 0x50):
        return payload
    if framing is Framing.STUB_V2:
        if len(payload) < 2:
            return Drop.NOT_IP
        return payload[2:] if payload[1] in (0x00, 0x0A) else Drop.COMPRESSED
    match payload[0]:
        case 0xFA:
            return payload[1:]
        case 0xFB:  # the first byte has given way to the mark and is found at the end
            return (payload[-1:] + payload[1:-1])[: len(payload) - 1]
        case 0x66 | 0x69:
            return Drop.COMPRESSED
    return Drop.NOT_IP


def add_framing(framing: Framing, payload: bytes) -> bytes:
    """No payload of ours starts with 0x50, which is all that ``STUB_V2`` marks."""
    return b"\xfa" + payload if framing is Framing.COMP_LZO else payload


def allowed(rules: Sequence[tuple[IPNetwork, int]], groups: int, destination: IPAddress) -> bool:
    """``rules`` longest prefix first: the first that contains the destination decides, whoever it names."""
    for network, permitted in rules:
        if network.version == destination.version and destination in network:
            return permitted & groups != 0
    return False


def quoted_destination(packet: bytes, inner: Inner) -> IPAddress | None:
    """Where the packet went that an ICMP error to its sender is about, from on its way; None when this is none."""
    v4 = packet[0] >> 4 == 4
    header, protocol = ((packet[0] & 15) * 4, packet[9]) if v4 else (40, packet[6])
    behind = v4 and int.from_bytes(packet[6:8], "big") & 0x1FFF
    quoted = packet[header + 8 : inner.length]
    if behind or protocol != (socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6) or len(quoted) < (20 if v4 else 40):
        return None
    if packet[header] not in (ICMP_ERRORS_OF_THE_WAY if v4 else ICMPV6_ERRORS_OF_THE_WAY):
        return None
    source, destination = (quoted[12:16], quoted[16:20]) if v4 else (quoted[8:24], quoted[24:40])
    if quoted[0] >> 4 != packet[0] >> 4 or source != inner.destination.packed:
        return None
    return ip_address(destination)


def error_about(packet: bytes) -> IPAddress | None:
    """Where the packet went that an ICMP error quotes, of any kind; it may be a first fragment or lie behind extension
    headers. None when this is none; the unspecified address when it does not tell."""
    if packet[0] >> 4 == 4:
        protocol, at = packet[9], (packet[0] & 15) * 4
        behind = int.from_bytes(packet[6:8], "big") & 0x1FFF
        if behind or protocol != socket.IPPROTO_ICMP or len(packet) == at or packet[at] not in ICMP_ERRORS:
            return None
        quoted = packet[at + 8 : at + 28]
        return ip_address(quoted[16:20] if len(quoted) == 20 and quoted[0] >> 4 == 4 else bytes(4))
    found = upper_layer(packet)
    if found is None or found[0] != socket.IPPROTO_ICMPV6 or packet[found[1] : found[1] + 1] not in ICMPV6_ERRORS:
        return None
    quoted = packet[found[1] + 8 : found[1] + 48]
    return ip_address(quoted[24:40] if len(quoted) == 40 and quoted[0] >> 4 == 6 else bytes(16))


def clamp_mss(packet: bytes, bound_v4: int, bound_v6: int) -> bytes:
    """Lower the MSS option of a TCP SYN to the bound (12); anything else, and a bound of 0, stays as it is.

    An IPv6 SYN behind extension headers does not occur in practice and is left alone."""
    v4 = packet[0] >> 4 == 4
    bound, protocol = (bound_v4, packet[9]) if v4 else (bound_v6, packet[6])
    tcp = (packet[0] & 15) * 4 if v4 else 40
    fragment = v4 and int.from_bytes(packet[6:8], "big") & 0x3FFF
    if bound == 0 or protocol != socket.IPPROTO_TCP or fragment or len(packet) < tcp + 20 or not packet[tcp + 13] & 2:
        return packet
    end = tcp + (packet[tcp + 12] >> 4) * 4
    at = tcp + 20
    if end > len(packet):
        return packet
    while at < end and packet[at] != 0:
        if packet[at] == 1:  # one byte of padding
            at += 1
            continue
        size = packet[at + 1] if at + 1 < end else 0
        if not 2 <= size <= end - at:
            return packet
        if packet[at] == 2 and size == 4:
            changed = bytearray(packet)
            if int.from_bytes(packet[at + 2 : at + 4], "big") > bound:
                changed[at + 2 : at + 4] = bound.to_bytes(2, "big")
                # RFC 1624; in 16-bit words as summed, which an option at an odd offset straddles
                start = at + 2 - (at - tcp) % 2
                total = ~int.from_bytes(packet[tcp + 16 : tcp + 18], "big") & 0xFFFF
                for word in range(start, at + 4, 2):
                    total += ~int.from_bytes(packet[word : word + 2], "big") & 0xFFFF
                    total += int.from_bytes(changed[word : word + 2], "big")
                while total > 0xFFFF:
                    total = (total & 0xFFFF) + (total >> 16)
                changed[tcp + 16 : tcp + 18] = (~total & 0xFFFF).to_bytes(2, "big")
            return bytes(changed)
        at += size
    return packet


# -- what the plane holds ----------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Endpoint:
    tun_fds: list[int]
    rules: list[tuple[IPNetwork, int]] = field(default_factory=list)  # longest prefix first
    leases: dict[IPAddress, Peer] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Listener:
    id: int
    endpoint: int
    sockets: list[socket.socket]


@dataclass(slots=True, eq=False)
class Connection:
    """A TCP connection. ``closed`` says why it is gone; the peer stays."""

    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)
    queue: bytearray = field(default_factory=bytearray)
    closed: str = ""


@dataclass(slots=True, eq=False)
class Peer:
    id: int
    settings: PeerSettings
    groups: int
    last_authentic: float
    last_sent: float
    drops: InitVar[Counter[Drop]]
    keys: dict[int, KeySlot] = field(default_factory=dict)
    sending: KeySlot | None = None
    sending_unproven: bool = False
    """We moved to it before the client did: ``KeyUsed`` is still to be told."""
    keys_installed: int = 0
    remote: tuple[Listener, SocketAddress, str] | None = None
    connection: Connection | None = None
    last_float: float | None = None
    timeout_reported: bool = False
    exit_reported: bool = False
    told_too_big: float | None = None
    path: Path = field(init=False)
    unfinished: Unfinished = field(init=False)
    bytes_in: int = 0
    packets_in: int = 0
    bytes_out: int = 0
    packets_out: int = 0
    packets_denied: int = 0
    control_left: float = CONTROL_PER_S
    control_at: float = 0.0

    def __post_init__(self, drops: Counter[Drop]) -> None:
        self.unfinished = Unfinished(drops)
        self.path = Path(self.settings, self.id * 7919 % 60)


@dataclass(frozen=True, slots=True)
class Sent:
    peer: Peer
    packets: list[bytes]
    unproven: list[bool]
    """Of each: nobody has said that it passes whole."""


class Forwarder:
    """The tables and the decisions made by them."""

    def __init__(self, workers: int, limits: KeyLimits, events: EventQueue) -> None:
        self.workers = workers
        self.limits = limits
        self.endpoints: dict[int, Endpoint] = {}
        self.listeners: dict[int, Listener] = {}
        self.peers: dict[int, Peer] = {}
        self.events = events
        self.drops: Counter[Drop] = Counter()
        self._last_peer: dict[int, int] = {}
        """By worker: whose authentic datagram came last."""
        self.answers: list[bytes] = []
        """To be written to the TUN that the packet just handled came from."""
        self.whole: list[bytes] = []
        """Fragments that the packet just handled was the last of: for its endpoint's TUN."""

    def link_to_tun(
        self, packet: bytes, listener: Listener, worker: int, source: SocketAddress, local: str, now: float
    ) -> bytes | Drop | None:
        """One datagram: the inner packet for the endpoint's TUN, or why not, or None if it ends here as it should."""
        if not packet:
            return Drop.TRUNCATED
        opcode = packet[0] >> 3
        if opcode in CLIENT_CONTROL:
            # Only the kernel brings one here, glued behind data of the same client. Strangers belong to the doorman.
            last = self.peers.get(self._last_peer.get(worker, -1))
            if last is None or last.remote is None or last.remote[:2] != (listener, source):
                return Drop.STRAY_CONTROL
            return self._hand_up(last, StrayControl(listener.id, source, local, packet), now)
        if opcode != P_DATA_V2:
            return Drop.BAD_OPCODE
        if len(packet) <= OVERHEAD:
            return Drop.TRUNCATED
        peer = self.peers.get(int.from_bytes(packet[1:4], "big"))
        if (
            peer is None
            or peer.settings.data_v1
            or peer.settings.endpoint != listener.endpoint
            or peer.id % self.workers != worker
            or peer.connection is not None
        ):
            return Drop.UNKNOWN_PEER
        payload = self._open(peer, packet, now)
        if isinstance(payload, Drop):
            return payload
        self._last_peer[worker] = peer.id
        if peer.remote is None or peer.remote[:2] != (listener, source):
            if peer.last_float is not None and now - peer.last_float < FLOAT_EVENT_INTERVAL_S:
                self.drops[Drop.FLOAT_REFUSED] += 1  # not told again so soon; the packet is authentic and passes
            elif self._tell(FloatSeen(peer.id, listener.id, source, local)):
                peer.last_float = now
        return self._admit(peer, payload, now)

    def frame_to_tun(self, packet: bytes, peer: Peer, now: float) -> bytes | Drop | None:
        """One frame of a TCP connection, which is its peer whatever peer id it claims (2.3)."""
        opcode = packet[0] >> 3
        if opcode in CLIENT_CONTROL:
            return self._hand_up(peer, TcpControl(peer.id, packet), now)
        return self.injected_to_tun(packet, peer, now)

    def injected_to_tun(self, packet: bytes, peer: Peer, now: float) -> bytes | Drop | None:
        """One data packet that is this peer's by the way it came. Without a peer id also from who knows them: a client
        that took up none sends none (openvpn-wire.md 2.3)."""
        if packet[0] >> 3 not in ((P_DATA_V1,) if peer.settings.data_v1 else (P_DATA_V1, P_DATA_V2)):
            return Drop.BAD_OPCODE
        payload = self._open(peer, packet, now)
        return payload if isinstance(payload, Drop) else self._admit(peer, payload, now)

    def tun_to_link(self, packet: bytes, endpoint: Endpoint, now: float) -> Sent | Drop:
        """One inner packet from the target network: to whom it goes, sealed, perhaps in pieces. What is dropped may
        leave an answer to its sender in ``answers``."""
        inner = parse_inner(packet)
        if inner is None:
            return Drop.NOT_IP
        peer = endpoint.leases.get(inner.destination)
        if peer is None:
            return Drop.NO_ROUTE
        if not allowed(endpoint.rules, peer.groups, quoted_destination(packet, inner) or inner.source):
            return Drop.DENIED_SOURCE
        payload = clamp_mss(packet[: inner.length], peer.path.mss_v4, peer.path.mss_v6)
        pieces = [payload]
        peer.path.use(len(payload))
        if len(payload) > peer.path.fits:
            verdict = too_big_verdict(payload)
            if verdict is TooBig.REFUSED:
                self._tell_sender(peer, payload, now)
                return Drop.TOO_BIG
            if verdict is TooBig.CUT:
                pieces = cut(payload, peer.path.fits)
        sent = Sent(peer, [], [])
        for piece in pieces:
            sealed = self.seal_for(peer, piece, now)
            if isinstance(sealed, Drop):
                return sealed
            peer.packets_out += 1
            peer.bytes_out += len(piece)
            sent.packets.append(sealed)
            sent.unproven.append(len(piece) > peer.path.proven)
        return sent

    def _tell_sender(self, peer: Peer, packet: bytes, now: float) -> None:
        if peer.told_too_big is not None and now - peer.told_too_big < TOO_BIG_INTERVAL_S:
            return
        fits = max(peer.path.fits, IPV6_SMALLEST_MTU) if packet[0] >> 4 == 6 else peer.path.fits
        answer = too_big_answer(packet, fits)
        if answer is not None:
            peer.told_too_big = now
            self.answers.append(answer)

    def _open(self, peer: Peer, packet: bytes, now: float) -> bytes | Drop:
        if len(packet) <= (OVERHEAD_V1 if packet[0] >> 3 == P_DATA_V1 else OVERHEAD):
            return Drop.TRUNCATED
        key = peer.keys.get(packet[0] & 7)
        if key is None:
            return Drop.NO_KEY
        payload = key.open(packet) if key.failures <= self.limits.failure_limit else Drop.AUTH_FAILED
        if payload is Drop.AUTH_FAILED:
            key.failures += 1
            if key.failures > self.limits.failure_limit // 2:
                self._tell_rekey(peer, key)
        if isinstance(payload, Drop):
            return payload
        peer.last_authentic = now
        if key.limit_near():
            self._tell_rekey(peer, key)
        # The peer proves that it has the newer key by using it; a late packet of the old one must not switch back.
        newer = peer.sending is None or peer.sending.generation < key.generation
        if newer or (peer.sending is key and peer.sending_unproven):
            peer.sending, peer.sending_unproven = key, False
            self._tell(KeyUsed(peer.id, key.key_id))
        return payload

    def _admit(self, peer: Peer, payload: bytes, now: float) -> bytes | Drop | None:
        stripped = strip_framing(peer.settings.framing, payload)
        if isinstance(stripped, Drop):
            return stripped
        payload = stripped
        if payload == KEEPALIVE:
            return None
        if payload.startswith(OCC_MAGIC) and len(payload) > len(OCC_MAGIC):  # 11.7: exits and loads matter
            if payload[len(OCC_MAGIC)] == OCC_EXIT and not peer.exit_reported:
                peer.exit_reported = True  # clients say it several times
                self.events.put(PeerExit(peer.id), surely=True)
            if payload[len(OCC_MAGIC)] == OCC_MTU_LOAD:
                peer.path.answered(len(payload), now)
            return None
        inner = parse_inner(payload)
        if inner is None:
            return Drop.NOT_IP
        about = error_about(payload[: inner.length])
        if inner.source not in peer.settings.addresses or about not in (None, *peer.settings.addresses):
            return Drop.BAD_SOURCE
        if not allowed(self.endpoints[peer.settings.endpoint].rules, peer.groups, inner.destination):
            peer.packets_denied += 1
            return Drop.DENIED
        peer.packets_in += 1
        peer.bytes_in += inner.length
        packet = clamp_mss(payload[: inner.length], peer.path.mss_v4, peer.path.mss_v6)
        place = locate(packet)
        if isinstance(place, Place):
            most = most_of_peer(sum(each.unfinished.cost for each in self.peers.values()))
            self.whole += peer.unfinished.hold(place, packet, now, most)
            return None
        return packet if place is None else place

    def seal_for(self, peer: Peer, payload: bytes, now: float) -> bytes | Drop:
        key = peer.sending
        if key is None or not (peer.remote or (peer.connection and not peer.connection.closed)):
            return Drop.NOT_READY
        settings = peer.settings
        peer_id = peer.id if settings.remote_peer_id is None else settings.remote_peer_id
        framed = add_framing(settings.framing, payload)
        sealed = key.seal(None if settings.data_v1 else peer_id, framed)
        if key.limit_near():
            self._tell_rekey(peer, key)
        newest = max(peer.keys.values(), key=lambda slot: slot.generation, default=key)
        if sealed is Drop.KEY_EXHAUSTED and newest.generation > key.generation:
            # The client has not used it yet, but with the old one nothing arrives at all.
            peer.sending, peer.sending_unproven = newest, True
            sealed = newest.seal(None if settings.data_v1 else peer_id, framed)
        if not isinstance(sealed, Drop):
            peer.last_sent = now
        return sealed

    def _hand_up(self, peer: Peer, event: Event, now: float) -> Drop | None:
        """A control packet of this peer."""
        peer.control_left = min(CONTROL_PER_S, peer.control_left + (now - peer.control_at) * CONTROL_PER_S)
        peer.control_at = now
        if peer.control_left < 1:
            return Drop.CONTROL_LIMIT
        peer.control_left -= 1
        return None if self.events.put_control(event, peer.id) else Drop.EVENTS_FULL

    def _tell_rekey(self, peer: Peer, key: KeySlot) -> None:
        key.rekey_reported = key.rekey_reported or self._tell(RekeyNeeded(peer.id, key.key_id))

    def _tell(self, event: Event) -> bool:
        told = self.events.put(event)
        self.drops[Drop.EVENTS_FULL] += not told
        return told
