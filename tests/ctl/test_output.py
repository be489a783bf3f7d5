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


def in_a_terminal(script: str, *, columns: int = 40, term: str = "xterm") -> list[str]:
    """The lines that a program shows, without their colours."""
    primary, secondary = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "LINES": "10", "TERM": term}
    subprocess.run([sys.executable, "-c", script], stdout=secondary, env=environment, check=True, timeout=60)
    os.close(secondary)
    shown = os.read(primary, 10_000).decode()
    os.close(primary)
    return re.sub("\x1b\\[[0-9;]*m", "", shown).splitlines()


def test_in_a_terminal_cells_are_wrapped_between_words_and_an_id_stays_whole() -> None:
    row = "['cvpn-connection-48aa042b06a7d46e5', 'a text of many words', '7 B']"
    lines = in_a_terminal(
        f"from cvpnd.ctl.output import print_table; print_table(['ID', 'TEXT', 'N>'], [{row}], empty='')"
    )
    assert "cvpn-connection-48aa042b06a7d46e5" in lines[1].split() and "7 B" in lines[1]
    assert [line.split()[-1] for line in lines[2:]] == ["text", "of", "many", "words"]
    wide = f"from cvpnd.ctl.output import print_table; print_table(['TEXT'], [['{'word ' * 20}']], empty='')"
    assert all(len(line) <= 40 for line in in_a_terminal(wide))


@pytest.mark.parametrize(("columns", "last"), [(40, "ADDRESS"), (80, "SINCE"), (200, "ID")])
def test_top_shows_what_fits_in_the_terminal_and_the_busiest_first(columns: int, last: str) -> None:
    script = """
from cvpnd.ctl import status
def look(now, step):
    return {"now": now, "problems": [], "thread_seconds": {}}, {
        f"c-{n:020}": {"connection_id": f"c-{n:020}", "username": "", "common_name": f"name-{n}",
            "client_ip": "10.0.0.9", "endpoint_name": "staff", "connected_at": 0, "ingress_bytes": n * step,
            "egress_bytes": 0}
        for n in range(50)
    }
status._print_top(status._top(look(1, 0), look(2, 1000), 1000), True)
"""
    head, headings, *rows = in_a_terminal(script, columns=columns)
    assert headings.split()[-1] == last and "50 connected" in head
    assert all(len(line.rstrip()) <= columns for line in (head, headings, *rows))
    assert [row.split()[4] for row in rows] == [f"name-{n}" for n in range(49, 42, -1)]  # seven of LINES=10
