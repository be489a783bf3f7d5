"""``Session``: one client's control channel, across renegotiations. Five verbs in, events out; no socket, no clock.

The caller's loop after each input is: ``next_event`` until None, then ``packets_to_send``, then ``next_timeout``. In
this order, because keys announced by ``KeysReady`` must be installed before the PUSH_REPLY leaves.

What the session decides itself is what a packet or a decision of the server means now. The rest it owns:

- ``key_slots.py``: the key states, their order and their deadlines, which is renegotiation
- ``agreement.py``: what the client said of itself with its first key, and what follows from it
- ``key_maker.py``: how a key state begins, and the wrapping of later ones
- ``before_login.py``, ``patience.py``: what a client may send, and how long it waits, until login has said yes
- ``reader.py``, ``outbox.py``: what the client says inside TLS; text on its way to it, and PUSH_REPLY
- ``ending.py``: how it ends
- ``channel.py``: packets, between the network and TLS
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence

from OpenSSL import SSL

from cvpnd.reasons import End, Refusal
from cvpnd.wire import messages
from cvpnd.wire.agreement import Agreement
from cvpnd.wire.before_login import BeforeLogin
from cvpnd.wire.channel import ChannelMaker, native_channel
from cvpnd.wire.ending import Ending
from cvpnd.wire.errors import ITS_OWN, MALFORMED, DropReason, PeerError, UsageError
from cvpnd.wire.events import (
    Event,
    KeysReady,
    TlsEstablished,
)
from cvpnd.wire.key_maker import KeyMaker
from cvpnd.wire.key_method import Capability, PeerInfo
from cvpnd.wire.key_slots import KeySlots
from cvpnd.wire.key_state import (
    Authentication,
    AuthenticationInput,
    KeyState,
    Negotiation,
    NegotiationInput,
)
from cvpnd.wire.negotiation import Negotiated, Unsupported
from cvpnd.wire.outbox import Outbox, PushExchange
from cvpnd.wire.packet import Opcode, Transport
from cvpnd.wire.patience import Patience
from cvpnd.wire.reader import Reader
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.tls import CertificateVerdict, TlsConnection, accepted_name
from cvpnd.wire.wrap.session_wrap import SessionWrap

_AWAITS_ACKNOWLEDGEMENT = frozenset({Negotiation.PRE_START, Negotiation.SENT_KEY})
"""In all others a packet that brings no data changes nothing here, whatever it acknowledges."""


class Session:
    """See the module's text for the order of calls. No verb raises for what a peer sent."""

    __slots__ = (
        "_agreement",
        "_before_login",
        "_channel",
        "_farewell",
        "_key_maker",
        "_keys",
        "_local_session_id",
        "_outbox",
        "_patience",
        "_push",
        "_reader",
        "_remote_session_id",
        "_settings",
        "_silent",
        "_transport",
        "_verdict",
        "drops",
        "ending",
        "events",
        "proven",
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
        self._remote_session_id = remote_session_id
        self._local_session_id = local_session_id
        self._transport = transport
        wrap = wrap or SessionWrap()
        self._channel = new_channel(local_session_id, remote_session_id, wrap)
        self.drops: Counter[DropReason] = Counter() if drops is None else drops
        self.tls_version = ""
        self.tls_cipher = ""
        self.proven = cookie_echoed or transport is Transport.TCP
        """The peer is where its packets come from, as it has heard there what we said."""
        self.events: list[Event] = []
        """For ``next_event``; whoever has nothing else to ask looks whether there is one."""
        self._farewell: list[bytes] = []
        self._outbox = Outbox()
        self._agreement = Agreement(settings.data_ciphers, reserve_peer_id)
        self._push = PushExchange(settings.push_repeat_s)
        self._before_login = BeforeLogin(settings)
        self._patience = Patience(settings)
        self._silent = False
        """Nothing is repeated by itself yet, as nobody has proven the address that it goes to."""
        self._verdict = CertificateVerdict()
        self._key_maker = KeyMaker(settings, self._channel, wrap, ssl_context, hold, ipv6=ipv6)
        first = self._key_maker.make(0, now, first_id=1 if cookie_echoed else 0)
        self._keys = KeySlots(settings, self.events, first, renegotiate_jitter)
        self.ending = Ending(settings, self.events, self._keys, self._agreement, self._outbox)
        self._reader = Reader(
            settings, self.events, self.drops, self._keys, self._agreement, self._push, self._outbox, self._patience,
            self.ending, random,
        )  # fmt: skip
        if cookie_echoed:
            first.negotiate(NegotiationInput.COOKIE_ECHOED)
        else:
            self._silent = first.withholds = transport is Transport.UDP
            self._channel.set_retransmits(0, not self._silent)
            self._key_maker.send_reset(first, Opcode.HARD_RESET_SERVER_V2)

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
        return self._keys.primary is not None and self.ending.begun is None and not self.ending.closed

    @property
    def closed(self) -> bool:
        """Over; only events and last packets are left to be fetched."""
        return self.ending.closed

    # -- the five verbs

    def receive_packet(self, packet: bytes, now: float) -> None:
        """Take one control packet as it came from the network."""
        if self.ending.closed:
            self.drops[DropReason.CLOSED] += 1
            return
        try:
            if self._key_maker.dynamic_due and packet and packet[0] & 7:
                self._key_maker.go_dynamic(self._keys.primary)
            received = self._channel.receive(packet, now)
            if isinstance(received, str):
                self._dropped(DropReason(received), len(packet))
                return
            if self._keys.primary is None:
                self._before_login.count(len(packet))
            if received is None:
                self._receive_reset(packet[0], now)
            elif (state := self._keys.find(packet[0] & 7)) is not None:
                self._receive(state, received, now)
        except PeerError as error:
            self._drop(error)

    def _dropped(self, reason: DropReason, size: int) -> None:
        """Raises ``PeerError``."""
        if reason in ITS_OWN and self._keys.primary is None:
            self._before_login.count(size)
        raise PeerError(reason)

    def _drop(self, error: PeerError) -> None:
        self.drops[error.reason] += 1
        if (self._transport is Transport.TCP and error.reason in MALFORMED) or error.fatal:
            self.ending.violated(str(error))

    def packets_to_send(self, now: float) -> list[bytes]:
        """What goes out now: new, due again, or acknowledgements only."""
        packets, self._farewell = self._farewell, []
        if self.ending.closed:
            return packets
        if self._outbox.holds_text:
            self._outbox.flush(self._keys.pending, self._keys.primary)
        return packets + self._channel.packets_to_send(now) if packets else self._channel.packets_to_send(now)

    def next_timeout(self) -> float | None:
        """When to call ``handle_timeout`` and then ``packets_to_send``; None: only when something arrives."""
        if self.ending.closed:
            return None
        due = self.ending.due_at if self.ending.begun is not None else self._keys.next_timeout()
        again = self._channel.next_timeout()
        return again if again is not None and (due is None or again < due) else due

    def handle_timeout(self, now: float) -> None:
        """Act on every deadline that has passed."""
        if self.ending.closed:
            return
        if self.ending.begun is not None:
            self.ending.finish_if_due(now)
            return
        keys = self._keys
        if keys.overdue(now):
            if keys.primary is None:
                self.ending.finish(Refusal.HANDSHAKE_TIMEOUT, f"not complete after {self._settings.hand_window_s:g} s")
                return
            keys.abandon("timed out", now)
        if keys.expired(now):
            self.ending.finish(End.RENEGOTIATION_FAILED, "the last key expired without a successor")
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
        said, left_s = self._patience.ask(question, wait_s, now - state.started_at, self.peer_info.capabilities)
        self._outbox.add(*said)
        return left_s

    def patience(self, now: float) -> float:
        """For how long the client still waits for the decision about its first key."""
        state = self._deferred()
        return 0.0 if state is None else self._patience.left_s(now - state.started_at)

    def accept(
        self, options: Sequence[str], now: float, *, peer_id: int | None = None, token: Sequence[str] = ()
    ) -> Refusal | None:
        """Let the client in, after ``CredentialsReceived`` on the first key. ``options`` are pushed, and with whatever
        takes their place ``token``; what follows from the negotiation is added here. ``KeysReady`` comes as soon as the
        client has acknowledged our key message. A client that cannot be served is refused here instead; then the reason
        is returned."""
        state = self._deferred()
        if state is None:
            return None
        if self._keys.primary is not None:
            raise UsageError("accept on a renegotiation")
        outcome = self._agreement.negotiate()
        if isinstance(outcome, Unsupported):
            self.refuse(outcome.text, now, outcome.refusal)
            return outcome.refusal
        self._agreement.fix(outcome, peer_id, token)
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
        reason: Refusal | End,
        *,
        retry_after_s: int | None = None,
        elsewhere: bool = False,
    ) -> None:
        """Tell the client ``AUTH_FAILED[,text]`` instead of either accept. ``SessionClosed(reason)`` follows after the
        time in which it is repeated; data keys are retired at once.

        ``retry_after_s``: it is only for now, and the client is to come back by itself. ``elsewhere``: then, as in
        ``restart``."""
        state = self._deferred()
        if state is not None:
            state.authenticate(AuthenticationInput.REFUSED)
            if retry_after_s is None:
                self._outbox.say_last(messages.auth_failed(text))
            elif Capability.AUTH_FAIL_TEMP in self.peer_info.capabilities:
                self._outbox.say_last(messages.auth_failed_for_now(text, retry_after_s, elsewhere=elsewhere))
            else:  # OpenVPN 2.4 and 2.5 end for good on any AUTH_FAILED
                self._outbox.say_last(self._restart(text, elsewhere=elsewhere))
            self.ending.begin(reason, text, now)

    @property
    def can_change_options(self) -> bool:
        """Whether ``change_options`` may be used: the client announced PUSH_UPDATE, or has no options yet."""
        return Capability.PUSH_UPDATE in self.peer_info.capabilities or not self._push.replied

    def change_options(self, options: Sequence[str], changes: Sequence[str]) -> None:
        """Send ``changes`` as PUSH_UPDATE to who has had its PUSH_REPLY: no update can come first. ``options`` is what
        now takes the place of those given to ``accept``, for that or should the client ask again. Raises ``UsageError``
        for what cannot be pushed."""
        update = messages.push_update(changes)
        self._push.set_reply(self._agreement.push_reply(options))
        if self._push.replied and self.ending.begun is None and not self.ending.closed:
            self._outbox.add(*update)

    def renegotiate(self, now: float) -> None:
        """Start a new key, unless one is being negotiated already."""
        if self._keys.primary is None or self._keys.pending is not None or self.ending.begun is not None:
            return
        self._start_renegotiation(self._keys.next_key_id(), now, by_peer=False)

    def renew(self, now: float) -> None:
        """The same for a key that is nearly used up, but not at once after the latest one."""
        if self._keys.may_renew(now):
            self.renegotiate(now)

    def restart(self, text: str, now: float, reason: Refusal | End, *, elsewhere: bool = False) -> None:
        """Tell the client to connect again. ``elsewhere``: nobody listens any more where it has connected to, so it is
        to take its next remote. OpenVPN 3 does that anyway."""
        self.ending.say_goodbye(self._restart(text, elsewhere=elsewhere), reason, now)

    def _restart(self, text: str, *, elsewhere: bool) -> str:
        return messages.restart(text, elsewhere=elsewhere and self.peer_info.version.startswith("2."))

    def halt(self, text: str, now: float, reason: End) -> None:
        """Tell the client to go and stay away."""
        self.ending.say_goodbye(messages.halt(text), reason, now)

    def ask_alive(self) -> None:
        """Send what says nothing and what every living client acknowledges: a control packet without payload."""
        pending = self._keys.pending
        state = pending if pending is not None and self._channel.heard(pending.key_id) else self._keys.primary
        if state is not None and self.ending.begun is None:
            self._channel.queue(state.key_id, Opcode.CONTROL_V1)

    @property
    def owes_answer(self) -> bool:
        """Whether the client has yet to acknowledge something of ours."""
        states = (self._keys.pending, self._keys.primary)
        return any(not self._channel.all_acknowledged(state.key_id) for state in states if state is not None)

    def close(self, reason: Refusal | End, detail: str = "") -> None:
        """End it at once and without a word: the client is gone, or was replaced."""
        if not self.ending.closed:
            self.ending.finish(reason, detail)

    def key_confirmed(self, key_id: int, now: float) -> None:
        """The peer sends data under this key, so the data plane uses it already and need not wait for ``UseKey``. Nor
        is its last acknowledgement missed, should that be late or lost."""
        pending = self._keys.pending
        if pending is not None and pending.key_id == key_id and pending.negotiation is Negotiation.SENT_KEY:
            pending.negotiate(NegotiationInput.ALL_ACKED)
            self._establish(pending, now)
        self._keys.key_confirmed(key_id)

    # -- receiving

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
        """One that crosses our last words too: the client reads nothing on the old key any more, and hears them over
        the new one, under which there is no service either. It stays pending, so no further one follows."""
        if self.ending.begun is not None and not self._outbox.has_last_words:
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
        if not self.proven:
            self.proven = self._channel.all_acknowledged(state.key_id)
        handshaking = state.tls is not None and not state.tls.established
        try:
            records = state.receive(data, self._settings)
            if handshaking and state.tls is not None and state.tls.established:
                self._tls_established(state, state.tls)
            for record in records:
                if (refusal := self._reader.read(state, record, now)) is not None:
                    self.refuse("Identity changed during renegotiation", now, refusal)
            if not self.ending.closed:
                if self._silent and (data or state.negotiation is not Negotiation.PRE_START):
                    # Whoever says more may have had its acknowledgement lost, which 2.5 gives once: our reset is
                    # repeated, and nothing else yet (``KeyState.withholds``). All of it is less than what has come.
                    self._silent = False
                    self._channel.set_retransmits(state.key_id, True)
                    self._channel.restart(state.key_id, now)  # what went out in silence is not due by itself
                if state.negotiation is Negotiation.SENT_KEY and state.note_acknowledgements():
                    if self.ending.begun is not None:
                        self.ending.last_words_leave(now)
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

    # -- from key exchange to data keys

    def _deferred(self) -> KeyState | None:
        """The key state whose credentials wait for a decision; None if the decision comes too late to matter."""
        if not self._agreement.identified:
            raise UsageError("a decision before any credentials")
        pending = self._keys.pending
        if self.ending.closed or self.ending.begun is not None or pending is None:
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
            or self.ending.begun is not None
        ):
            return
        if not state.has_data_keys and not self._make_data_keys(state, now):
            return
        state.negotiate(NegotiationInput.KEYS_GENERATED)
        first = self._keys.primary is None
        if first:
            self._key_maker.dynamic_due = self._agreement.dynamic_tls_crypt
        self._keys.establish(now)
        if first:
            if Capability.REQUEST_PUSH in self.peer_info.capabilities:
                self._push.request()
            self._outbox.add(*self._push.take_reply(now))

    def _start_renegotiation(self, key_id: int, now: float, *, by_peer: bool) -> KeyState:
        if self._key_maker.dynamic_due:
            self._key_maker.go_dynamic(self._keys.primary)
        state = self._key_maker.make(key_id, now)
        self._keys.begin(state, now, by_peer=by_peer)
        self._key_maker.send_reset(state, Opcode.SOFT_RESET_V1)
        return state

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
        refusal = self._verdict.refusal if error.reason is DropReason.TLS_FAILURE else None
        self.ending.key_failed(state, error, refusal, now)
