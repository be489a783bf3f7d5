"""What stands in a client's own log when its session ends."""

from __future__ import annotations

from cvpnd.reasons import End, Refusal

TERMINATED_TEXT = "Terminated by the administrator"
TIMEOUT_TEXT = "Session timeout"
_WHY_SENT_BACK: dict[Refusal | End, str] = {
    End.SHUTDOWN: "gateway restarts",
    End.CONFIGURATION_CHANGED: "configuration changed",
    End.SESSION_TIMEOUT: TIMEOUT_TEXT,
    End.ACCOUNT_UNCHECKED: "account cannot be checked",
    End.DEVICE_LOST: "tunnel device lost",
    End.CLIENT_RECONNECTED: "no answer, and another client came",
    Refusal.INTERNAL_ERROR: "internal error",
}


def why_sent_back(reason: Refusal | End) -> str:
    """For any other reason the first."""
    return _WHY_SENT_BACK.get(reason, _WHY_SENT_BACK[End.SHUTDOWN])
