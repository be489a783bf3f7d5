"""Huge pages for what is in memory when the daemon is ready: the code and data of Python that each login goes through.

A login touches little of much, and much of its time is spent on finding out where a page of 4 kB is. In pages of 2 MB
it costs 4 % less CPU (bench/README.md). What is allocated later stays as it is: it comes and goes with clients.

The kernel does it in place with MADV_COLLAPSE, since Linux 6.1; where it cannot or may not, all stays as it was."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator
from itertools import groupby
from mmap import PAGESIZE
from pathlib import Path

HUGE_PAGE = 2 << 20
"""Of x86-64, and of ARM with pages of 4 kB."""
PRESENT = 0.9
"""So much of it must be there already: the rest is allocated with it, and the stacks of threads are nearly empty."""

LARGEST = 1 << 30
"""A larger piece of memory is address space that somebody keeps for later, as AddressSanitizer keeps 15 TB: only to
look what of it is there would take minutes."""

_MADV_COLLAPSE = 25
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_OWN_MEMORY = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 ", re.MULTILINE)
"""Lines of /proc/self/maps: private, written to, and of no file."""
_ENTRY_BYTES = 8
"""Of a page in /proc/self/pagemap; the highest bit of its last byte says that it is there."""


def use_huge_pages() -> None:
    """Call it once, when all is set up, in a thread of its own: it takes 0.1 s of CPU for 60 MB, longer beside other
    work, and whoever needs one of these pages waits while it is copied."""
    with contextlib.suppress(OSError):  # no such kernel, no /sys in a container, or no leave to look at oneself
        if "[never]" in _SETTING.read_text():  # an operator's word, which MADV_COLLAPSE does not heed
            return
        madvise = ctypes.CDLL(None).madvise
        for begin, end in _well_used():  # whatever it answers: a page that stays as it is is no reason to complain
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_COLLAPSE)


def _well_used() -> Iterator[tuple[int, int]]:
    """Where huge pages would replace small ones that are nearly all there, in few pieces: for each the kernel waits for
    all processors."""
    for match in _OWN_MEMORY.finditer(Path("/proc/self/maps").read_text()):
        begin, end = int(match[1], 16), int(match[2], 16)
        if end - begin > LARGEST:
            continue
        first, last = -(-begin // HUGE_PAGE), end // HUGE_PAGE
        for used, pages in groupby(range(first, last), _is_there):
            if used:
                numbers = list(pages)
                yield numbers[0] * HUGE_PAGE, (numbers[-1] + 1) * HUGE_PAGE


def _is_there(number: int) -> bool:
    small_ones = HUGE_PAGE // PAGESIZE
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(number * small_ones * _ENTRY_BYTES)
        entries = pagemap.read(small_ones * _ENTRY_BYTES)
    return sum(byte >> 7 for byte in entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]) >= PRESENT * small_ones
