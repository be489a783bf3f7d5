"""What strangers send, within bounds: how much, how long it may take, how often from one source."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from cvpnd.auth.saml.quoting import is_dear
from cvpnd.reasons import PortalRefusal
from cvpnd.server.admission import PerMinute, prefixes

BODY_S = 20.0
FREE_BYTES = 8 * 1024
"""Of a form, for which no memory is asked for."""
MOST_FIELDS = 8


class Malformed(Exception):
    def __init__(self, refusal: PortalRefusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


NETWORK_SHARE = 4
"""That a network may ask for, of what one source in it may: an IPv6 /48 has 65,536 of them."""


class SourceRate:
    """An IPv4 address or an IPv6 /64 may ask for so many pages in a minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._sources = PerMinute()

    def take(self, host: str) -> bool:
        (source, network), now = prefixes(host), self._clock()
        return self._sources.take(source, self._per_minute, now) and self._sources.take(
            network, NETWORK_SHARE * self._per_minute, now
        )


def is_click(request: Request) -> bool:
    """A person's own, and not a program that looks ahead."""
    purpose = request.headers.get("sec-purpose", "") + request.headers.get("purpose", "")
    return request.method == "GET" and "prefetch" not in purpose.lower()


def _as_much_as_comes(_surplus: int) -> bool:
    return True


async def read_form(request: Request, longest: int, hold: Callable[[int], bool] = _as_much_as_comes) -> dict[str, str]:
    """A form's fields, each once. ``hold``: told by how many bytes it is longer than ``FREE_BYTES`` so far; False ends
    it. Raises ``Malformed``."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded" or "content-encoding" in request.headers:
        raise Malformed(PortalRefusal.REQUEST_MALFORMED)
    body = await _read_body(request, longest, hold)
    try:
        text = body.decode("ascii")
        if is_dear(text):
            raise Malformed(PortalRefusal.REQUEST_MALFORMED)
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:  # which UnicodeDecodeError is too
        raise Malformed(PortalRefusal.REQUEST_MALFORMED) from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Malformed(PortalRefusal.REQUEST_MALFORMED)
    return fields


async def _read_body(request: Request, longest: int, hold: Callable[[int], bool]) -> bytes:
    """Not one byte more than is needed to know that it is too long."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:12]) > longest:
        raise Malformed(PortalRefusal.REQUEST_TOO_LARGE)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > longest:
                    raise Malformed(PortalRefusal.REQUEST_TOO_LARGE)
                if not hold(max(0, len(body) - FREE_BYTES)):
                    raise Malformed(PortalRefusal.TOO_MANY_REQUESTS)
    except TimeoutError:
        raise Malformed(PortalRefusal.REQUEST_TOO_SLOW) from None
    except ClientDisconnect:
        raise Malformed(PortalRefusal.REQUEST_MALFORMED) from None
    return bytes(body)
