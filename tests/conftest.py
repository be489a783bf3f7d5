"""For the whole run: nobody may tell a secret (``helpers/canaries.py``), and what tests of every package use."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import canaries
from helpers.witness import witness

_looked_at: Counter[str] = Counter()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that other users may look into, as pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="cvpnd-handler-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def pytest_configure(config: pytest.Config) -> None:
    def note(kind: str, what: Any) -> None:
        for secret, of in canaries.secrets_in(kind, what).items():
            canaries.plant(secret, of)

    witness.listen(note)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    if report.when == "call" and report.passed and report.caplog:
        try:
            canaries.look_at("what was logged in this test", report.caplog)
        except canaries.SecretTold as told:
            report.outcome, report.longrepr = "failed", str(told)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # of a worker of pytest-xdist
        output["canaries"] = dict(canaries.LOOKED_AT)
    else:
        _looked_at.update(canaries.LOOKED_AT)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _looked_at.update(getattr(node, "workeroutput", {}).get("canaries", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    shown = ", ".join(f"{count} {what}" for what, count in _looked_at.items())
    terminalreporter.write_line(f"canaries: looked for in {shown}" if shown else "canaries: nothing to look at")
