"""``Session``: one client's control channel, across renegotiations. Five verbs in, events out; no socket, no clock.

The caller's loop after each input is: ``next_event`` until None, then ``packets_to_send``, then ``next_timeout``. In
this order, because keys announced by ``KeysReady`` must be installed before the PUSH_REPLY leaves.

What the session decides itself is what a packet, a record or a decision of the server means now. The rest it owns:

- ``key_slots.py``: the key states, their order and their deadlines, which is renegotiation
- ``agreement.py``: what the client said of itself with its first key, and what follows from it
- ``outbox.py``: text on its way, and PUSH_REPLY
- ``channel.py``: packets, between the network and TLS

It ends in one of two ways: at once (``_close``), or after it has acknowledged and repeated its last words for a while
(``_begin_closing``). Either way ``SessionClosed`` is its last event.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence

from OpenSSL import SSL

from cvpnd.reasons import End, Refusal
from cvpnd.wire import messages
from cvpnd.wire.agreement import Agreement
from cvpnd.wire.channel import ChannelMaker, native_channel
from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.events import (
    CredentialsReceived,
    Event,
    KeysReady,
    MessageReceived,
    PeerExit,
    QuestionAnswered,
    SessionClosed,
    TlsEstablished,
)
from cvpnd.wire.key_method import Capability, KeyMessage, PeerInfo, parse_peer_info
from cvpnd.wire.key_slots import KeySlots
from cvpnd.wire.key_state import (
    SERVER_RANDOM_BYTES,
    Authentication,
    AuthenticationInput,
    KeyState,
    Negotiation,
    NegotiationInput,
)
from cvpnd.wire.negotiation import Negotiated, Unsupported
from cvpnd.wire.outbox import Outbox, PushExchange
from cvpnd.wire.packet import Opcode, Transport
from cvpnd.wire.reliable import payload_limit
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.text import printable
from cvpnd.wire.tls import CertificateVerdict, TlsConnection, accepted_name
from cvpnd.wire.wrap.session_wrap import SessionWrap
from cvpnd.wire.wrap.tls_crypt import DYNAMIC_LABEL, dynamic_key2
from cvpnd.wire.wrap.wrapping import KEY2_BYTES

_MALFORMED = frozenset(
    {
        DropReason.TRUNCATED,
        DropReason.BAD_SESSION_ID,
        DropReason.TOO_MANY_ACKS,
        DropReason.TOO_LONG,
        DropReason.NOT_AUTHENTIC,
        DropReason.REPLAYED,
        DropReason.BAD_CLIENT_KEY,
    }
)
"""On UDP anybody can send these in the peer's name; on TCP they are its own and end the connection."""
_CLIENT_RENEGOTIATE_S = 3600.0
"""Of a client whose profile says nothing else: for half of it, it waits for a person at most."""
_AUTHENTIC = frozenset(
    {DropReason.LATE_PACKET, DropReason.UNKNOWN_KEY_ID, DropReason.FOREIGN_ACK, DropReason.BEYOND_WINDOW}
)
"""What is wrong with packets of the client's own."""
_AWAITS_ACKNOWLEDGEMENT = frozenset({Negotiation.PRE_START, Negotiation.SENT_KEY})
"""In all others a packet that brings no data changes nothing here, whatever it acknowledges."""
_SPARE_S = 3.0
"""A client that waits for a person goes on waiting so much longer than we do, so that it hears our no."""


