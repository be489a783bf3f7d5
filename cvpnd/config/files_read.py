"""Whether the file, and what it names and nobody else looks at, still is as it was when the configuration was read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_Stat = tuple[int, int, int, int] | None
"""None: it is not there, or not for us."""


class FilesRead:
    """Polls, one ``stat`` each; a file that was merely touched, or written again as it was, counts as the same. Blocks:
    call it from a thread, one at a time."""

    def __init__(self, read: Path, digest: str, others: Iterable[Path]) -> None:
        """``digest``: of ``read`` as it was read. Of ``others`` it is taken here, before they are."""
        self._digests = {read: digest, **{path: _digest(path) for path in others}}
        self._stats: dict[Path, _Stat] = dict.fromkeys(self._digests)
        """As of when they had that digest."""

    def changed(self) -> dict[Path, float | None]:
        """When each that is another now was written; None: it cannot be read any more."""
        found: dict[Path, float | None] = {}
        for path, digest in self._digests.items():
            stat = _stat(path)
            if stat is not None and stat == self._stats[path]:
                continue
            if _digest(path) == digest:
                self._stats[path] = stat
            else:
                found[path] = None if stat is None else stat[3] / 1e9
        return found


def _stat(path: Path) -> _Stat:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _digest(path: Path) -> str:
    """Empty: it cannot be read."""
    try:
        return digest_of(path.read_bytes())
    except OSError:
        return ""


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
