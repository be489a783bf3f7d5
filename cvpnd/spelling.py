"""How one name may be written."""

from __future__ import annotations

import unicodedata


def any_spelling(name: str) -> str:
    """The same for names that people take for one: letter case, spaces around, accents in one character or two. Two
    users may share it, so it ends logins, counts sessions and lets nobody in."""
    return composed(composed(name.strip()).casefold())


def composed(name: str) -> str:
    """The same for names that look the same: accents in one character or two, as keyboards and systems write them."""
    return unicodedata.normalize("NFC", name)
