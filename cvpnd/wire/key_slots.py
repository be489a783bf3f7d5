"""Renegotiation: how the keys of a session follow each other.

A session has up to three key states. ``pending`` negotiates, ``primary`` carries text and data, ``lame_duck`` still
opens data packets. The first key has no predecessor and no key id but 0; every later one passes through

    begin ─▶ pending ─ establish ─▶ primary ─ the next one's establish ─▶ lame_duck ─ expires ─▶ retired
                └─ abandon ─▶ retired; the old primary stays, and it is tried again

either when ours is due (``renegotiation_due``) or when the client asks (``check_soft_reset``). Ids go round from 1
to 7. Four deadlines:

- the old primary expires a transition window after its successor's negotiation *began*, whatever becomes of that one
- a negotiation is over after the hand window, unless it waits for login, whose time is login's to limit
- we send under a new key a while after it was made (``UseKey``): the client may not have it yet. Its first packet
  under the new key tells us sooner (``key_confirmed``)
- for as long the client may go on with the old key, as OpenVPN 3 does for a minute: in data, and in text. Until then
  the lame duck keeps its TLS connection, and we begin no further key, which would have to take its place

Here is neither TLS nor a packet; ``session.py`` makes the key states and says when.
"""

from __future__ import annotations

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.events import Event, KeyRetired, RenegotiationFailed, RenegotiationStarted, UseKey
from cvpnd.wire.key_state import KeyState, SlotInput
from cvpnd.wire.settings import SessionSettings

_LAST_KEY_ID = 7
_RENEGOTIATE_JITTER = 0.1
"""We renegotiate up to this part earlier than configured, so that client and server rarely start at once."""


