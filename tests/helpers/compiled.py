"""Small C programs beside the tests and benchmarks, compiled when one is wanted."""

from __future__ import annotations

import subprocess
from pathlib import Path


def program(source: Path, directory: Path) -> Path:
    """DIRECTORY/name, made from name.c unless it is there already."""
    made = directory / source.stem
    if not made.exists():
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-pthread", "-o", made, source], check=True)
    return made
