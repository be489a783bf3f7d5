"""For how long a client waits for the decision about its first key, and what it is asked meanwhile."""

from __future__ import annotations

import math

from cvpnd.wire import messages
from cvpnd.wire.key_method import Capability
from cvpnd.wire.settings import SessionSettings

_CLIENT_RENEGOTIATE_S = 3600.0
"""Of a client whose profile says nothing else: for half of it, it waits for a person at most."""
_SPARE_S = 3.0
"""A client that waits for a person goes on waiting so much longer than we do, so that it hears our no."""


class Patience:
    """Times are seconds since its first key began."""

    __slots__ = ("_settings", "_waits_s", "answer_due")

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._waits_s = float(settings.hand_window_s)
        self.answer_due = False
        """A question is with the client whose answer comes in text."""

    def ask(self, question: str, wait_s: float, passed_s: float, capabilities: Capability) -> tuple[list[str], float]:
        """The messages that ask it, and for how long it waits from now on: see ``Session.ask``. Raises ``UsageError``
        for what cannot be said."""
        settings = self._settings
        understood = Capability.AUTH_PENDING_KW in capabilities
        renegotiate_s = settings.renegotiate_s or _CLIENT_RENEGOTIATE_S  # it is the client's own that counts
        longest = max(renegotiate_s / 2, settings.hand_window_s) if understood else settings.hand_window_s
        until = min(passed_s + wait_s, longest - _SPARE_S)
        said = [messages.auth_pending(math.ceil(until + _SPARE_S) if understood else None), question]
        for text in said:
            messages.serialise_message(text)
        self.answer_due = question.startswith("INFO_PRE,CR_TEXT:")
        self._waits_s = max(self._waits_s, until + _SPARE_S)
        return said, max(0.0, until - passed_s)

    def left_s(self, passed_s: float) -> float:
        return max(0.0, self._waits_s - passed_s)
