"""The lab itself: what a killed run left goes with the next one, and what runs stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.lab import REPOSITORY, Lab, wait_until
from helpers.netns import NETNS_DIRECTORY

MOUNTS = Path("/proc/self/mounts")
HOLD = """
import subprocess, sys, time
from helpers.lab import Lab
from helpers.netns import unique_prefix
with Lab() as lab:
    inner = lab.target.start("sleep", "1000")
    mounted = unique_prefix()
    subprocess.run(["mount", "-t", "tmpfs", mounted, lab.directory / "witness"], check=True)
    print(lab.gateway.name, lab.directory, inner.pid, mounted, flush=True)
    time.sleep(1000)
"""


def test_leftovers_of_a_killed_run_go_and_those_of_a_running_one_stay() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert other.stdout is not None
        name, directory, inner, mounted = other.stdout.readline().split()
        with Lab():
            assert (NETNS_DIRECTORY / name).exists()
            assert Path(directory).exists()
            assert mounted in MOUNTS.read_text()
    finally:
        other.kill()
        other.wait()
    wait_until(lambda: not Path(f"/proc/{inner}/cmdline").exists(), what="what ran in the lab dies with its owner")
    with Lab() as lab:
        assert not (NETNS_DIRECTORY / name).exists()
        assert not Path(directory).exists()
        assert mounted not in MOUNTS.read_text()
        mine = lab.gateway.name, lab.directory
    assert not (NETNS_DIRECTORY / mine[0]).exists()
    assert not mine[1].exists()
