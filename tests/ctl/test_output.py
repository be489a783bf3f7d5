"""What people read: sizes, and a table in a terminal."""

import os
import pty
import re
import subprocess
import sys

import pytest

from cvpnd.ctl.output import size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (999_499, "999.5 kB"),
        (999_950, "1.0 MB"),
        (2**40, "1.1 TB"),
        (10**16, "10.0 PB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_in_a_terminal_too_long_cells_are_folded_and_not_cut() -> None:
    script = "from cvpnd.ctl.output import print_table; print_table(['A', 'N>'], [['x' * 60, '7']], empty='')"
    primary, secondary = pty.openpty()
    environment = os.environ | {"COLUMNS": "40", "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", script], stdout=secondary, env=environment, check=True, timeout=60)
    os.close(secondary)
    shown = re.sub("\x1b\\[[0-9;]*m", "", os.read(primary, 10_000).decode())
    os.close(primary)
    assert shown.count("x") == 60
    assert all(len(line) <= 40 for line in shown.splitlines())
