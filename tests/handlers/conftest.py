from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that other users may look into, as pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="cvpnd-handler-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
