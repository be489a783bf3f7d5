"""``LightClient``: an OpenVPN client's control and data channel, sans-IO, on the pieces of ``cvpnd.wire``.

The same verbs as ``cvpnd.wire.session.Session``: packets and time in, packets, events and the next time out.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from OpenSSL import SSL

from cvpnd.secret import Secret
from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.key_material import CBC_CIPHERS, DataChannelKeys, data_channel_keys, export_key2, prf_key2
from cvpnd.wire.key_method import (
    Capability,
    KeyMessage,
    KeySource,
    option_value,
    parse_key_message,
    parse_peer_id,
    parse_peer_info,
    serialise_key_message,
)
from cvpnd.wire.key_state import CLIENT_RANDOM_BYTES
from cvpnd.wire.messages import (
    EXIT,
    PUSH_REQUEST,
    MessageReader,
    parse_message,
    parse_push_reply,
    serialise_message,
)
from cvpnd.wire.packet import SESSION_ID_BYTES, ControlPacket, Opcode, Transport
from cvpnd.wire.reliable import ReliableLayer, payload_limit
from cvpnd.wire.tls import TlsConnection
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.session_wrap import SessionWrap
from cvpnd.wire.wrap.tls_crypt import DYNAMIC_LABEL, TlsCrypt, dynamic_key2
from cvpnd.wire.wrap.tls_crypt_v2 import EARLY_NEGOTIATION, RESEND_WKC, TlsCryptV2Client
from cvpnd.wire.wrap.wrapping import KEY2_BYTES, Wrapping
from light_client.data_channel import OCC_EXIT, OCC_MAGIC, PING, UNCOMPRESSED, DataKey, is_data
from light_client.generations import Habits

PUSH_REQUEST_PERIOD_S = 5.0
PEER_INFO_26 = {
    "IV_VER": "2.6.14",
    "IV_PLAT": "linux",
    "IV_TCPNL": "1",
    "IV_MTU": "1600",
    "IV_NCP": "2",
    "IV_CIPHERS": "AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305",
    "IV_PROTO": "990",
}
"""What OpenVPN 2.6 says of itself."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The PUSH_REPLY is complete and the data keys are in place."""

    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyInstalled:
    key_id: int
    keys: DataChannelKeys


@dataclass(frozen=True, slots=True)
class TunnelPacket:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """A text message other than PUSH_REPLY."""

    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The end: TLS failure, AUTH_FAILED, timeout …"""

    reason: str


def _serialise_wide(message: KeyMessage) -> bytes:
    """As AWS's client writes it (openvpn-wire.md section 17)."""
    texts = (message.options, message.username, message.password.text(), message.peer_info)
    raw = [text.encode() + b"\0" if text else b"" for text in texts]
    random = message.source.pre_master + message.source.random1 + message.source.random2
    body = b"\2" + random + b"".join(len(each).to_bytes(4, "big") + each for each in raw)
    return (len(body) + 4).to_bytes(4, "little") + body


def _is_one_message(record: bytes) -> bool:
    """As strictly as OpenVPN 3 looks at it."""
    text = record.removesuffix(b"\0")
    return text != record and all(byte >= 32 and byte != 127 for byte in text) and text != b"PUSH_REPLY"


ClientEvent = Connected | KeyInstalled | TunnelPacket | Told | Failed


class _Stage(Enum):
    RESET = auto()
    TLS = auto()
    SENT_KEY = auto()
    GOT_KEY = auto()
    KEYS = auto()


class _Key:
    """One key id being negotiated or in use."""

    __slots__ = ("buffer", "data", "key_id", "messages", "reliable", "server", "source", "stage", "started_at", "tls")

    def __init__(self, key_id: int, reliable: ReliableLayer, tls: TlsConnection, source: KeySource, now: float) -> None:
        self.key_id = key_id
        self.reliable = reliable
        self.tls = tls
        self.source = source
        self.started_at = now
        self.stage = _Stage.RESET
        self.server: KeySource | None = None
        self.data: DataKey | None = None
        self.buffer = b""
        self.messages = MessageReader()

    def flush(self) -> None:
        self.reliable.queue_stream(self.tls.output())


