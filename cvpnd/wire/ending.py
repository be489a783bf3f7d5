"""How a session ends. At once (``finish``), or after it has acknowledged and repeated its last words for a while
(``begin``). Either way ``SessionClosed`` is its last event.
"""

from __future__ import annotations

from cvpnd.reasons import End, Refusal
from cvpnd.wire.agreement import Agreement
from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.events import Event, PeerExit, SessionClosed
from cvpnd.wire.key_slots import KeySlots
from cvpnd.wire.key_state import KeyState
from cvpnd.wire.outbox import Outbox
from cvpnd.wire.settings import SessionSettings


class Ending:
    __slots__ = ("_agreement", "_events", "_keys", "_outbox", "_settings", "begun", "closed", "due_at")

    def __init__(
        self, settings: SessionSettings, events: list[Event], keys: KeySlots, agreement: Agreement, outbox: Outbox
    ) -> None:
        self._settings = settings
        self._events = events
        self._keys = keys
        self._agreement = agreement
        self._outbox = outbox
        self.begun: SessionClosed | None = None
        """No service any more."""
        self.due_at: float | None = None
        self.closed = False

    def say_goodbye(self, text: str, reason: Refusal | End, now: float) -> None:
        if self.closed or self.begun is not None:
            return
        if not self._agreement.identified:  # it reads no text yet
            self.finish(reason, text)
            return
        self._outbox.say_last(text)
        self.begin(reason, text, now)
        pending = self._keys.pending
        if self._keys.primary is None and pending is not None and not pending.carries_text:
            # Its acknowledgement of our key message is on its way: without an answer it would wait for as long.
            waits_until = min(pending.started_at + self._settings.hand_window_s, now + self._settings.last_ack_s)
            self.due_at = max(self.due_at or 0.0, waits_until)

    def begin(self, reason: Refusal | End, detail: str, now: float) -> None:
        """No service from now on; only acknowledge and repeat until the delay is over."""
        self.begun = SessionClosed(reason, detail)
        self.last_words_leave(now)
        self._keys.tell_retired()

    def last_words_leave(self, now: float) -> None:
        """Only now: the delay begins."""
        self.due_at = now + self._settings.exit_delay_s

    def finish_if_due(self, now: float) -> None:
        if self.begun is not None and self.due_at is not None and now >= self.due_at:
            self.finish(self.begun.reason, self.begun.detail)

    def finish(self, reason: Refusal | End, detail: str) -> None:
        if self.begun is None:
            self._keys.tell_retired()
        self._keys.clear()
        self._agreement.close()
        self.closed = True
        self._events.append(SessionClosed(reason, detail))

    def peer_left(self, detail: str, now: float) -> None:
        self._events.append(PeerExit())
        self.begin(End.CLIENT_EXIT, detail, now)

    def violated(self, detail: str) -> None:
        self.finish(Refusal.PROTOCOL_VIOLATION if self._keys.primary is None else End.PROTOCOL_VIOLATION, detail)

    def key_failed(self, state: KeyState, error: PeerError, refusal: Refusal | None, now: float) -> None:
        """A key state cannot go on, which may not be the end. ``refusal``: of its certificate."""
        primary = self._keys.primary
        if self.begun is not None:
            self.finish(self.begun.reason, self.begun.detail)
        elif refusal is not None:
            self.finish(refusal, error.detail)
        elif state is self._keys.pending and primary is not None:
            self._keys.abandon(str(error), now)
        elif error.reason is DropReason.TLS_CLOSED and primary is not None:
            self.peer_left("TLS connection closed", now)
        elif error.reason is DropReason.TLS_CLOSED:
            self.finish(Refusal.HANDSHAKE_ABANDONED, "TLS connection closed")
        elif error.reason is DropReason.TLS_FAILURE and primary is None:
            self.finish(Refusal.TLS_FAILURE, error.detail)
        else:
            self.violated(str(error))
