"""In a process of its own each time: there is no way back from a huge page."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MIB = 1 << 20
ALLOWED = SETTING.exists() and "[never]" not in SETTING.read_text()
LINUX = tuple(map(int, os.uname().release.split(".")[:2]))
WHERE_THERE_ARE_SOME = pytest.mark.skipif(
    not ALLOWED or LINUX < (6, 1), reason="this kernel makes no huge pages when it is asked to"
)

PROGRAM = """
import ctypes, mmap, os, re, sys, threading
from pathlib import Path
from cvpnd.ops.huge_pages import use_huge_pages

if "forbidden" in sys.argv:
    assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0  # PR_SET_THP_DISABLE
pattern = bytes(range(251)) * (32 << 12)
written = mmap.mmap(-1, len(pattern), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
written.write(pattern)
threading.stack_size(64 << 20)
sleeper = threading.Thread(target=threading.Event().wait, daemon=True)  # whose stack is hardly used, beside all that
sleeper.start()
reserved = mmap.mmap(-1, 1 << 44, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE

def kilobytes(name):
    return int(re.search(rf"^{name}: +([0-9]+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)[1])

before = kilobytes("Anonymous")
if "hidden" in sys.argv:
    os.setuid(65534)  # which also makes what is in /proc/self root's, until
use_huge_pages()
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
print(kilobytes("AnonHugePages") * 1024, (kilobytes("Anonymous") - before) * 1024)
assert written[:] == pattern
"""


def huge_and_more(*before: str, said: str = "") -> tuple[int, int]:
    """Bytes in huge pages, and by how many it has grown, within a minute whatever is reserved. All it has written, 64
    MB of patterns, is as it was."""
    command = [*before, sys.executable, "-P", "-c", PROGRAM, said]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    huge, more = done.stdout.split()
    return int(huge), int(more)


@WHERE_THERE_ARE_SOME
def test_what_is_there_goes_into_huge_pages_and_hardly_grows() -> None:
    huge, more = huge_and_more()
    assert huge >= 56 * MIB  # less what begins and ends between two
    assert more < 8 * MIB  # so not by the sleeper's stack


@pytest.mark.parametrize("said", ["forbidden", "hidden"])
def test_where_it_may_not_all_stays_as_it_was(said: str) -> None:
    huge, more = huge_and_more(said=said)
    assert huge == 0
    assert more < MIB


@WHERE_THERE_ARE_SOME
def test_an_operators_never_is_heeded(tmp_path: Path) -> None:
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    huge, more = huge_and_more("unshare", "--mount", "sh", "-c", f'mount --bind {setting} {SETTING} && exec "$@"', "sh")
    assert huge == 0
    assert more < MIB
