"""``cvpnctl`` without a process of its own for each command: where there are many, Python's start is most of it."""

from __future__ import annotations

from pathlib import Path

from helpers.netns import LabError, Namespace
from typer.testing import CliRunner

from cvpnd.ctl.__main__ import app


def cvpnctl(place: Namespace, socket: Path, *arguments: str, code: int = 0) -> str:
    """What it prints. Another exit code than ``code`` is a LabError."""
    with place.entered():
        done = CliRunner().invoke(app, arguments, env={"CVPND_SOCKET": str(socket)}, prog_name="cvpnctl")
    if done.exit_code != code:
        raise LabError(f"cvpnctl {' '.join(arguments)}: {done.exit_code}\n{done.output}\n{done.exception!r}")
    return done.stdout
