"""Ordered, acknowledged control packets of one key state (openvpn-wire.md section 4).

Both directions count from 0; the reset is number 0. What is received in order goes up, what is acknowledged is
forgotten. The windows and timers are the reference implementation's, which every client is tuned to. All
arithmetic on ids is modulo 2^32. ``native/reliable.c`` does the same for the server's sessions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.packet import HEADER_BYTES, SESSION_ID_BYTES, TLS_OPCODES, ControlPacket, Opcode

SEND_WINDOW = 6
"""Packets in flight. Fits the receive window of 8 of OpenVPN 2.4 and 2.5 as well."""
RECEIVE_WINDOW = 12
ACKS_ON_CONTROL = 4
ACKS_ON_ACK = 4
"""The limit is 8, but SoftEther understands no more than 4 in any packet; the rest goes into another one."""
MAX_QUEUED_ACKS = RECEIVE_WINDOW
"""More are dropped: the peer repeats the packet, and the acknowledgement is made again."""
FIRST_TIMEOUT_S = 2.0
MAX_TIMEOUT_S = 60.0
"""The reference goes on doubling; within a handshake's 60 s nobody sees a difference, and a message that is sent during
an outage should not arrive an hour after its end."""
HIGHER_ACKS_FOR_RETRANSMIT = 3
_IP_UDP_BYTES_V4 = 28
_IP_UDP_BYTES_V6 = 48
_ACK_BLOCK_BYTES = 1 + 4 * ACKS_ON_CONTROL + SESSION_ID_BYTES
_PACKET_ID_BYTES = 4
_MASK = 0xFFFFFFFF
_HALF = 1 << 31


@dataclass(frozen=True, slots=True)
class ReliableHabits:
    """What implementations of this layer do differently. The defaults are ours; others' let tests play them."""

    send_window: int = SEND_WINDOW
    receive_window: int = RECEIVE_WINDOW
    acks_on_control: int = ACKS_ON_CONTROL
    acks_on_ack: int = ACKS_ON_ACK
    repeats_acks: bool = True
    """Acknowledge again what was acknowledged lately, so that a lost acknowledgement heals itself."""


OURS = ReliableHabits()


def payload_limit(max_packet_bytes: int, *, ipv6: bool, wrap_overhead: int) -> int:
    """TLS bytes for each packet. Room is kept for four acknowledgements, and also on TCP for an IP and UDP header."""
    outer = _IP_UDP_BYTES_V6 if ipv6 else _IP_UDP_BYTES_V4
    return max_packet_bytes - outer - HEADER_BYTES - _ACK_BLOCK_BYTES - _PACKET_ID_BYTES - wrap_overhead


class _Outgoing:
    __slots__ = ("due", "higher_acks", "opcode", "packet_id", "payload", "timeout_s")

    def __init__(self, packet_id: int, opcode: Opcode, payload: bytes, now: float, timeout_s: float) -> None:
        self.packet_id = packet_id
        self.opcode = opcode
        self.payload = payload
        self.due = now
        self.timeout_s = timeout_s
        self.higher_acks = 0
        """Acknowledgements of later packets since this one was last sent: it was probably lost."""


