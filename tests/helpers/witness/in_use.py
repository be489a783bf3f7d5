"""How much memory a process of ours has in use: what the resident size hides, since what is free in between is neither
given back nor a leak."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import heapq
import json
import signal
import sys
from pathlib import Path
from typing import Any

from cvpnd import remembered

SIGNAL = signal.SIGUSR2
REMEMBERED = 16
"""Of each function: what is filled over hundreds of endpoints looks like a leak until then."""


class _MallInfo2(ctypes.Structure):
    """malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def answer(path: str) -> None:
    """Each ``SIGNAL`` with a file at ``path``."""
    remembered.MOST = REMEMBERED
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _MallInfo2

    def look(*_: Any) -> None:
        _forget_cancelled_timers()
        gc.collect()
        found = library.mallinfo2()
        told = {"bytes": found.uordblks + found.hblkhd, "blocks_of_python": sys.getallocatedblocks()}
        new = Path(f"{path}.new")
        new.write_text(json.dumps(told))
        new.rename(path)

    signal.signal(SIGNAL, look)


def _forget_cancelled_timers() -> None:
    """As the event loop does by itself once they are more than half of a hundred: until then each keeps what was going
    on when it was set."""
    loop: Any = asyncio.get_running_loop()
    loop._scheduled = [each for each in loop._scheduled if not each.cancelled()]
    heapq.heapify(loop._scheduled)
    loop._timer_cancelled_count = 0
