"""Where the kernel has no room for another thread or process, as in a unit at its TasksMax."""

from __future__ import annotations

import subprocess
import sys
import textwrap

NOBODY = 65534
LIMIT = f"""
def no_more_threads():
    import os, resource
    os.setgid({NOBODY})
    os.setuid({NOBODY})  # for root there is no limit
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
"""


def said_by(script: str) -> str:
    """Of a program of its own, for which there are none once it has called ``no_more_threads``. Needs root."""
    command = [sys.executable, "-c", LIMIT + textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
