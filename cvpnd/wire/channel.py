"""A session's control channel between datagrams and TLS bytes: unwrap, replay window, order, acknowledgements,
repeats, wrap.

There are two of it. ``ReferenceChannel`` below is the specification, made of ``wrap/`` and ``reliable.py``;
``_native.ControlChannel`` is what runs, since a handshake has seventeen packets and each of them passes here.
``tests/wire/test_channel.py`` tells both the same stories. What a reset means, and all that concerns TLS, is decided
above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cvpnd import _native
from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.packet import CLIENT_RESETS, HEADER_BYTES, ControlPacket, Opcode, parse_header
from cvpnd.wire.reliable import ReliableLayer
from cvpnd.wire.wrap.plain import Plain
from cvpnd.wire.wrap.session_wrap import SessionWrap, SessionWraps
from cvpnd.wire.wrap.tls_auth import TlsAuth
from cvpnd.wire.wrap.tls_crypt import TlsCrypt
from cvpnd.wire.wrap.tls_crypt_v2 import TlsCryptV2
from cvpnd.wire.wrap.wrapping import Wrapping

RESETS = CLIENT_RESETS | {Opcode.SOFT_RESET_V1}

LayerState = tuple[int, int, int, list[tuple[int, float, int]], list[int], list[int], list[int], int]
ChannelState = tuple[tuple[int, int, int], tuple[int, int, int], list[LayerState]]


class Channel(Protocol):
    """``KeyError`` for a key id that is not open."""

    def open_key(self, key_id: int, payload_limit: int, first_id: int, first_timeout_s: float, /) -> None:
        """``first_id`` 1 continues after a stateless exchange of resets, where number 0 is done in both directions."""

    def close_key(self, key_id: int, /) -> None:
        """Idempotent."""

    def go_dynamic(self, key2: bytes, wall_s: int, /) -> None:
        """Once: packets of later keys are wrapped in tls-crypt under this key from now on, see ``SessionWraps``."""

    def overhead(self, key_id: int, /) -> int: ...

    def receive(self, packet: bytes, now: float, /) -> bytes | str | None:
        """The TLS bytes that are in order now, perhaps none; a ``DropReason`` or its word; or None for a reset (id 0,
        of the client or a soft one), which is taken only by ``take_reset``."""

    def take_reset(self) -> bytes | str:
        """The rest of ``receive``, at once after it, if its key id is open now."""

    def take_duplicates(self) -> int:
        """How many packets came more than once since the last call."""

    def all_acknowledged(self, key_id: int, /) -> bool: ...

    def heard(self, key_id: int, /) -> bool: ...

    def restart(self, key_id: int, now: float, /) -> None: ...

    def set_retransmits(self, key_id: int, on: bool, /) -> None: ...

    def queue(self, key_id: int, opcode: int, /) -> None:
        """A control packet without payload."""

    def queue_stream(self, key_id: int, data: bytes, /) -> None:
        """Send TLS bytes, cut to size."""

    def stop_sending(self, key_id: int, /) -> None: ...

    def packets_to_send(self, now: float, key_id: int = ..., /) -> list[bytes]:
        """Of all keys, the newest first; or of one."""

    def next_timeout(self) -> float | None: ...

    def backlog_bytes(self) -> int:
        """Of the key where most waits for acknowledgements of what came before."""

    def inspect(self) -> ChannelState:
        """For tests: of both wraps the next id, the highest seen and its time; then each key."""


ChannelMaker = Callable[[bytes, bytes, SessionWrap], Channel]
"""From our session id, the client's, and what was agreed with its first packet."""


# -- in C ------------------------------------------------------------------------------------------------------


def describe(wrapping: Wrapping) -> tuple[int, bytes, str, int]:
    """What C has to know of one: kind, key, and of tls-auth digest and direction."""
    match wrapping:
        case Plain():
            return _native.WRAP_PLAIN, b"", "", -1
        case TlsAuth():
            direction = -1 if wrapping.direction is None else wrapping.direction
            return _native.WRAP_TLS_AUTH, wrapping.key2, wrapping.digest, direction
        case TlsCrypt():
            return _native.WRAP_TLS_CRYPT, wrapping.key2, "", -1
        case _:
            raise TypeError(f"{type(wrapping).__name__} is no wrapping of a server")


_PLAIN_KEYS = _native.ControlKeys(_native.WRAP_PLAIN, b"", "", -1, False)


def _keys(wrapping: Wrapping) -> _native.ControlKeys:
    """Made once for each wrapping: all clients of an endpoint share one as a rule."""
    if not isinstance(wrapping, TlsAuth | TlsCrypt):
        return _PLAIN_KEYS if isinstance(wrapping, Plain) else _native.ControlKeys(*describe(wrapping), False)
    if wrapping.native is None:
        wrapping.native = _native.ControlKeys(*describe(wrapping), isinstance(wrapping, TlsCryptV2))
    return wrapping.native


