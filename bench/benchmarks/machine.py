"""Where and with what a result was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from cvpnd.dataplane.native import NativeDataPlane


def machine() -> dict[str, Any]:
    cpus = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    release = platform.freedesktop_os_release()
    plane = NativeDataPlane(1)
    backend = plane.crypto_backend
    plane.close()
    commit = _first_line("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    return {
        "day": date.today().isoformat(),
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "system": release.get("PRETTY_NAME", release["NAME"]),
        "python": platform.python_version(),
        "cvpnd": f"{metadata.version('cvpnd')} {commit}".strip(),
        "packet crypto": backend,
        "openvpn": _first_line("openvpn", "--version").partition(" [")[0],
        "openssl": _first_line("openssl", "version").partition(" (")[0],
        "iperf3": _first_line("iperf3", "--version"),
    }


def _first_line(*command: str) -> str:
    """Empty if there is no such program; openvpn --version exits with 1."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    except OSError:
        return ""
