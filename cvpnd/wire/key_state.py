"""A key state: one TLS handshake and the data keys it yields. Everything that affects its states lives here.

Three small machines, so that a slow login cannot distort the handshake:

*Negotiation*, with OpenVPN's own names. The server's way:

    INITIAL ─ RESET_SENT ─▶ PRE_START ─ RESET_ACKED ─▶ START ─ KEY_RECEIVED ─▶ GOT_KEY ─ KEY_SENT ─▶ SENT_KEY
       └───────────────── COOKIE_ECHOED ─────────────────▲                                              │
                                                 GENERATED_KEYS ◀─ KEYS_GENERATED ─ ACTIVE ◀─ ALL_ACKED ┘

  After a stateless exchange both resets are done, so the echo leads straight to START. ``PRE_START`` may also jump to
  ``GOT_KEY``: the acknowledgements of our reset can all get lost while what follows them arrives.
  Text messages flow from ACTIVE on; data packets from GENERATED_KEYS on. On a renegotiation the data keys are made
  in SENT_KEY already, before our key message goes out: a client whose other keys are young uses the new one at once,
  and its first packet under it may arrive in the same instant as the acknowledgement that makes us ACTIVE.

*Authentication*: FALSE until the credentials are here, DEFERRED while login decides, then TRUE or FALSE for good.

*Slot*: PENDING while negotiating, then PRIMARY; LAME_DUCK once a newer one is primary (its data keys still open
packets, its TLS connection still brings text for a while); RETIRED when expired, replaced or abandoned.

What is not in a table is an ERROR, which nothing leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING

from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.key_material import DataChannelKeys, data_channel_keys, export_key2, prf_key2
from cvpnd.wire.key_method import (
    PRE_MASTER_BYTES,
    RANDOM_BYTES,
    KeyMessage,
    KeySource,
    announced_length,
    parse_key_message,
    serialise_answer,
)
from cvpnd.wire.messages import MessageReader, serialise_message
from cvpnd.wire.negotiation import KeyDerivation, Negotiated
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.tls import TlsConnection

if TYPE_CHECKING:
    from cvpnd.wire.channel import Channel

SERVER_RANDOM_BYTES = 2 * RANDOM_BYTES
CLIENT_RANDOM_BYTES = PRE_MASTER_BYTES + 2 * RANDOM_BYTES
MOST_EARLY_BYTES = 8192
"""Of TLS from who has not acknowledged our reset: a ClientHello has 300 to 2,000."""


class _State(Enum):
    """Pairs of members are looked up for every packet: an enumeration's own hash is written in Python."""

    __hash__ = object.__hash__


class Negotiation(_State):
    INITIAL = auto()
    PRE_START = auto()
    START = auto()
    GOT_KEY = auto()
    SENT_KEY = auto()
    ACTIVE = auto()
    GENERATED_KEYS = auto()
    ERROR = auto()


class NegotiationInput(_State):
    RESET_SENT = auto()
    COOKIE_ECHOED = auto()
    RESET_ACKED = auto()
    KEY_RECEIVED = auto()
    KEY_SENT = auto()
    ALL_ACKED = auto()
    KEYS_GENERATED = auto()
    FAILED = auto()


class Authentication(_State):
    FALSE = auto()
    DEFERRED = auto()
    TRUE = auto()
    ERROR = auto()


class AuthenticationInput(_State):
    CREDENTIALS = auto()
    ACCEPTED = auto()
    REFUSED = auto()


class Slot(_State):
    PENDING = auto()
    PRIMARY = auto()
    LAME_DUCK = auto()
    RETIRED = auto()
    ERROR = auto()


class SlotInput(_State):
    ESTABLISHED = auto()
    REPLACED = auto()
    GONE = auto()


