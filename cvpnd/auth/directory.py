"""What a login needs of a directory, whichever kind it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cvpnd.auth.identity import Refused
from cvpnd.secret import Secret


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody whom a directory knows and lets in."""

    name: str
    """As the directory writes it, however it was typed."""
    groups: frozenset[str]
    stamp: bytes = b""
    """Another one once tokens from before are to be worth nothing, as after a changed password."""
    person: bytes = b""
    """Another one once somebody else has the name, whose account was made after the first was gone. Empty: nobody
    tells."""


class DirectoryError(Exception):
    """It cannot be used as it is configured; the text names directory, key and fix."""


class Directory(Protocol):
    """Called from threads, several at a time. Neither verb raises for what a client sent."""

    at_once: int
    """How many threads may call it at the same time."""
    good_for_s: float | None
    """How old what it said of an account may be before it is asked again. None: it has everybody in memory and is asked
    each time, also on the event loop."""

    def servers_up(self) -> dict[str, bool]:
        """By URL; empty if there are none."""
        ...

    def unchecked(self) -> int:
        """Accounts that let people go on as they were, as nobody can look at them any more."""
        ...

    def log_in(self, username: str, password: Secret) -> Account | Refused:
        """Takes as long for somebody unknown as for a wrong password."""
        ...

    def look_up(self, username: str) -> Account | Refused:
        """The account as it is now, without its password: for sessions that are there already."""
        ...

    def take_password(self, username: str) -> Secret | None:
        """Of a login that was right just now, to be kept for the next start: where nobody else can look at the account.
        ``username`` as the directory writes it. Also on the event loop."""
        ...

    def wipe_passwords(self) -> None:
        """Those that nobody has taken in time."""
        ...