class ReliableLayer:
    """One for each key id; it never mixes sessions because a packet's acknowledgements name the session."""

    __slots__ = (
        "_acks",
        "_backlog",
        "_duplicates",
        "_expected",
        "_first_timeout_s",
        "_habits",
        "_in_flight",
        "_key_id",
        "_local_session_id",
        "_next_id",
        "_received",
        "_recent_acks",
        "_remote_session_id",
        "backlog_bytes",
        "payload_limit",
        "retransmits",
    )

    def __init__(
        self,
        key_id: int,
        local_session_id: bytes,
        remote_session_id: bytes,
        *,
        payload_limit: int,
        first_id: int = 0,
        first_timeout_s: float = FIRST_TIMEOUT_S,
        habits: ReliableHabits = OURS,
    ) -> None:
        """``first_id`` 1 continues after a stateless exchange of resets, where number 0 is done in both directions."""
        self._key_id = key_id
        self._local_session_id = local_session_id
        self._remote_session_id = remote_session_id
        self._first_timeout_s = first_timeout_s
        self._habits = habits
        self._expected = first_id
        self._next_id = first_id
        self._received: dict[int, bytes] = {}
        self._acks: list[int] = []
        self._recent_acks: list[int] = []
        self._in_flight: list[_Outgoing] = []
        self._backlog: list[tuple[Opcode, bytes]] = []
        self.backlog_bytes = 0
        """What waits for the peer to acknowledge what came before."""
        self.payload_limit = payload_limit
        self._duplicates = 0
        self.retransmits = True
        """Whether packets are due again by themselves; False: only by ``restart``, towards an address that nobody has
        proven yet."""

    @property
    def all_acknowledged(self) -> bool:
        """Nothing of ours is under way or waiting."""
        return not self._in_flight and not self._backlog

    @property
    def heard(self) -> bool:
        """Whether the peer has sent anything under this key id that we took."""
        return self._expected != 0 or bool(self._received)

    @property
    def remote_session_id(self) -> bytes:
        return self._remote_session_id

    def learn_remote_session_id(self, session_id: bytes) -> None:
        """A client hears the server's session id with the answer to its reset."""
        self._remote_session_id = session_id

    def receive_packet(self, packet: ControlPacket) -> list[bytes]:
        """Take one packet and return the TLS bytes that are in order now. Raises ``PeerError``."""
        if packet.acks:
            if packet.remote_session_id != self._local_session_id:
                raise PeerError(DropReason.FOREIGN_ACK)
            if self._in_flight:
                for acknowledged in packet.acks:
                    self._forget(acknowledged)
        if packet.packet_id is None:
            return []
        packet_id = packet.packet_id
        ahead = (packet_id - self._expected) & _MASK
        # Accepting and acknowledging are one decision, in three branches: beyond the window neither (an
        # acknowledged packet that was dropped would stall the handshake for good), before it acknowledge only
        # (our first acknowledgement may have been lost), inside it both.
        if self._habits.receive_window <= ahead < _HALF:
            raise PeerError(DropReason.BEYOND_WINDOW, f"id {packet_id}, expected {self._expected}")
        self._queue_ack(packet_id)
        if ahead >= _HALF or packet_id in self._received:
            self._duplicates += 1
            return []
        payload = packet.payload if packet.opcode in TLS_OPCODES else b""
        if ahead == 0 and not self._received:
            self._expected = (packet_id + 1) & _MASK
            return [payload] if payload else []
        self._received[packet_id] = payload
        in_order = []
        while self._expected in self._received:
            payload = self._received.pop(self._expected)
            self._expected = (self._expected + 1) & _MASK
            if payload:
                in_order.append(payload)
        return in_order

    def queue_payload(self, opcode: Opcode, payload: bytes = b"") -> None:
        """Send this reliably, behind everything queued before."""
        self._backlog.append((opcode, payload))
        self.backlog_bytes += len(payload)

    def queue_stream(self, data: bytes) -> None:
        """Send TLS bytes, cut to size."""
        for start in range(0, len(data), self.payload_limit):
            self.queue_payload(Opcode.CONTROL_V1, data[start : start + self.payload_limit])

    def packets_to_send(self, now: float) -> list[ControlPacket]:
        """New packets as far as the window reaches, those due again, and a bare ACK if acknowledgements are left."""
        while self._backlog and self._window_open():
            opcode, payload = self._backlog.pop(0)
            self.backlog_bytes -= len(payload)
            self._in_flight.append(_Outgoing(self._next_id, opcode, payload, now, self._first_timeout_s))
            self._next_id = (self._next_id + 1) & _MASK
        if not self._in_flight:
            return self.acknowledgements()
        packets = []
        for outgoing in self._in_flight:
            if now < outgoing.due and outgoing.higher_acks < HIGHER_ACKS_FOR_RETRANSMIT:
                continue
            outgoing.due = now + (outgoing.timeout_s if self.retransmits else math.inf)
            outgoing.timeout_s = min(2 * outgoing.timeout_s, MAX_TIMEOUT_S)
            outgoing.higher_acks = 0
            packets.append(
                self._packet(outgoing.opcode, outgoing.packet_id, outgoing.payload, self._habits.acks_on_control)
            )
        return packets + self.acknowledgements() if self._acks else packets

    def acknowledgements(self) -> list[ControlPacket]:
        """Bare ACKs for all that waits to be acknowledged."""
        packets = []
        while self._acks:
            packets.append(self._packet(Opcode.ACK_V1, None, b"", self._habits.acks_on_ack))
        return packets

    def next_timeout(self) -> float | None:
        """When the earliest unacknowledged packet is due again."""
        return min([outgoing.due for outgoing in self._in_flight]) if self._in_flight else None

    def restart(self, now: float) -> None:
        """The peer's reset came (again): all of ours is due at once, with the first timeout."""
        for outgoing in self._in_flight:
            outgoing.due = now
            outgoing.timeout_s = self._first_timeout_s

    def take_duplicates(self) -> int:
        """How many packets came more than once since the last call."""
        count, self._duplicates = self._duplicates, 0
        return count

    def stop_sending(self) -> None:
        """Forget what is under way; only acknowledge from now on."""
        self._in_flight.clear()
        self._backlog.clear()
        self.backlog_bytes = 0

    def inspect(self) -> tuple[int, int, int, list[tuple[int, float, int]], list[int], list[int], list[int], int]:
        """For tests, all that a packet could change."""
        in_flight = [(outgoing.packet_id, outgoing.due, outgoing.higher_acks) for outgoing in self._in_flight]
        early = [self._expected + ahead & _MASK for ahead in range(self._habits.receive_window)]
        return (
            self._key_id,
            self._expected,
            self._next_id,
            in_flight,
            [packet_id for packet_id in early if packet_id in self._received],
            list(self._acks),
            list(self._recent_acks),
            self.backlog_bytes,
        )

    def _window_open(self) -> bool:
        if not self._in_flight:
            return True
        return (self._next_id - self._in_flight[0].packet_id) & _MASK < self._habits.send_window

    def _forget(self, acknowledged: int) -> None:
        """The peer has ``acknowledged``. Repeated and invented ids find nothing and change nothing: else a few
        bytes, said again and again, would have all that is in flight sent again and again."""
        for position, outgoing in enumerate(self._in_flight):
            if outgoing.packet_id == acknowledged:
                del self._in_flight[position]
                for earlier in self._in_flight[:position]:
                    earlier.higher_acks += 1
                return

    def _queue_ack(self, packet_id: int) -> None:
        if packet_id not in self._acks and len(self._acks) < MAX_QUEUED_ACKS:
            self._acks.append(packet_id)

    def _packet(self, opcode: Opcode, packet_id: int | None, payload: bytes, most: int) -> ControlPacket:
        """New acknowledgements first, then recent ones again: so a lost acknowledgement heals itself."""
        if not self._habits.repeats_acks:
            self._recent_acks.clear()
        if self._acks:
            new = self._acks[:most]
            del self._acks[:most]
            again = [ack for ack in self._recent_acks if ack not in new]
            self._recent_acks = [*reversed(new), *again][: self._habits.acks_on_ack]
        acks = tuple(self._recent_acks[:most])
        return ControlPacket(
            opcode,
            self._key_id,
            self._local_session_id,
            acks,
            self._remote_session_id if acks else b"",
            packet_id,
            payload,
        )