def native_channel(local_session_id: bytes, remote_session_id: bytes, wrap: SessionWrap) -> Channel:
    return _native.ControlChannel(
        local_session_id, remote_session_id, _keys(wrap.wrapping), wrap.first_id, int(wrap.clock())
    )


# -- in Python -------------------------------------------------------------------------------------------------


class ReferenceChannel:
    __slots__ = ("_layers", "_local_session_id", "_remote_session_id", "_reset", "_wraps")

    def __init__(self, local_session_id: bytes, remote_session_id: bytes, wrap: SessionWrap) -> None:
        self._local_session_id = local_session_id
        self._remote_session_id = remote_session_id
        self._wraps = SessionWraps(wrap)
        self._layers: dict[int, ReliableLayer] = {}
        self._reset: ControlPacket | None = None

    # -- keys

    def open_key(self, key_id: int, payload_limit: int, first_id: int, first_timeout_s: float) -> None:
        if key_id in self._layers:
            raise ValueError(f"there is a key {key_id}")
        layer = ReliableLayer(
            key_id,
            self._local_session_id,
            self._remote_session_id,
            payload_limit=payload_limit,
            first_id=first_id,
            first_timeout_s=first_timeout_s,
        )
        self._layers = {key_id: layer} | self._layers

    def close_key(self, key_id: int) -> None:
        self._layers.pop(key_id, None)

    def go_dynamic(self, key2: bytes, wall_s: int) -> None:
        self._wraps.go_dynamic(key2, wall_s)

    def overhead(self, key_id: int) -> int:
        return self._wraps.of(key_id).overhead

    # -- receiving

    def receive(self, packet: bytes, now: float) -> bytes | str | None:
        self._reset = None
        try:
            return self._receive(self._unwrap(packet, now))
        except PeerError as error:
            return error.reason

    def _unwrap(self, packet: bytes, now: float) -> ControlPacket:
        """The session id is in clear, and looked at first: no other client's packet, authentic under a key that they
        share, may move this session's replay window."""
        if packet[1:HEADER_BYTES] != self._remote_session_id:
            parse_header(packet)  # which may know better what is wrong with it
            raise PeerError(DropReason.UNROUTABLE)
        return self._wraps.unwrap(packet, packet[0] & 7, now)

    def _receive(self, packet: ControlPacket) -> bytes | None:
        if packet.opcode is Opcode.HARD_RESET_SERVER_V2:
            raise PeerError(DropReason.BAD_OPCODE)
        if packet.opcode in RESETS:
            if packet.packet_id != 0:
                raise PeerError(DropReason.LATE_PACKET)
            self._reset = packet
            return None
        layer = self._layers.get(packet.key_id)
        if layer is None:
            raise PeerError(DropReason.UNKNOWN_KEY_ID)
        return b"".join(layer.receive_packet(packet))

    def take_reset(self) -> bytes | str:
        packet, self._reset = self._reset, None
        layer = None if packet is None else self._layers.get(packet.key_id)
        if packet is None or layer is None:
            return DropReason.UNKNOWN_KEY_ID
        try:
            return b"".join(layer.receive_packet(packet))
        except PeerError as error:
            return error.reason

    def take_duplicates(self) -> int:
        return sum([layer.take_duplicates() for layer in self._layers.values()])

    def all_acknowledged(self, key_id: int) -> bool:
        return self._layers[key_id].all_acknowledged

    def heard(self, key_id: int) -> bool:
        return self._layers[key_id].heard

    def restart(self, key_id: int, now: float) -> None:
        self._layers[key_id].restart(now)

    def set_retransmits(self, key_id: int, on: bool) -> None:
        self._layers[key_id].retransmits = on

    # -- sending

    def queue(self, key_id: int, opcode: int) -> None:
        self._layers[key_id].queue_payload(Opcode(opcode))

    def queue_stream(self, key_id: int, data: bytes) -> None:
        self._layers[key_id].queue_stream(data)

    def stop_sending(self, key_id: int) -> None:
        self._layers[key_id].stop_sending()

    def packets_to_send(self, now: float, key_id: int | None = None) -> list[bytes]:
        layers = self._layers if key_id is None else {key_id: self._layers[key_id]}
        packets: list[bytes] = []
        for of, layer in layers.items():
            packets += map(self._wraps.of(of).wrap, layer.packets_to_send(now))
        return packets

    def next_timeout(self) -> float | None:
        times = [due for layer in self._layers.values() if (due := layer.next_timeout()) is not None]
        return min(times) if times else None

    def backlog_bytes(self) -> int:
        return max([layer.backlog_bytes for layer in self._layers.values()], default=0)

    # -- for tests

    def inspect(self) -> ChannelState:
        layers = [layer.inspect() for layer in self._layers.values()]
        return self._wraps.of(0).inspect(), self._wraps.of(1).inspect(), layers
