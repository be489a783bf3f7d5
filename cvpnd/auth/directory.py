"""What a login needs of a directory, whichever kind it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cvpnd.auth.identity import Refused


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody whom a directory knows and lets in."""

    name: str
    """As the directory writes it, however it was typed."""
    groups: frozenset[str]
    stamp: bytes = b""
    """Another one once tokens from before are to be worth nothing, as after a changed password."""


class Directory(Protocol):
    """Called from threads, several at a time. Neither verb raises for what a client sent."""

    def log_in(self, username: str, password: bytes) -> Account | Refused:
        """Takes as long for somebody unknown as for a wrong password."""
        ...

    def look_up(self, username: str) -> Account | Refused:
        """The account as it is now, without its password: for sessions that are there already."""
        ...
