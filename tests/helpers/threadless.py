"""Where the kernel has no room for another thread or process, as in a unit at its TasksMax."""

from __future__ import annotations

import subprocess
import sys
import textwrap

NOBODY = 65534
NUMBER = 1 << 30
LIMIT = f"""
def no_more_threads():
    import os, resource
    os.setgid({NOBODY})
    os.setuid({NOBODY})  # for root there is no limit
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))

def room_for_one_more():
    import os, resource
    os.setgid({NOBODY})
    os.setuid({NUMBER} + os.getpid())  # others of that user would count too
    _, most = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (len(os.listdir("/proc/self/task")) + 1, most))
"""


def said_by(script: str) -> str:
    """Of a program of its own for which there are none once it has called ``no_more_threads``, or one more once it has
    called ``room_for_one_more``. Needs root."""
    command = [sys.executable, "-c", LIMIT + textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
