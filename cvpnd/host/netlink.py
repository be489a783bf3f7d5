"""The kernel's routing netlink: a socket whose failures are ``HostError``, and lists that are whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_DUMP_INTR
from pyroute2.netlink.exceptions import NetlinkError

from cvpnd.host.errors import HostError, from_netlink

Taken = TypeVar("Taken")

LOOKS, PAUSE_S = 10, 0.02
"""Until a list is whole, and between two."""


@contextlib.asynccontextmanager
async def netlink_socket() -> AsyncIterator[AsyncIPRoute]:
    """Whatever the kernel refuses meanwhile and nobody has better words for is a ``HostError``, a file too many among
    it. Strict: the kernel leaves out what a dump did not ask for, as the other tables of 1,000 routes."""
    try:
        async with AsyncIPRoute(strict_check=True) as netlink:
            yield netlink
    except NetlinkError as error:
        raise from_netlink(error, "netlink") from error
    except OSError as error:
        raise HostError(f"netlink: {error.strerror or error}") from error


async def listed(call: Callable[..., Awaitable[Any]], take: Callable[[Any], Taken | None], **what: Any) -> list[Taken]:
    """What ``call``, as ``netlink.link``, tells of, as ``take`` makes it; None is left out at once, as a host may have
    a million routes. The kernel says of a list whether it changed while it was read, and pyroute2 lets that pass: what
    is missing in such a one may be there."""
    for _ in range(LOOKS):
        found, whole = [], True
        async for message in await call("dump", **what):
            whole = whole and not message["header"]["flags"] & NLM_F_DUMP_INTR
            if (taken := take(message)) is not None:
                found.append(taken)
        if whole:
            return found
        await asyncio.sleep(PAUSE_S)
    raise HostError(
        "the kernel's interfaces or routes change faster than they can be read: ip monitor shows who does it"
    )