class LightClient:
    """One connection attempt; make a new one to reconnect."""

    def __init__(
        self,
        context: SSL.Context,
        now: float,
        *,
        transport: Transport = Transport.UDP,
        ipv6: bool = False,
        peer_info: dict[str, str] | None = None,
        options: str | None = None,
        username: str = "",
        password: str = "",
        hand_window_s: float = 60.0,
        wrapping: Wrapping = PLAIN,
        early_negotiation: bool = True,
        habits: Habits | None = None,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """``wrapping``: the client's side of one. ``early_negotiation`` False plays OpenVPN 2.5 with tls-crypt-v2, for
        which a server must keep state from the first packet on."""
        proto = "UDPv4" if transport is Transport.UDP else "TCPv4_CLIENT"
        self._context = context
        self._random = random
        self._ipv6 = ipv6
        with_key = isinstance(wrapping, TlsCryptV2Client)
        first_id = EARLY_NEGOTIATION << 24 | 1 if with_key and early_negotiation else 1
        self._wrap = SessionWrap(wrapping, first_id=first_id)
        self._dynamic_wrap: SessionWrap | None = None
        self._client_key_wanted = False
        self._peer_info = PEER_INFO_26 if peer_info is None else peer_info
        self._options = options or f"V4,dev-type tun,link-mtu 1549,tun-mtu 1500,proto {proto},auth SHA256,tls-client"
        self.username = username
        self.password = password
        self._hand_window_s = hand_window_s
        self._habits = habits or Habits()
        self.session_id = random(SESSION_ID_BYTES)
        self.remote_session_id = b""
        self._events: deque[ClientEvent] = deque()
        self._data_out: list[bytes] = []
        self._first_acks: list[bytes] = []
        self._pushed: list[str] = []
        self.push_replies = 0
        self._push_request_at: float | None = None
        self._last_sent = now
        self._last_received = now
        self.options: tuple[str, ...] = ()
        self.connected = False
        self.failed: str | None = None
        self.drops: Counter[DropReason] = Counter()
        self.undecryptable = 0
        self._server_peer_id: int | None = None
        self._keys: dict[int, _Key] = {}
        reset = Opcode.HARD_RESET_CLIENT_V3 if with_key else Opcode.HARD_RESET_CLIENT_V2
        self._newest = self._new_key(0, reset, now)
        self._sending: DataKey | None = None
        self._switch_at: float | None = None
        """When to send with the newest key, if it is not yet time."""
        self._data_elsewhere = False

    # -- the five verbs

    def receive_packet(self, packet: bytes, now: float) -> None:
        if is_data(packet):
            self._receive_data(packet, now)
            return
        try:
            self._receive_control(self._wrap_of(packet[0] & 7 if packet else 0).unwrap(packet, now), now)
        except PeerError as error:
            self.drops[error.reason] += 1
            if error.fatal:
                self._fail(str(error))

    def packets_to_send(self, now: float) -> list[bytes]:
        packets, self._first_acks = self._first_acks, []
        packets += [
            self._wrap_of(key.key_id).wrap(packet)
            for key in self._keys.values()
            for packet in key.reliable.packets_to_send(now)
        ]
        if self.failed is not None:  # what was queued, an alert perhaps, went out once; now only acknowledge
            for key in self._keys.values():
                key.reliable.stop_sending()
        data, self._data_out = self._data_out, []
        if data:
            self._last_sent = now
        return packets + data

    def next_timeout(self) -> float | None:
        if self.failed is not None:
            return None
        times = [key.reliable.next_timeout() for key in self._keys.values()] + [self._push_request_at, self._switch_at]
        if self._negotiating:
            times.append(self._newest.started_at + self._hand_window_s)
        if self.connected and not self._data_elsewhere:
            times.append(self._last_sent + self._seconds("ping") if self._seconds("ping") else None)
            times.append(self._last_received + self._seconds("ping-restart") if self._seconds("ping-restart") else None)
        return min((time for time in times if time is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        if self.failed is not None:
            return
        if self._negotiating and now >= self._newest.started_at + self._hand_window_s:
            self._fail("TLS key negotiation timed out")
            return
        if self._push_request_at is not None and now >= self._push_request_at:
            self._push_request_at = now + PUSH_REQUEST_PERIOD_S
            self.send_message(PUSH_REQUEST)
        if self._switch_at is not None and now >= self._switch_at:
            self._switch_at = None
            self._sending = self._newest.data or self._sending
        if self.connected and not self._data_elsewhere:
            ping, silence = self._seconds("ping"), self._seconds("ping-restart")
            if ping and now >= self._last_sent + ping:
                self._seal(PING)
                self._last_sent = now
            if silence and now >= self._last_received + silence:
                self._fail("ping-restart: the server is silent")

    def next_event(self) -> ClientEvent | None:
        return self._events.popleft() if self._events else None

    # -- what the user does

    def send_tunnel_packet(self, payload: bytes) -> None:
        """Queue one IP packet; only once connected."""
        self._seal(payload)

    def give_away_data(self) -> None:
        """Somebody else carries data under the keys of ``KeyInstalled``, pings too, and watches for the server's."""
        self._data_elsewhere = True

    def send_message(self, text: str) -> None:
        key = self._newest
        if self._switch_at is not None and self._sending is not None:
            key = self._keys.get(self._sending.key_id, key)
        key.tls.send(serialise_message(text))
        key.flush()

    def renegotiate(self, now: float) -> None:
        """Start a new key unless one is under way."""
        if self.connected and self._newest.stage is _Stage.KEYS:
            self._newest = self._new_key(self._newest.key_id % 7 + 1, Opcode.SOFT_RESET_V1, now)

    def exit(self) -> None:
        """Say goodbye the way the server asked for, if that is the client's way."""
        if not self.connected or not self._habits.says_goodbye:
            return
        if any(option.startswith("protocol-flags") and "cc-exit" in option for option in self.options):
            if self._newest.stage is _Stage.KEYS:
                self.send_message(EXIT)
        else:
            self._seal(OCC_EXIT)

    def transport_failed(self, reason: str) -> None:
        """The socket is of no use any more."""
        self._fail(reason)

    @property
    def key_id(self) -> int:
        """Of the newest key, ready or not."""
        return self._newest.key_id

    @property
    def sending_key_id(self) -> int | None:
        return None if self._sending is None else self._sending.key_id

    @property
    def tls_version(self) -> str:
        return self._newest.tls.version

    @property
    def exports_keys(self) -> bool:
        """The data keys come from the TLS connection itself; else from the older exchange inside it."""
        return any("tls-ekm" in o for o in self.options if o.startswith(("protocol-flags", "key-derivation")))

    @property
    def configured_cipher(self) -> str:
        """What is used if none is pushed."""
        return option_value(self._options, "cipher") or "AES-256-GCM"

    def option(self, name: str) -> str | None:
        """The arguments of the first pushed option of that name."""
        for option in self.options:
            word, _, rest = option.partition(" ")
            if word == name:
                return rest
        return None

    # -- control channel

    @property
    def _negotiating(self) -> bool:
        return self._newest.stage is not _Stage.KEYS or not self.connected

    def _new_key(self, key_id: int, opcode: Opcode, now: float) -> _Key:
        limit = payload_limit(1250, ipv6=self._ipv6, wrap_overhead=self._wrap_of(key_id).overhead)
        reliable = ReliableLayer(
            key_id,
            self.session_id,
            self.remote_session_id,
            payload_limit=limit,
            first_timeout_s=self._habits.first_timeout_s,
            habits=self._habits.reliable,
        )
        source = KeySource.cut(self._random(CLIENT_RANDOM_BYTES), with_pre_master=True)
        key = _Key(key_id, reliable, TlsConnection(self._context, server=False), source, now)
        reliable.queue_payload(opcode)
        for old in [old for old in self._keys if key_id > 0 and old not in (self._newest.key_id, key_id)]:
            del self._keys[old]
        self._keys[key_id] = key
        return key

    def _wrap_of(self, key_id: int) -> SessionWrap:
        of_zero = key_id == 0 and not (self._habits.one_wrapping and len(self._keys) > 1)
        return self._wrap if of_zero or self._dynamic_wrap is None else self._dynamic_wrap

    def _start_tls(self, key: _Key) -> None:
        """The ClientHello; if the server asked for it, with our key, and what does not fit beside it after it."""
        if self._habits.bare_first_ack:
            self._first_acks = [*map(self._wrap_of(key.key_id).wrap, key.reliable.acknowledgements())]
        key.tls.start()
        wrapping = self._wrap.wrapping
        if key.key_id == 0 and self._client_key_wanted and isinstance(wrapping, TlsCryptV2Client):
            hello = key.tls.output()
            room = max(0, key.reliable.payload_limit - len(wrapping.wkc))
            key.reliable.queue_payload(Opcode.CONTROL_WKC_V1, hello[:room])
            key.reliable.queue_stream(hello[room:])
        key.flush()

    def _receive_control(self, packet: ControlPacket, now: float) -> None:
        if not self.remote_session_id:
            if packet.opcode is not Opcode.HARD_RESET_SERVER_V2 or packet.remote_session_id != self.session_id:
                raise PeerError(DropReason.UNROUTABLE)
            self.remote_session_id = packet.session_id
            self._client_key_wanted = packet.payload == RESEND_WKC
            self._newest.reliable.learn_remote_session_id(packet.session_id)
        if packet.session_id != self.remote_session_id:
            raise PeerError(DropReason.UNROUTABLE)
        key = self._keys.get(packet.key_id)
        if packet.opcode is Opcode.SOFT_RESET_V1 and key is not self._newest:
            if self._newest.stage is not _Stage.KEYS or packet.key_id != self._newest.key_id % 7 + 1:
                raise PeerError(DropReason.EARLY_SOFT_RESET)
            key = self._newest = self._new_key(packet.key_id, Opcode.SOFT_RESET_V1, now)
        if key is None or (key is not self._newest and not self._habits.keeps_old_key_s):
            raise PeerError(DropReason.UNKNOWN_KEY_ID)
        self._last_received = now
        if len(packet.acks) > self._habits.most_acks_taken:
            raise PeerError(DropReason.TOO_MANY_ACKS)
        payloads = key.reliable.receive_packet(packet)
        if key.stage is _Stage.RESET and key.reliable.all_acknowledged and key.reliable.heard:
            key.stage = _Stage.TLS
            self._start_tls(key)
        if payloads:
            self._receive_tls(key, b"".join(payloads), now)
        self._finish(key, now)

    def _receive_tls(self, key: _Key, data: bytes, now: float) -> None:
        try:
            records = key.tls.receive(data)
        finally:
            key.flush()
        if key.stage is _Stage.TLS and key.tls.established:
            unsaid = self._habits.said_once if self.connected else ()
            info = "".join(f"{name}={value}\n" for name, value in self._peer_info.items() if name not in unsaid)
            message = KeyMessage(key.source, self._options, self.username, Secret.of_text(self.password), info)
            serialise = _serialise_wide if self._habits.wide_lengths else serialise_key_message
            key.tls.send(serialise(message))
            key.flush()
            key.stage = _Stage.SENT_KEY
        for record in records:
            if key.stage is _Stage.SENT_KEY:
                key.buffer += record
                answer = parse_key_message(key.buffer, from_client=False)
                if answer is not None:
                    key.server = answer.source
                    if not self.connected:
                        self._server_peer_id = parse_peer_info(answer.peer_info).peer_id
                    key.stage = _Stage.GOT_KEY
                    if not self.connected:
                        unasked = int(self._peer_info.get("IV_PROTO", "0")) & 4
                        patient = unasked and not self._habits.asks_anyway
                        self._push_request_at = now + PUSH_REQUEST_PERIOD_S if patient else now
            elif self._habits.strict_messages and not _is_one_message(record):
                self._fail(f"a record that is not one message: {record!r}")
            else:
                for raw in key.messages.feed(record):
                    self._read_text(parse_message(raw))

    def _read_text(self, text: str) -> None:
        if text.startswith("PUSH_REPLY"):
            reply = parse_push_reply(text)
            self._pushed += reply.options
            if not reply.more_follow:
                self._push_request_at = None
                self.options = tuple(self._pushed)
                self._pushed.clear()
                self.push_replies += 1
                self.password = self.option("auth-token") or self.password
                if self._habits.asks_again and self.push_replies == 1:
                    self.send_message(PUSH_REQUEST)
            return
        if text.startswith("PUSH_UPDATE,") and int(self._peer_info.get("IV_PROTO", "0")) & Capability.PUSH_UPDATE:
            update = parse_push_reply(text)
            self._pushed += update.options
            if not update.more_follow:
                self._update_options(self._pushed)
                self._pushed.clear()
            return
        self._events.append(Told(text))
        if text.partition(",")[0] in ("AUTH_FAILED", "HALT", "RESTART"):
            self._fail(text)

    def _update_options(self, changes: list[str]) -> None:
        """``name …`` replaces all former values of that option, ``-name`` removes it; ``?`` before it is no order."""
        plain = [change.replace("?", "", 1) if change.startswith(("?", "-?")) else change for change in changes]
        named = {change.removeprefix("-").partition(" ")[0] for change in plain}
        kept = [option for option in self.options if option.partition(" ")[0] not in named]
        self.options = (*kept, *(change for change in plain if not change.startswith("-")))
        self._events.append(Told("PUSH_UPDATE"))

    def _finish(self, key: _Key, now: float) -> None:
        """Make the data keys once everything for them is there."""
        if key.stage is not _Stage.GOT_KEY or not self.options:
            return
        if key.key_id != 0 and not key.reliable.all_acknowledged:
            return
        flags = " ".join(o for o in self.options if o.startswith(("protocol-flags", "key-derivation")))
        if self.exports_keys:
            key2 = export_key2(key.tls)
        else:
            assert key.server is not None
            key2 = prf_key2(key.source, key.server, self.session_id, self.remote_session_id)
        cipher = self.option("cipher") or self.configured_cipher
        digest = (option_value(self._options, "auth") or "SHA1") if cipher in CBC_CIPHERS else ""
        keys = data_channel_keys(key2, cipher, server=False, epoch="aead-epoch" in flags, digest=digest)
        if key.key_id == 0 and "dyn-tls-crypt" in flags:
            exported = key.tls.export(DYNAMIC_LABEL, KEY2_BYTES)
            key2_of_renegotiations = dynamic_key2(exported, self._wrap.wrapping.key2)
            self._dynamic_wrap = SessionWrap(TlsCrypt(key2_of_renegotiations, server=False))
        key.source.wipe()
        key.stage = _Stage.KEYS
        key.data = self._data_key(key.key_id, keys)
        if self._sending is None or not self._habits.keeps_old_key_s:
            self._sending = key.data
        else:
            self._switch_at = now + self._habits.keeps_old_key_s
        self._events.append(KeyInstalled(key.key_id, keys))
        if not self.connected:
            self.connected = True
            self._events.append(Connected(self.options))

    def _data_key(self, key_id: int, keys: DataChannelKeys) -> DataKey:
        """With the peer ids told in the key exchange (openvpn-wire.md 9.3), or with the pushed one, or none."""
        pushed = self.option("peer-id")
        theirs, ours = (int(pushed), int(pushed)) if pushed is not None else (None, None)
        if self._server_peer_id is not None:
            theirs, ours = self._server_peer_id, parse_peer_id(self._peer_info.get("ID", ""))
        return DataKey(
            key_id,
            theirs,
            keys,
            own_peer_id=ours,
            framing=UNCOMPRESSED if self.framed else b"",
            packets_per_epoch=self._habits.packets_per_epoch,
        )

    @property
    def framed(self) -> bool:
        """Every payload is marked as not compressed."""
        return self.option("comp-lzo") == "no"

    @property
    def data_format(self) -> str:
        """Of the newest data key, for a table."""
        if self._sending is None:
            return ""
        has_ids = self.option("peer-id") is not None or self._server_peer_id is not None
        form = f"epoch {self._sending.epoch}" if self._sending.epoch else "V2" if has_ids else "V1"
        if (self.option("cipher") or self.configured_cipher) in CBC_CIPHERS:
            form += " CBC"
        asymmetric = " ID=" if self._server_peer_id is not None else ""
        return form + asymmetric + (" FA" if self.framed else "")

    def _fail(self, reason: str) -> None:
        if self.failed is None:
            self.failed = reason
            self._events.append(Failed(reason))

    # -- data channel

    def _seal(self, payload: bytes) -> None:
        if self._sending is not None and not self._data_elsewhere:
            self._data_out.append(self._sending.seal(payload))

    def _receive_data(self, packet: bytes, now: float) -> None:
        key = self._keys.get(packet[0] & 7)
        if key is None and not any(packet[4:]):
            return  # the gateway sees whether routers let it pass
        payload = key.data.open(packet) if key is not None and key.data is not None else None
        if payload is None:
            self.undecryptable += 1
            return
        self._last_received = now
        if payload.startswith(OCC_MAGIC):
            self._answer_occ(payload[len(OCC_MAGIC) :])
        elif payload != PING:
            self._events.append(TunnelPacket(payload))

    def _answer_occ(self, message: bytes) -> None:
        """A load of the length asked for, counted as OpenVPN 2.6 does (openvpn-wire.md 11.7)."""
        if message[:1] == b"\x02" and len(message) >= 3:
            self._seal((OCC_MAGIC + b"\x03").ljust(int.from_bytes(message[1:3], "big") - 24, b"\x00"))

    def _seconds(self, name: str) -> float:
        return float(self.option(name) or 0)
