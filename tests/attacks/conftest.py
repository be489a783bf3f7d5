"""An endpoint to be attacked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from helpers.served import Served


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """Closed behind the test, which must have left nothing to the event loop's last resort."""
    served = Served(tmp_path)
    yield served
    served.close()
    assert served.errors == []
