"""An endpoint to be attacked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.served import Served


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Served]]:
    """``serve(handshakes=…)``: closed behind the test, which must have left nothing to the event loop's last resort."""
    made: list[Served] = []

    def make(**limits: Any) -> Served:
        made.append(Served(tmp_path, **limits))
        return made[-1]

    yield make
    for served in made:
        served.close()
        assert served.errors == []


@pytest.fixture
async def served(serve: Callable[..., Served]) -> Served:
    return serve()
