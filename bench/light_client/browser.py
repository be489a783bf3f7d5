"""AWS's client at an identity provider: one connection to be sent to the browser, one with what that brought
(openvpn-wire.md section 17). The browser itself is the caller's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

from OpenSSL import SSL

from light_client.driver import ClientResult, Plan, run_client

NOBODY = "N/A"
CALLBACK_PORT = 35001


class NotSentAway(Exception):
    """The gateway had another answer to the first connection; the text is that."""


async def log_in(
    context: SSL.Context, plan: Plan, index: int, browse: Callable[[str], str], port: int = CALLBACK_PORT
) -> ClientResult:
    """``browse`` gets the address to open and returns the response in base64; it is called in a thread. Raises
    ``NotSentAway``."""
    first = await run_client(context, replace(plan, logins=((NOBODY, f"ACS::{port}"),)), index)
    state, url = sent_to(first.error)
    response = await asyncio.to_thread(browse, url)
    return await run_client(context, replace(plan, logins=((NOBODY, answer(state, response)),)), index)


def sent_to(told: str) -> tuple[str, str]:
    """State id and address in an ``AUTH_FAILED``. Raises ``NotSentAway``."""
    parts = told.split(":", 4)
    if len(parts) != 5 or parts[0] != "AUTH_FAILED,CRV1":
        raise NotSentAway(told)
    return parts[2], parts[4]


def answer(state: str, response: str) -> str:
    """The password of the second connection. The response is written as AWS's helper writes it."""
    return f"CRV1::{state}::{quote(response, safe='')}"