NEGOTIATION = {
    (Negotiation.INITIAL, NegotiationInput.RESET_SENT): Negotiation.PRE_START,
    (Negotiation.INITIAL, NegotiationInput.COOKIE_ECHOED): Negotiation.START,
    (Negotiation.PRE_START, NegotiationInput.RESET_ACKED): Negotiation.START,
    (Negotiation.PRE_START, NegotiationInput.KEY_RECEIVED): Negotiation.GOT_KEY,
    (Negotiation.START, NegotiationInput.KEY_RECEIVED): Negotiation.GOT_KEY,
    (Negotiation.GOT_KEY, NegotiationInput.KEY_SENT): Negotiation.SENT_KEY,
    (Negotiation.SENT_KEY, NegotiationInput.ALL_ACKED): Negotiation.ACTIVE,
    (Negotiation.ACTIVE, NegotiationInput.KEYS_GENERATED): Negotiation.GENERATED_KEYS,
}
AUTHENTICATION = {
    (Authentication.FALSE, AuthenticationInput.CREDENTIALS): Authentication.DEFERRED,
    (Authentication.DEFERRED, AuthenticationInput.ACCEPTED): Authentication.TRUE,
    (Authentication.DEFERRED, AuthenticationInput.REFUSED): Authentication.FALSE,
}
SLOT = {
    (Slot.PENDING, SlotInput.ESTABLISHED): Slot.PRIMARY,
    (Slot.PENDING, SlotInput.GONE): Slot.RETIRED,
    (Slot.PRIMARY, SlotInput.REPLACED): Slot.LAME_DUCK,
    (Slot.PRIMARY, SlotInput.GONE): Slot.RETIRED,
    (Slot.LAME_DUCK, SlotInput.GONE): Slot.RETIRED,
}


