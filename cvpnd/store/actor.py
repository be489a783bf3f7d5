"""On whose behalf a change is made, for the audit record.

The way in (the admin socket, later the AWS-compatible API) sets ``acting`` for the request that it serves; everything
awaited from there inherits it, also what runs in a thread through ``asyncio.to_thread``.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    who: str
    """``uid:0`` for a local user, ``daemon`` for ourselves."""
    source: str
    """Where the request came from, e.g. ``admin-socket pid:4711``."""


DAEMON = Actor("daemon", "daemon")

acting: ContextVar[Actor] = ContextVar("acting", default=DAEMON)
