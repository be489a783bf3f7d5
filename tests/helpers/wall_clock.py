"""A wall clock that a test sets while the daemon runs, by libfaketime; no other clock is touched."""

from __future__ import annotations

from pathlib import Path

LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
"""Of the Debian package faketime."""


class WallClock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.set("+0")

    def set(self, away: str) -> None:
        """From the host's, like ``-2h`` or ``+40y``."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{away}\n")
        new.rename(self._path)

    @property
    def environment(self) -> dict[str, str]:
        """Of whoever is to go by it."""
        assert LIBRARY is not None, "apt-get install faketime"
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # as it is called before 0.9.9
        }