class KeyState:
    """One key id of a server's session. Times are the caller's monotonic seconds."""

    __slots__ = (
        "_early",
        "_hold",
        "_key_buffer",
        "_messages",
        "_tls_bytes",
        "authentication",
        "channel",
        "client_source",
        "expires_at",
        "has_data_keys",
        "key_id",
        "negotiation",
        "server_source",
        "slot",
        "started_at",
        "tls",
        "withholds",
    )

    def __init__(
        self,
        key_id: int,
        channel: Channel,
        tls: TlsConnection,
        now: float,
        hold: Callable[[int], bool] | None = None,
    ) -> None:
        """``channel``: the session's, in which the key id is open. ``hold``: asked for memory for a long key method 2
        message, see ``Session``."""
        self.key_id = key_id
        self._hold = hold
        self.channel = channel
        self.tls: TlsConnection | None = tls
        """None once nobody speaks to it any more, because it takes 39 kB."""
        self.withholds = False
        """TLS hears nothing before the client has acknowledged our reset: nobody has proven the address yet. Our flight
        is several times what brings it about, and certificates, which TLS 1.2 shows in clear, take long to decode."""
        self._early = b""
        """What it is to hear then."""
        self.started_at = now
        self.expires_at: float | None = None
        """Set when a successor's negotiation starts; not postponed by its repeats."""
        self.has_data_keys = False
        self.negotiation = Negotiation.INITIAL
        self.authentication = Authentication.FALSE
        self.slot = Slot.PENDING
        self.client_source: KeySource | None = None
        self.server_source: KeySource | None = None
        self._key_buffer = bytearray()
        self._messages = MessageReader()
        self._tls_bytes = 0

    # -- the machines

    def negotiate(self, what: NegotiationInput) -> None:
        """Raises ``PeerError(OUT_OF_ORDER)``: this order is the peer's doing."""
        before = self.negotiation
        self.negotiation = NEGOTIATION.get((before, what), Negotiation.ERROR)
        if self.negotiation is Negotiation.ERROR and what is not NegotiationInput.FAILED:
            raise PeerError(DropReason.OUT_OF_ORDER, f"{what.name} in {before.name}")

    def authenticate(self, what: AuthenticationInput) -> None:
        """Raises ``UsageError``: login is ours."""
        before = self.authentication
        self.authentication = AUTHENTICATION.get((before, what), Authentication.ERROR)
        if self.authentication is Authentication.ERROR:
            raise UsageError(f"{what.name} in {before.name}")

    def move(self, what: SlotInput) -> None:
        """Raises ``UsageError``."""
        before = self.slot
        self.slot = SLOT.get((before, what), Slot.ERROR)
        if self.slot is Slot.ERROR:
            raise UsageError(f"{what.name} in {before.name}")
        if self.slot in (Slot.LAME_DUCK, Slot.RETIRED):
            self.wipe()
        if self.slot is Slot.LAME_DUCK:
            self.channel.stop_sending(self.key_id)
        if self.slot is Slot.RETIRED:
            self.channel.close_key(self.key_id)
            self.tls = None

    @property
    def carries_text(self) -> bool:
        return self.tls is not None and self.negotiation in (Negotiation.ACTIVE, Negotiation.GENERATED_KEYS)

    @property
    def waits_for_login(self) -> bool:
        """The handshake is done and login takes its time, which is login's to limit."""
        return self.negotiation is Negotiation.ACTIVE and self.authentication is Authentication.DEFERRED

    # -- packets and what is in them

    def receive(self, data: bytes, settings: SessionSettings) -> list[bytearray]:
        """Decrypt the TLS bytes that a packet brought in order, perhaps none; return the application data of each
        record. Raises ``PeerError``."""
        if self.negotiation is Negotiation.PRE_START:
            if self.channel.all_acknowledged(self.key_id):
                self.negotiate(NegotiationInput.RESET_ACKED)
                data, self._early = self._early + data, b""
            elif self.withholds:
                self._early += data
                if len(self._early) > MOST_EARLY_BYTES:
                    raise PeerError(DropReason.LIMIT_BEFORE_LOGIN, f"{len(self._early)} bytes of TLS to a silent peer")
                return []
        if not data or self.tls is None:
            return []
        if self.negotiation in (Negotiation.PRE_START, Negotiation.START):
            self._tls_bytes += len(data)
            if self._tls_bytes > settings.max_tls_bytes:
                raise PeerError(DropReason.LIMIT_BEFORE_LOGIN, f"{self._tls_bytes} bytes of TLS")
        try:
            return self.tls.receive(data)
        finally:
            self._queue_output()  # an alert too

    def note_acknowledgements(self) -> bool:
        """In SENT_KEY: whether the peer has all we sent, and it becomes ACTIVE."""
        complete = self.channel.all_acknowledged(self.key_id)
        if complete:
            self.negotiate(NegotiationInput.ALL_ACKED)
        return complete

    def read_key_message(self, record: bytearray, settings: SessionSettings) -> KeyMessage | None:
        """Collect the client's key method 2 message; None until it is complete. Raises ``PeerError``. The record is
        wiped."""
        self._key_buffer += record
        record[:] = bytes(len(record))
        size, most = len(self._key_buffer), settings.max_key_method_bytes
        if size > most or not self._held(size - settings.free_key_method_bytes):
            raise PeerError(DropReason.KEY_METHOD_TOO_LONG)
        if size < announced_length(self._key_buffer, most):
            return None
        message = parse_key_message(self._key_buffer, from_client=True, most_wide=most)
        if message is not None:
            self._wipe_buffer()
            self.negotiate(NegotiationInput.KEY_RECEIVED)
            self.client_source = message.source
            self.authenticate(AuthenticationInput.CREDENTIALS)
        return message

    def send_key_message(self, options: str, random: bytes, peer_info: str = "") -> None:
        """Our answer, at once and whatever login will say: the client reads no text before it."""
        self.server_source = KeySource.cut(random, with_pre_master=False)
        self._send(serialise_answer(self.server_source, options, peer_info))
        self.negotiate(NegotiationInput.KEY_SENT)

    def read_text(self, record: bytes | bytearray) -> list[bytes]:
        """Complete text messages. Raises ``PeerError``."""
        return self._messages.feed(record)

    def send_text(self, text: str) -> None:
        self._send(serialise_message(text))

    def generate_keys(
        self, negotiated: Negotiated, client_session_id: bytes, server_session_id: bytes
    ) -> DataChannelKeys:
        """Raises ``PeerError`` for a zero key."""
        if self.tls is None or self.client_source is None or self.server_source is None:
            raise UsageError("data keys before the key exchange")
        if negotiated.derivation is KeyDerivation.TLS_EKM:
            key2 = export_key2(self.tls)
        else:
            key2 = prf_key2(self.client_source, self.server_source, client_session_id, server_session_id)
        keys = data_channel_keys(key2, negotiated.cipher, server=True, epoch=negotiated.epoch, digest=negotiated.digest)
        self.has_data_keys = True
        self.wipe()
        return keys

    def wipe(self) -> None:
        """Clear the key exchange's secrets; idempotent."""
        for source in (self.client_source, self.server_source):
            if source is not None:
                source.wipe()
        self.client_source = self.server_source = None
        self._wipe_buffer()

    def _queue_output(self) -> None:
        if self.tls is not None and (output := self.tls.output()):
            self.channel.queue_stream(self.key_id, output)

    def _held(self, surplus: int) -> bool:
        return self._hold is None or self._hold(max(0, surplus))

    def _wipe_buffer(self) -> None:
        if self._key_buffer:
            self._held(0)
        self._key_buffer[:] = bytes(len(self._key_buffer))
        self._key_buffer.clear()

    def _send(self, plaintext: bytes) -> None:
        if self.tls is None:
            raise UsageError("nothing can be sent on this key state any more")
        self.tls.send(plaintext)
        self.channel.queue_stream(self.key_id, self.tls.output())
