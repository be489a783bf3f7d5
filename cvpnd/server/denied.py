"""How any step of a login says no."""

from __future__ import annotations

from cvpnd.reasons import Refusal


class Denied(Exception):
    def __init__(self, refusal: Refusal, detail: str = "", *, text: str = "") -> None:
        """``text``: what the client is told in place of what it is told for the refusal."""
        super().__init__(detail or str(refusal))
        self.refusal = refusal
        self.detail = detail
        self.text = text
