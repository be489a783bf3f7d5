"""Where the connection log goes besides files, as far as that can be known without sending anything."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path
from cvpnd.config import load
from cvpnd.doctor.facts import Facts
from cvpnd.doctor.reach import syslog
path = Path(sys.argv[1])
print([finding.what for finding in syslog(Facts(path, load(path)))])
"""
MISSED = "it misses entries of the connection log"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root for a network without ways")
@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("udp://192.0.2.77:514", ["udp://192.0.2.77:514 cannot be reached: Network is unreachable: " + MISSED]),
        (
            "udp://[2001:db8::77]:514",
            ["udp://[2001:db8::77]:514 cannot be reached: Network is unreachable: " + MISSED],
        ),
        ("udp://127.0.0.1:514", []),
        ("tcp://127.0.0.1:514", ["tcp://127.0.0.1:514 cannot be reached: Connection refused: " + MISSED]),
        ("local", ["local cannot be reached: /dev/log: No such file or directory: " + MISSED]),
    ],
)
def test_a_syslog_daemon_to_which_no_way_leads_is_told(tmp_path, target: str, told: list[str]) -> None:
    config = tmp_path / "cvpnd.toml"
    config.write_text(f'[connection_log]\nsyslog = "{target}"\n')
    alone = 'mount -t tmpfs none /dev && ip link set lo up && exec "$@"'
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-ec", alone, "sh", sys.executable, "-P", "-c", SCRIPT, config],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (f"{told}\n", 0), done.stderr
