"""Text on its way to the client: which key state it goes over, and when a PUSH_REPLY is due."""

from __future__ import annotations

from cvpnd.wire.key_state import KeyState
from cvpnd.wire.messages import PUSH_UPDATE


class Outbox:
    """Messages wait here for a key state that can carry them, and updates until it is known that they were read."""

    __slots__ = ("_last_words", "_told", "_unread", "_unread_over", "_waiting", "holds_text")

    def __init__(self) -> None:
        self.holds_text = False
        """Asked after every packet."""
        self._waiting: list[str] = []
        self._unread: list[str] = []
        self._unread_over: KeyState | None = None
        """The key over which these were sent."""
        self._last_words = ""
        self._told: list[int] = []

    def add(self, *texts: str) -> None:
        self._waiting.extend(texts)
        self._look()

    def say_last(self, text: str) -> None:
        """What ends the session: AUTH_FAILED, HALT, RESTART. What waits until then is not said any more, above all no
        PUSH_REPLY."""
        self._waiting.clear()
        self._forget_unread()
        self._last_words = text
        self.holds_text = True

    @property
    def has_last_words(self) -> bool:
        return bool(self._last_words)

    def flush(self, pending: KeyState | None, primary: KeyState | None) -> None:
        """Text waits for a negotiation to end: a client reads nothing on the old key once it has seen a soft reset.
        An update that crossed it was not read, so it is said again over the new key: twice does no harm. The last words
        cannot wait and go over every key that can carry them, as the reference does."""
        over = self._unread_over
        if over is not None and over is not pending and over is not primary:
            self._waiting[:0] = self._unread
            self._forget_unread()
        elif over is not None and over.channel.all_acknowledged(over.key_id):
            self._forget_unread()
        state = pending or primary
        if self._waiting and state is not None and state.carries_text:
            while self._waiting:
                self._say(self._waiting.pop(0), state)
        if self._last_words:
            for state in (pending, primary):
                if state is not None and state.carries_text and state.key_id not in self._told:
                    self._told.append(state.key_id)
                    state.send_text(self._last_words)
        self._look()

    def _say(self, text: str, state: KeyState) -> None:
        state.send_text(text)
        if text.startswith(PUSH_UPDATE):
            self._unread.append(text)
            self._unread_over = state

    def _forget_unread(self) -> None:
        self._unread.clear()
        self._unread_over = None

    def _look(self) -> None:
        self.holds_text = bool(self._waiting or self._last_words or self._unread)


class PushExchange:
    """PUSH_REQUEST against PUSH_REPLY. The options are fixed with the first key and pushed for it alone."""

    __slots__ = ("_repeat_s", "_replied_at", "_reply", "_requested")

    def __init__(self, repeat_s: float) -> None:
        self._repeat_s = repeat_s
        self._reply: list[str] = []
        self._requested = False
        self._replied_at: float | None = None

    def set_reply(self, messages: list[str]) -> None:
        self._reply = messages

    @property
    def replied(self) -> bool:
        return self._replied_at is not None

    def request(self) -> None:
        """The client asked, or need not ask because of IV_PROTO bit 2."""
        self._requested = True

    def take_reply(self, now: float) -> list[str]:
        """The messages to send now, if any. 2.5 has the bit and asks all the same: such a repeat gets nothing."""
        requested, self._requested = self._requested, False
        if not requested or (self._replied_at is not None and now < self._replied_at + self._repeat_s):
            return []
        self._replied_at = now
        return self._reply
