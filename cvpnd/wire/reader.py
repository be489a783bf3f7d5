"""What a client says inside TLS: the key method 2 message of each key, then text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from cvpnd.reasons import Refusal
from cvpnd.wire import messages
from cvpnd.wire.agreement import Agreement
from cvpnd.wire.ending import Ending
from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.events import CredentialsReceived, Event, MessageReceived, QuestionAnswered
from cvpnd.wire.key_method import KeyMessage, PeerInfo, parse_peer_info
from cvpnd.wire.key_slots import KeySlots
from cvpnd.wire.key_state import SERVER_RANDOM_BYTES, KeyState, Negotiation
from cvpnd.wire.outbox import Outbox, PushExchange
from cvpnd.wire.patience import Patience
from cvpnd.wire.settings import SessionSettings
from cvpnd.wire.text import printable


class Reader:
    """Turns what a client says into events; the rest is the session's, of which these are parts."""

    __slots__ = (
        "_agreement",
        "_drops",
        "_ending",
        "_events",
        "_keys",
        "_outbox",
        "_patience",
        "_push",
        "_random",
        "_settings",
    )

    def __init__(
        self,
        settings: SessionSettings,
        events: list[Event],
        drops: Counter[DropReason],
        keys: KeySlots,
        agreement: Agreement,
        push: PushExchange,
        outbox: Outbox,
        patience: Patience,
        ending: Ending,
        random: Callable[[int], bytes],
    ) -> None:
        self._settings = settings
        self._events = events
        self._drops = drops
        self._keys = keys
        self._agreement = agreement
        self._push = push
        self._outbox = outbox
        self._patience = patience
        self._ending = ending
        self._random = random

    def read(self, state: KeyState, record: bytearray, now: float) -> Refusal | None:
        """Raises ``PeerError``. Why the client has to be refused, if it has."""
        if state.negotiation in (Negotiation.PRE_START, Negotiation.START):
            message = state.read_key_message(record, self._settings)
            if message is None:
                return None
            peer_info = parse_peer_info(message.peer_info)
            state.send_key_message(
                message.options, self._random(SERVER_RANDOM_BYTES), self._agreement.answer_peer_info(peer_info)
            )
            return self._read_credentials(state, message, peer_info)
        for raw in state.read_text(record):
            try:
                self._read_text(messages.parse_message(raw), now)
            except PeerError as error:
                self._drops[error.reason] += 1
        return None

    def _read_credentials(self, state: KeyState, message: KeyMessage, peer_info: PeerInfo) -> Refusal | None:
        if self._ending.begun is not None:
            return None
        assert state.tls is not None  # noqa: S101 - it has just decrypted the message
        certificate = state.tls.peer_certificate()
        if not self._agreement.identify(certificate, message, peer_info):
            return Refusal.IDENTITY_CHANGED
        self._events.append(
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
        return None

    def _read_text(self, text: str, now: float) -> None:
        if self._ending.begun is not None:
            return
        if text == messages.PUSH_REQUEST:
            self._push.request()
            if self._keys.primary is not None:
                self._outbox.add(*self._push.take_reply(now))
        elif text == messages.EXIT:
            if self._keys.primary is not None:
                self._ending.peer_left("EXIT message", now)
        elif self._patience.answer_due and text.startswith(messages.CR_RESPONSE):
            answer = messages.parse_cr_response(text)
            self._patience.answer_due = False
            self._events.append(QuestionAnswered(answer))
        else:
            self._events.append(MessageReceived(text))
