"""What another process has in its memory: everything that it may write to, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

_MAP = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw\S* \S+ \S+ \S+ *(.*)")
_AROUND = 48


def found_in_memory(pid: int, wanted: bytes) -> list[str]:
    """Where it stands, and between what."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if (match := _MAP.match(line)) is None:
                continue
            begin, end = (int(match[group], 16) for group in (1, 2))
            try:
                memory.seek(begin)
                data = memory.read(end - begin)
            except OSError:  # it went meanwhile, or is a device's
                continue
            for hit in re.finditer(re.escape(wanted), data):
                around = data[max(0, hit.start() - _AROUND) : hit.end() + _AROUND]
                found.append(f"{begin + hit.start():#x} {match[3] or 'anonymous'}: {around!r}")
    return found