class KeySlots:
    """The key states of one session."""

    __slots__ = (
        "_began_at",
        "_events",
        "_jitter",
        "_last_key_id",
        "_old_key_until",
        "_renegotiate_at",
        "_settings",
        "_soft_reset_at",
        "_use_key_at",
        "lame_duck",
        "pending",
        "primary",
        "states",
    )

    def __init__(self, settings: SessionSettings, events: list[Event], first: KeyState, jitter: float) -> None:
        """``events``: the session's, for what it is to be told. ``jitter``: a random number 0..1."""
        self._settings = settings
        self._events = events
        self._jitter = jitter
        self._last_key_id = 0
        self._began_at = float("-inf")
        """When the latest of the later keys did, whoever wanted it."""
        self._renegotiate_at: float | None = None
        self._use_key_at: float | None = None
        self._old_key_until: float | None = None
        self._soft_reset_at: float | None = None
        self.pending: KeyState | None = first
        self.primary: KeyState | None = None
        self.lame_duck: KeyState | None = None
        self.states: tuple[KeyState, ...] = (first,)
        """Those that there are, newest first. Every packet goes through them several times."""

    def _set(self, pending: KeyState | None, primary: KeyState | None, lame_duck: KeyState | None) -> None:
        """The only place that changes them."""
        self.pending, self.primary, self.lame_duck = pending, primary, lame_duck
        self.states = tuple([state for state in (pending, primary, lame_duck) if state is not None])

    def find(self, key_id: int) -> KeyState | None:
        for state in self.states:
            if state.key_id == key_id:
                return state
        return None

    # -- a new key begins

    def next_key_id(self) -> int:
        """For a renegotiation of ours. A lame duck that still has the id makes room."""
        key_id = self._last_key_id % _LAST_KEY_ID + 1
        if self.lame_duck is not None and self.lame_duck.key_id == key_id:
            self._retire(self.lame_duck)
            self._set(self.pending, self.primary, None)
        return key_id

    def check_soft_reset(self, key_id: int, now: float) -> None:
        """Whether the client may begin this key now; raises ``PeerError`` if not."""
        if self.primary is None or self.pending is not None:
            raise PeerError(DropReason.EARLY_SOFT_RESET)
        if key_id == 0:
            raise PeerError(DropReason.BAD_KEY_ID, "soft reset with key id 0")
        if self._soft_reset_at is not None and now < self._soft_reset_at + self._settings.soft_reset_interval_s:
            raise PeerError(DropReason.RATE_LIMITED, "soft resets")
        self._soft_reset_at = now

    def may_renew(self, now: float) -> bool:
        """Whether another key may follow now because this one is nearly used up. The client chooses its packet ids, and
        so may make each key look so with the first packet: it gets another no sooner than if it had asked itself. Else
        it is due then, long before a key that is really used comes to its end."""
        due = self._began_at + self._settings.soft_reset_interval_s
        if now < due and self.pending is None:
            self._renegotiate_at = due if self._renegotiate_at is None else min(due, self._renegotiate_at)
        return now >= due

    def begin(self, state: KeyState, now: float, *, by_peer: bool) -> None:
        assert self.primary is not None and self.pending is None  # noqa: S101 - checked by both callers
        self._set(state, self.primary, self.lame_duck)
        self._last_key_id = state.key_id
        self._began_at = now
        self._renegotiate_at = None
        if self.primary.expires_at is None:
            self.primary.expires_at = now + self._settings.tran_window_s
        self._events.append(RenegotiationStarted(state.key_id, by_peer))

    def abandon(self, detail: str, now: float) -> None:
        """Keep the old key and try again later. A peer that heard nothing still expects the same key id."""
        state = self.pending
        assert state is not None and self.primary is not None  # noqa: S101 - checked by both callers
        if not state.channel.heard(state.key_id):
            self._last_key_id = self.primary.key_id
        self._retire(state)
        self._set(None, self.primary, self.lame_duck)
        self._renegotiate_at = now + self._settings.hand_window_s
        self._events.append(RenegotiationFailed(state.key_id, detail))

    # -- and takes the place of the old one

    def establish(self, now: float) -> None:
        """The pending key state has its data keys: from now on it is the primary one."""
        state, previous, settings = self.pending, self.primary, self._settings
        assert state is not None  # noqa: S101 - it has just been established
        state.move(SlotInput.ESTABLISHED)
        if previous is None:
            self._set(None, state, self.lame_duck)
        else:
            if self.lame_duck is not None:
                self._retire(self.lame_duck)
            previous.move(SlotInput.REPLACED)
            self._set(None, state, previous)
            grace = min(settings.hand_window_s, settings.renegotiate_s / 2 or settings.hand_window_s)
            self._use_key_at = state.started_at + grace
            self._old_key_until = now + settings.hand_window_s
        if settings.renegotiate_s:
            self._renegotiate_at = now + settings.renegotiate_s * (1 - _RENEGOTIATE_JITTER * self._jitter)

    def key_confirmed(self, key_id: int) -> None:
        """The peer sends data under this key, and the data plane has seen it: no need to wait for ``UseKey``."""
        if self.primary is not None and self.primary.key_id == key_id:
            self._use_key_at = None
            self._leave_old_key()

    # -- time

    def next_timeout(self) -> float | None:
        due = self._renegotiate_at if self._old_key_until is None else self._old_key_until
        if self._use_key_at is not None and (due is None or self._use_key_at < due):
            due = self._use_key_at
        for state in self.states:
            if state.expires_at is not None and (due is None or state.expires_at < due):
                due = state.expires_at
        pending = self.pending
        if pending is not None and not pending.waits_for_login:
            overdue_at = pending.started_at + self._settings.hand_window_s
            return overdue_at if due is None else min(due, overdue_at)
        return due

    def overdue(self, now: float) -> bool:
        """The pending negotiation has had its time."""
        state = self.pending
        return (
            state is not None and not state.waits_for_login and now >= state.started_at + self._settings.hand_window_s
        )

    def expired(self, now: float) -> bool:
        """Retire the lame duck when its time is over. True: it is over for the primary too, and none is left."""
        if self.lame_duck is not None and _passed(self.lame_duck.expires_at, now):
            self._retire(self.lame_duck)
            self._set(self.pending, self.primary, None)
        return self.primary is not None and _passed(self.primary.expires_at, now)

    def use_key_if_due(self, now: float) -> None:
        if self.primary is not None and _passed(self._use_key_at, now):
            self._use_key_at = None
            self._events.append(UseKey(self.primary.key_id))

    def leave_old_key_if_due(self, now: float) -> None:
        if _passed(self._old_key_until, now):
            self._leave_old_key()

    def _leave_old_key(self) -> None:
        self._old_key_until = None
        if self.lame_duck is not None:
            self.lame_duck.tls = None

    def renegotiation_due(self, now: float) -> bool:
        return self._old_key_until is None and _passed(self._renegotiate_at, now)

    # -- the end

    def tell_retired(self) -> None:
        """No data passes any more, while text still may."""
        for state in self.states:
            if state.has_data_keys:
                self._events.append(KeyRetired(state.key_id))

    def clear(self) -> None:
        for state in self.states:
            state.move(SlotInput.GONE)
        self._set(None, None, None)

    def _retire(self, state: KeyState) -> None:
        state.move(SlotInput.GONE)
        if state.has_data_keys:
            self._events.append(KeyRetired(state.key_id))


def _passed(time: float | None, now: float) -> bool:
    return time is not None and now >= time
