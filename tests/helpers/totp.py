"""What a person types who has an authenticator app."""

from __future__ import annotations

import base64
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP


def code_of(enrolment: dict[str, Any], *, later: int = 0) -> str:
    """The code of now, or of so many half minutes later."""
    secret = parse_qs(urlsplit(enrolment["uri"]).query)["secret"][0]
    totp = TOTP(base64.b32decode(secret), 6, SHA1(), 30)
    return totp.generate(int(time.time()) + 30 * later).decode()


def static(password: str, answer: str) -> str:
    """Both, as a client sends them that was told of the challenge by its profile."""
    return "SCRV1:" + ":".join(base64.b64encode(each.encode()).decode() for each in (password, answer))
