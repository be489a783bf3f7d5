"""The one form that the browser posts to 127.0.0.1:35001: identity providers send there what is for AWS's client."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from cvpnd.connect.management import CALLBACK_PORT

LONGEST_HEAD = 16 * 1024
LONGEST_FORM = 400_000
HOSTS = (f"127.0.0.1:{CALLBACK_PORT}", f"localhost:{CALLBACK_PORT}")
"""What browsers call us; a page of another name that leads here is somebody's trick."""
READ_S = 10.0
_PAGE = "<!doctype html><meta charset=utf-8><title>cvpn-connect</title><p>{}"


async def wait_for_callback(opened: asyncio.Event) -> str:
    """The SAML response. ``opened`` is set once somebody may come. Raises ``OSError`` if the port is taken."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_S):
                response = await _read(reader)
        except (TimeoutError, ValueError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            response = None
        status, text = ("200 OK", "You can close this page.") if response else ("400 Bad Request", "Nothing here.")
        body = _PAGE.format(text).encode()
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        writer.close()
        if response and not answer.done():
            answer.set_result(response)

    server = await asyncio.start_server(serve, "127.0.0.1", CALLBACK_PORT, limit=LONGEST_HEAD)
    async with server:
        opened.set()
        return await answer


async def _read(reader: asyncio.StreamReader) -> str | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    length = headers.get("content-length", "")
    if not head[0].startswith("POST / ") or headers.get("host") not in HOSTS or not length.isdigit():
        return None
    if int(length) > LONGEST_FORM:
        return None
    form = parse_qs((await reader.readexactly(int(length))).decode("ascii"), max_num_fields=8)
    responses = form.get("SAMLResponse", [])
    return responses[0] if len(responses) == 1 else None
