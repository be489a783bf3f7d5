"""A place that every user may look into: pytest's own are closed by each run beside this one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cvpnd-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
