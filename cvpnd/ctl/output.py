"""What people read. Names in it come from certificates and clients, so nothing is printed without being escaped."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence

from cvpnd.ops.logs import escape_controls

PIPE_WIDTH = 10_000
"""Into a pipe or file, lines are never wrapped."""
GAP = 2
"""Spaces between two columns."""


def print_json(document: object) -> None:
    print(json.dumps(document, indent=2))


def print_line(text: str) -> None:
    print(escape_controls(text))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Aligned columns; a heading that ends in ``>`` is of numbers. ``empty`` is said when there are no rows. In a
    terminal cells are wrapped between words only, so that ids can be copied; what is still too wide it wraps itself."""
    rows = [[escape_controls(cell) for cell in row] for row in rows]
    if not rows:
        sys.stderr.write(f"{empty}\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = [[heading.rstrip(">"), *(row[index] for row in rows)] for index, heading in enumerate(headings)]
    numbers = [heading.endswith(">") for heading in headings]
    widths = [_widest(column) for column in columns]
    least = [
        width if number else _widest(word for cell in column for word in cell.split())
        for column, number, width in zip(columns, numbers, widths, strict=True)
    ]
    gaps = GAP * (len(columns) - 1)
    room = (shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH) - gaps
    while sum(widths) > room and widths != least:
        widest = max(range(len(widths)), key=lambda index: (widths[index] > least[index], widths[index]))
        widths[widest] -= 1
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for (title, *_), number, width in zip(columns, numbers, widths, strict=True):
        table.add_column(title, justify="right" if number else "left", width=width, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text, as a name may contain [markup]
    console = Console(width=sum(widths) + gaps, highlight=False)
    with console.capture() as capture:  # itself it would end with 1 where nobody reads any more, which means no here
        console.print(table)
    print(capture.get(), end="")


def _widest(texts: Iterable[str]) -> int:
    """Cells of a terminal; some letters take two."""
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """A name and a value on each line."""
    facts = list(facts)
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print_line(f"{name:{width}}  {value}")


def local_time(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def local_date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def size(count: int) -> str:
    """1.5 MB; powers of 1000, as network rates have."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5:
            return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} PB"


def duration(seconds: float) -> str:
    """3 d 4 h; the two largest units."""
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    left = max(0, int(seconds))
    parts: list[str] = []
    for name, length in units:
        if left >= length or (name == "s" and not parts):
            parts.append(f"{left // length} {name}")
            left %= length
    return " ".join(parts[:2])
