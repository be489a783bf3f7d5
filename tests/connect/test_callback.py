"""The one form that cvpn-connect takes on 127.0.0.1:35001, and everything that is not it."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlencode

import pytest

from cvpnd.connect.callback import LONGEST_FORM, wait_for_callback
from cvpnd.connect.management import CALLBACK_PORT


async def send(head: str, body: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", CALLBACK_PORT)
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    with contextlib.suppress(ConnectionError):
        return await reader.read()
    return b""


def form(response: str) -> bytes:
    return urlencode({"SAMLResponse": response, "RelayState": ""}).encode()


def post(body: bytes, host: str = f"127.0.0.1:{CALLBACK_PORT}", path: str = "/") -> str:
    return f"POST {path} HTTP/1.1\nHost: {host}\nContent-Length: {len(body)}"


@pytest.mark.xdist_group("port 35001")
async def test_the_response_is_taken_and_nothing_else_is() -> None:
    opened = asyncio.Event()
    waiting = asyncio.create_task(wait_for_callback(opened))
    await opened.wait()
    good = form("PHNhbWw+/w==")
    for head, body in (
        (f"GET / HTTP/1.1\nHost: 127.0.0.1:{CALLBACK_PORT}", b""),
        (post(good, host="evil.example"), good),
        (post(good, path="/other"), good),
        (post(b"a=b"), b"a=b"),
        (post(b""), b""),
        (f"POST / HTTP/1.1\nHost: localhost:{CALLBACK_PORT}\nContent-Length: {LONGEST_FORM + 1}", b""),
        ("x" * 20_000, b""),
        (post(b"SAMLResponse=a&SAMLResponse=b"), b"SAMLResponse=a&SAMLResponse=b"),
    ):
        answer = await send(head, body)
        assert answer.startswith(b"HTTP/1.1 400") or answer == b"", (head[:40], answer)
        assert not waiting.done()
    assert b"close this page" in await send(post(good), good)
    assert await waiting == "PHNhbWw+/w=="