class Session:
    """See the module's text for the order of calls. No verb raises for what a peer sent."""

    __slots__ = (
        "_agreement",
        "_answer_due",
        "_bytes_before_login",
        "_channel",
        "_client_waits_s",
        "_close_at",
        "_closing",
        "_dynamic_due",
        "_farewell",
        "_hold",
        "_ipv6",
        "_keys",
        "_local_session_id",
        "_outbox",
        "_packets_before_login",
        "_push",
        "_random",
        "_remote_session_id",
        "_settings",
        "_silent",
        "_ssl_context",
        "_transport",
        "_verdict",
        "_wrap",
        "closed",
        "drops",
        "events",
        "tls_cipher",
        "tls_version",
    )

    def __init__(
        self,
        settings: SessionSettings,
        now: float,
        *,
        ssl_context: Callable[[], SSL.Context],
        remote_session_id: bytes,
        local_session_id: bytes,
        transport: Transport = Transport.UDP,
        ipv6: bool = False,
        cookie_echoed: bool = False,
        wrap: SessionWrap | None = None,
        renegotiate_jitter: float = 0.0,
        reserve_peer_id: Callable[[], int] | None = None,
        hold: Callable[[int], bool] | None = None,
        drops: Counter[DropReason] | None = None,
        random: Callable[[int], bytes] = os.urandom,
        new_channel: ChannelMaker = native_channel,
    ) -> None:
        """UDP: after ``stateless.check_echo``, with ``cookie_echoed`` and its two session ids. TCP: with the session id
        of the client's reset and a random one of ours; over UDP too where a client cannot echo (``stateless.Opening``).
        Either way, hand the packet itself to ``receive_packet`` next. ``wrap`` None: no wrapping.

        ``ssl_context``: asked anew for each key, so that a session of weeks neither shows a certificate that was
        replaced nor trusts an authority that no longer is.

        ``reserve_peer_id``: asked at most once, for a client that wants to hear its peer id in the key exchange; None:
        it is pushed to everybody. ``hold``: told by how many bytes a message is longer than ``free_key_method_bytes``
        now; False ends the session. ``renegotiate_jitter``: a random number 0..1, fixed for the session. ``drops``: a
        counter to share.
        """
        self._settings = settings
        self._ssl_context = ssl_context
        self._remote_session_id = remote_session_id
        self._local_session_id = local_session_id
        self._transport = transport
        self._wrap = wrap or SessionWrap()
        self._channel = new_channel(local_session_id, remote_session_id, self._wrap)
        self._ipv6 = ipv6
        self._random = random
        self._hold = hold
        self.drops: Counter[DropReason] = Counter() if drops is None else drops
        self.closed = False
        self.tls_version = ""
        self.tls_cipher = ""
        self.events: list[Event] = []
        """For ``next_event``; whoever has nothing else to ask looks whether there is one."""
        self._farewell: list[bytes] = []
        self._outbox = Outbox()
        self._agreement = Agreement(settings.data_ciphers, reserve_peer_id)
        self._push = PushExchange(settings.push_repeat_s)
        self._answer_due = False
        """A question is with the client whose answer comes in text."""
        self._dynamic_due = False
        """Later keys have a wrapping of their own, whose key is not exported yet."""
        self._client_waits_s = float(settings.hand_window_s)
        self._packets_before_login = 0
        self._bytes_before_login = 0
        self._silent = False
        """Nothing is repeated by itself yet, as nobody has proven the address that it goes to."""
        self._closing: SessionClosed | None = None
        self._close_at: float | None = None
        self._verdict = CertificateVerdict()
        first = self._new_key_state(0, now, first_id=1 if cookie_echoed else 0)
        self._keys = KeySlots(settings, self.events, first, renegotiate_jitter)
        if cookie_echoed:
            first.negotiate(NegotiationInput.COOKIE_ECHOED)
        else:
            self._silent = first.withholds = transport is Transport.UDP
            self._channel.set_retransmits(0, not self._silent)
            self._send_reset(first, Opcode.HARD_RESET_SERVER_V2)

    # -- what is known of the client

    @property
    def local_session_id(self) -> bytes:
        return self._local_session_id

    @property
    def remote_session_id(self) -> bytes:
        return self._remote_session_id

    @property
    def verdict(self) -> CertificateVerdict:
        """Of the latest TLS handshake; names the certificate also when it was refused."""
        return self._verdict

    @property
    def peer_info(self) -> PeerInfo:
        return self._agreement.peer_info

    @property
    def negotiated(self) -> Negotiated | None:
        """Cipher, key derivation and features; None before ``accept``."""
        return self._agreement.negotiated

    @property
    def negotiation(self) -> str:
        """How they were found, and what was pushed for them; for the debug log, once decided."""
        return self._agreement.explanation

    @property
    def remote_peer_id(self) -> int | None:
        """What the client wants to see in packets to it; None: the same id in both directions."""
        return self._agreement.remote_peer_id

    @property
    def established(self) -> bool:
        """Accepted, with data keys, and not ending."""
        return self._keys.primary is not None and self._closing is None and not self.closed

    # -- the five verbs

    def receive_packet(self, packet: bytes, now: float) -> None:
        """Take one control packet as it came from the network."""
        if self.closed:
            self.drops[DropReason.CLOSED] += 1
            return
        try:
            if self._dynamic_due and packet and packet[0] & 7:
                self._go_dynamic()
            received = self._channel.receive(packet, now)
            if isinstance(received, str):
                self._dropped(DropReason(received), len(packet))
                return
            if self._keys.primary is None:
                self._limit_before_login(len(packet))  # its own packets; others could use up its share in its name
            if received is None:
                self._receive_reset(packet[0], now)
            elif (state := self._keys.find(packet[0] & 7)) is not None:
                self._receive(state, received, now)
        except PeerError as error:
            self._drop(error)

    def _dropped(self, reason: DropReason, size: int) -> None:
        """Raises ``PeerError``."""
        if reason in _AUTHENTIC and self._keys.primary is None:
            self._limit_before_login(size)
        raise PeerError(reason)

    def _drop(self, error: PeerError) -> None:
        self.drops[error.reason] += 1
        if (self._transport is Transport.TCP and error.reason in _MALFORMED) or error.fatal:
            self._close(self._violation(), str(error))

    def packets_to_send(self, now: float) -> list[bytes]:
        """What goes out now: new, due again, or acknowledgements only."""
        packets, self._farewell = self._farewell, []
        if self.closed:
            return packets
        if self._outbox.holds_text:
            self._outbox.flush(self._keys.pending, self._keys.primary)
        return packets + self._channel.packets_to_send(now) if packets else self._channel.packets_to_send(now)

    def next_timeout(self) -> float | None:
        """When to call ``handle_timeout`` and then ``packets_to_send``; None: only when something arrives."""
        if self.closed:
            return None
        due = self._close_at if self._closing is not None else self._keys.next_timeout()
        again = self._channel.next_timeout()
        return again if again is not None and (due is None or again < due) else due

    def handle_timeout(self, now: float) -> None:
        """Act on every deadline that has passed."""
        if self.closed:
            return
        if self._close_at is not None and now >= self._close_at:
            assert self._closing is not None  # noqa: S101 - set together with _close_at
            self._close(self._closing.reason, self._closing.detail)
            return
        if self._closing is not None:
            return
        keys = self._keys
        if keys.overdue(now):
            if keys.primary is None:
                self._close(Refusal.HANDSHAKE_TIMEOUT, f"not complete after {self._settings.hand_window_s:g} s")
                return
            keys.abandon("timed out", now)
        if keys.expired(now):
            self._close(End.RENEGOTIATION_FAILED, "the last key expired without a successor")
            return
        keys.use_key_if_due(now)
        keys.leave_old_key_if_due(now)
        if keys.renegotiation_due(now):
            self.renegotiate(now)

    def next_event(self) -> Event | None:
        return self.events.pop(0) if self.events else None

    # -- decisions of the server

    def negotiate(self) -> Negotiated | Unsupported:
        """What ``accept`` is going to act on: known with the credentials of the first key."""
        return self._agreement.negotiate()

    def ask(self, question: str, wait_s: float, now: float) -> float:
        """Between ``CredentialsReceived`` on the first key and the decision: the person at the client has something to
        do first (``messages.web_auth``, ``open_url``, ``cr_text``: what the client announced in IV_SSO), and the client
        is to wait for that. Returns for how long it does, which may be less than ``wait_s``: the caller decides before
        (openvpn-wire.md 15.3). May be called again."""
        if self._keys.primary is not None:
            raise UsageError("a question after the first key")
        state = self._deferred()
        if state is None:
            return 0.0
        settings, passed = self._settings, now - state.started_at
        understood = Capability.AUTH_PENDING_KW in self.peer_info.capabilities
        renegotiate_s = settings.renegotiate_s or _CLIENT_RENEGOTIATE_S  # it is the client's own that counts
        longest = max(renegotiate_s / 2, settings.hand_window_s) if understood else settings.hand_window_s
        until = min(passed + wait_s, longest - _SPARE_S)
        pending = messages.auth_pending(math.ceil(until + _SPARE_S) if understood else None)
        for text in (pending, question):
            messages.serialise_message(text)
        self._outbox.add(pending, question)
        self._answer_due = question.startswith("INFO_PRE,CR_TEXT:")
        self._client_waits_s = max(self._client_waits_s, until + _SPARE_S)
        return max(0.0, until - passed)

    def patience(self, now: float) -> float:
        """For how long the client still waits for the decision about its first key."""
        state = self._deferred()
        return 0.0 if state is None else max(0.0, state.started_at + self._client_waits_s - now)

    def accept(self, options: Sequence[str], now: float, *, peer_id: int | None = None) -> Refusal | None:
        """Let the client in, after ``CredentialsReceived`` on the first key. ``options`` are pushed; those that follow
        from the negotiation are added here. ``KeysReady`` comes as soon as the client has acknowledged our key message.
        A client that cannot be served is refused here instead; then the reason is returned."""
        state = self._deferred()
        if state is None:
            return None
        if self._keys.primary is not None:
            raise UsageError("accept on a renegotiation")
        outcome = self._agreement.negotiate()
        if isinstance(outcome, Unsupported):
            self.refuse(outcome.text, now, outcome.refusal)
            return outcome.refusal
        self._agreement.fix(outcome, peer_id)
        self._push.set_reply(self._agreement.push_reply(options))
        state.authenticate(AuthenticationInput.ACCEPTED)
        self._establish(state, now)
        return None

    def accept_renegotiation(self, now: float) -> None:
        """Let the client go on, after ``CredentialsReceived`` on a later key."""
        state = self._deferred()
        if state is None:
            return
        if self._keys.primary is None:
            raise UsageError("accept_renegotiation on the first key")
        state.authenticate(AuthenticationInput.ACCEPTED)
        if self._make_data_keys(state, now):
            self._establish(state, now)

    def refuse(
        self,
        text: str,
        now: float,
        reason: Refusal | End = Refusal.UNSUPPORTED_CLIENT,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        """Tell the client ``AUTH_FAILED[,text]`` instead of either accept. ``SessionClosed(reason)`` follows after the
        time in which it is repeated; data keys are retired at once.

        ``retry_after_s``: it is only for now, and the client is to come back by itself."""
        state = self._deferred()
        if state is not None:
            state.authenticate(AuthenticationInput.REFUSED)
            if retry_after_s is None:
                self._outbox.say_last(messages.auth_failed(text))
            elif Capability.AUTH_FAIL_TEMP in self.peer_info.capabilities:
                self._outbox.say_last(messages.auth_failed_for_now(text, retry_after_s))
            else:  # OpenVPN 2.4 and 2.5 end for good on any AUTH_FAILED
                self._outbox.say_last(messages.restart(f"[P]:{text}"))
            self._begin_closing(reason, text, now)

    @property
    def takes_updates(self) -> bool:
        """Whether ``change_options`` may be used: the client announced PUSH_UPDATE."""
        return Capability.PUSH_UPDATE in self.peer_info.capabilities

    def change_options(self, options: Sequence[str], changes: Sequence[str]) -> None:
        """Send ``changes`` as PUSH_UPDATE. ``options`` is what now takes the place of those given to ``accept``, should
        the client ask again. Raises ``UsageError`` for what cannot be pushed."""
        update = messages.push_update(changes)
        self._push.set_reply(self._agreement.push_reply(options))
        if self._closing is None and not self.closed:
            self._outbox.add(*update)

    def renegotiate(self, now: float) -> None:
        """Start a new key, unless one is being negotiated already."""
        if self._keys.primary is None or self._keys.pending is not None or self._closing is not None:
            return
        self._start_renegotiation(self._keys.next_key_id(), now, by_peer=False)

    def restart(self, text: str, now: float, reason: Refusal | End = End.SHUTDOWN) -> None:
        """Tell the client to connect again. ``text`` may begin with flags, see ``messages.restart``."""
        self._say_goodbye(messages.restart(text), reason, now)

    def halt(self, text: str, now: float, reason: End = End.TERMINATED) -> None:
        """Tell the client to go and stay away."""
        self._say_goodbye(messages.halt(text), reason, now)

    def send_message(self, text: str, now: float) -> None:  # noqa: ARG002 - all verbs tell the time
        """Any other text message. Raises ``UsageError`` if it is too long or has control characters."""
        messages.serialise_message(text)
        if self._closing is None and not self.closed:
            self._outbox.add(text)

    def ask_alive(self) -> None:
        """Send what says nothing and what every living client acknowledges: a control packet without payload."""
        pending = self._keys.pending
        state = pending if pending is not None and self._channel.heard(pending.key_id) else self._keys.primary
        if state is not None and self._closing is None:
            self._channel.queue(state.key_id, Opcode.CONTROL_V1)

    @property
    def owes_answer(self) -> bool:
        """Whether the client has yet to acknowledge something of ours."""
        states = (self._keys.pending, self._keys.primary)
        return any(not self._channel.all_acknowledged(state.key_id) for state in states if state is not None)

    def close(self, reason: Refusal | End, detail: str = "") -> None:
        """End it at once and without a word: the client is gone, or was replaced."""
        if not self.closed:
            self._close(reason, detail)

    def key_confirmed(self, key_id: int, now: float) -> None:
        """The peer sends data under this key, so the data plane uses it already and need not wait for ``UseKey``. Nor
        is its last acknowledgement missed, should that be late or lost."""
        pending = self._keys.pending
        if pending is not None and pending.key_id == key_id and pending.negotiation is Negotiation.SENT_KEY:
            pending.negotiate(NegotiationInput.ALL_ACKED)
            self._establish(pending, now)
        self._keys.key_confirmed(key_id)

    # -- receiving

    def _limit_before_login(self, size: int) -> None:
        self._packets_before_login += 1
        self._bytes_before_login += size
        settings = self._settings
        if (
            self._packets_before_login > settings.max_packets_before_login
            or self._bytes_before_login > settings.max_bytes_before_login
        ):
            raise PeerError(DropReason.LIMIT_BEFORE_LOGIN, "too many packets or bytes before login")

    def _receive_reset(self, first_byte: int, now: float) -> None:
        """Raises ``PeerError``."""
        opcode, key_id = first_byte >> 3, first_byte & 7
        state = self._keys.find(key_id)
        if state is None:
            if opcode != Opcode.SOFT_RESET_V1:
                raise PeerError(DropReason.UNKNOWN_KEY_ID, str(key_id))
            state = self._accept_soft_reset(key_id, now)
        elif state.negotiation is Negotiation.PRE_START:
            self._channel.restart(key_id, now)
        received = self._channel.take_reset()
        if isinstance(received, str):
            raise PeerError(DropReason(received))
        self._receive(state, received, now)

    def _accept_soft_reset(self, key_id: int, now: float) -> KeyState:
        if self._closing is not None:
            raise PeerError(DropReason.EARLY_SOFT_RESET)
        self._keys.check_soft_reset(key_id, now)
        return self._start_renegotiation(key_id, now, by_peer=True)

    def _receive(self, state: KeyState, data: bytes, now: float) -> None:
        """A packet of this key was taken, and ``data`` is in order now."""
        if not data:
            if duplicates := self._channel.take_duplicates():
                self.drops[DropReason.DUPLICATE] += duplicates
            if state.negotiation not in _AWAITS_ACKNOWLEDGEMENT and not self._silent:
                return  # every other packet
        was_established = state.tls is not None and state.tls.established
        try:
            records = state.receive(data, self._settings)
            if state.tls is not None and state.tls.established and not was_established:
                self._tls_established(state, state.tls)
            for record in records:
                self._read_record(state, record, now)
            if not self.closed:
                if self._silent and (data or state.negotiation is not Negotiation.PRE_START):
                    # Whoever says more may have had its acknowledgement lost, which 2.5 gives once: our reset is
                    # repeated, and nothing else yet (``KeyState.withholds``). All of it is less than what has come.
                    self._silent = False
                    self._channel.set_retransmits(state.key_id, True)
                    self._channel.restart(state.key_id, now)  # what went out in silence is not due by itself
                if state.negotiation is Negotiation.SENT_KEY and state.note_acknowledgements():
                    if self._closing is not None:
                        self._close_at = now + self._settings.exit_delay_s  # the last words leave only now
                    self._establish(state, now)
        except PeerError as error:
            if not error.fatal:
                raise
            self._fail(state, error, now)
        if data and self._channel.backlog_bytes() > self._settings.max_backlog_bytes:
            # TLS 1.3 answers each key update and we each PUSH_REQUEST now and then: without end to whoever
            # acknowledges nothing.
            raise PeerError(DropReason.UNACKNOWLEDGED)

    def _tls_established(self, state: KeyState, tls: TlsConnection) -> None:
        self._verdict = tls.verdict
        self.tls_version, self.tls_cipher = tls.version, tls.cipher
        name = accepted_name(tls.peer_certificate())
        self.events.append(TlsEstablished(state.key_id, self.tls_version, self.tls_cipher, name))

    def _read_record(self, state: KeyState, record: bytearray, now: float) -> None:
        if state.negotiation in (Negotiation.PRE_START, Negotiation.START):
            message = state.read_key_message(record, self._settings)
            if message is not None:
                peer_info = parse_peer_info(message.peer_info)
                state.send_key_message(
                    message.options, self._random(SERVER_RANDOM_BYTES), self._agreement.answer_peer_info(peer_info)
                )
                self._read_credentials(state, message, peer_info, now)
            return
        for raw in state.read_text(record):
            try:
                self._read_text(messages.parse_message(raw), now)
            except PeerError as error:
                self.drops[error.reason] += 1

    def _read_credentials(self, state: KeyState, message: KeyMessage, peer_info: PeerInfo, now: float) -> None:
        if self._closing is not None:
            return
        assert state.tls is not None  # noqa: S101 - it has just decrypted the message
        certificate = state.tls.peer_certificate()
        if not self._agreement.identify(certificate, message, peer_info):
            self.refuse("Identity changed during renegotiation", now, Refusal.IDENTITY_CHANGED)
            return
        self.events.append(
            CredentialsReceived(
                state.key_id,
                message.username,
                message.password,
                peer_info,
                printable(message.options),
                certificate,
                state.tls.peer_path(),
                state.tls.context,
            )
        )

    def _read_text(self, text: str, now: float) -> None:
        if self._closing is not None:
            return
        if text == messages.PUSH_REQUEST:
            self._push.request()
            if self._keys.primary is not None:
                self._outbox.add(*self._push.take_reply(now))
        elif text == messages.EXIT:
            if self._keys.primary is not None:
                self._peer_left("EXIT message", now)
        elif self._answer_due and text.startswith(messages.CR_RESPONSE):
            answer = messages.parse_cr_response(text)
            self._answer_due = False
            self.events.append(QuestionAnswered(answer))
        else:
            self.events.append(MessageReceived(text))

    def _peer_left(self, detail: str, now: float) -> None:
        self.events.append(PeerExit())
        self._begin_closing(End.CLIENT_EXIT, detail, now)

    # -- from key exchange to data keys

    def _deferred(self) -> KeyState | None:
        """The key state whose credentials wait for a decision; None if the decision comes too late to matter."""
        if not self._agreement.identified:
            raise UsageError("a decision before any credentials")
        pending = self._keys.pending
        if self.closed or self._closing is not None or pending is None:
            return None
        if pending.authentication is not Authentication.DEFERRED:
            raise UsageError("no credentials wait for a decision")
        return pending

    def _make_data_keys(self, state: KeyState, now: float) -> bool:
        """Once for each key state, and only after login has said yes. False: they cannot be used, and it has failed."""
        negotiated = self._agreement.negotiated
        assert negotiated is not None  # noqa: S101 - fixed by accept
        try:
            keys = state.generate_keys(negotiated, self._remote_session_id, self._local_session_id)
        except PeerError as error:
            self._fail(state, error, now)
            return False
        self.events.append(KeysReady(state.key_id, keys))
        return True

    def _establish(self, state: KeyState, now: float) -> None:
        """Put the key state in its slot once the exchange is complete and login has said yes, in whichever order they
        come."""
        if (
            state is not self._keys.pending
            or state.negotiation is not Negotiation.ACTIVE
            or state.authentication is not Authentication.TRUE
            or self._closing is not None
        ):
            return
        if not state.has_data_keys and not self._make_data_keys(state, now):
            return
        state.negotiate(NegotiationInput.KEYS_GENERATED)
        first = self._keys.primary is None
        if first:
            self._dynamic_due = self._agreement.dynamic_tls_crypt
        self._keys.establish(now)
        if first:
            if Capability.REQUEST_PUSH in self.peer_info.capabilities:
                self._push.request()
            self._outbox.add(*self._push.take_reply(now))

    # -- new key states

    def _go_dynamic(self) -> None:
        """With the first packet of a later key, or of who says that it is one: most sessions end before, and the export
        takes longer than most steps of a login do."""
        self._dynamic_due = False
        first = self._keys.primary
        if first is not None and first.tls is not None:
            key2 = dynamic_key2(first.tls.export(DYNAMIC_LABEL, KEY2_BYTES), self._wrap.wrapping.key2)
            self._channel.go_dynamic(key2, int(self._wrap.clock()))

    def _start_renegotiation(self, key_id: int, now: float, *, by_peer: bool) -> KeyState:
        if self._dynamic_due:
            self._go_dynamic()
        state = self._new_key_state(key_id, now)
        self._keys.begin(state, now, by_peer=by_peer)
        self._send_reset(state, Opcode.SOFT_RESET_V1)
        return state

    def _new_key_state(self, key_id: int, now: float, first_id: int = 0) -> KeyState:
        limit = payload_limit(
            self._settings.max_packet_bytes, ipv6=self._ipv6, wrap_overhead=self._channel.overhead(key_id)
        )
        self._channel.open_key(key_id, limit, first_id, self._settings.tls_timeout_s)
        return KeyState(key_id, self._channel, TlsConnection(self._ssl_context(), server=True), now, self._hold)

    def _send_reset(self, state: KeyState, opcode: Opcode) -> None:
        self._channel.queue(state.key_id, opcode)
        state.negotiate(NegotiationInput.RESET_SENT)

    # -- ending

    def _say_goodbye(self, text: str, reason: Refusal | End, now: float) -> None:
        if self.closed or self._closing is not None:
            return
        if not self._agreement.identified:  # it reads no text yet
            self._close(reason, text)
            return
        self._outbox.say_last(text)
        self._begin_closing(reason, text, now)
        pending = self._keys.pending
        if self._keys.primary is None and pending is not None and not pending.carries_text:
            # Its acknowledgement of our key message is on its way: without an answer it would wait for as long.
            waits_until = min(pending.started_at + self._settings.hand_window_s, now + self._settings.last_ack_s)
            self._close_at = max(self._close_at or 0.0, waits_until)

    def _begin_closing(self, reason: Refusal | End, detail: str, now: float) -> None:
        """No service from now on; only acknowledge and repeat until the delay is over."""
        self._closing = SessionClosed(reason, detail)
        self._close_at = now + self._settings.exit_delay_s
        self._keys.tell_retired()

    def _close(self, reason: Refusal | End, detail: str) -> None:
        if self._closing is None:
            self._keys.tell_retired()
        self._keys.clear()
        self._agreement.close()
        self.closed = True
        self.events.append(SessionClosed(reason, detail))

    def _fail(self, state: KeyState, error: PeerError, now: float) -> None:
        """A key state cannot go on. Its TLS alert, if there is one, goes out once."""
        self.drops[error.reason] += 1
        if state is self._keys.lame_duck:
            state.tls = None  # the session lives by the newer key
            return
        state.negotiate(NegotiationInput.FAILED)
        self._farewell += self._channel.packets_to_send(now, state.key_id)
        if state.tls is not None:
            self._verdict = state.tls.verdict
        tls_verdict = self._verdict.refusal if error.reason is DropReason.TLS_FAILURE else None
        if self._closing is not None:
            self._close(self._closing.reason, self._closing.detail)
        elif tls_verdict is not None:
            self._close(tls_verdict, error.detail)
        elif state is self._keys.pending and self._keys.primary is not None:
            self._keys.abandon(str(error), now)
        elif error.reason is DropReason.TLS_CLOSED and self._keys.primary is not None:
            self._peer_left("TLS connection closed", now)
        elif error.reason is DropReason.TLS_CLOSED:
            self._close(Refusal.HANDSHAKE_ABANDONED, "TLS connection closed")
        elif error.reason is DropReason.TLS_FAILURE and self._keys.primary is None:
            self._close(Refusal.TLS_FAILURE, error.detail)
        else:
            self._close(self._violation(), str(error))

    def _violation(self) -> Refusal | End:
        return Refusal.PROTOCOL_VIOLATION if self._keys.primary is None else End.PROTOCOL_VIOLATION
