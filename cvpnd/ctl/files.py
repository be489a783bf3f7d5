"""Files that ``cvpnctl`` writes: private keys and profiles that contain them."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import typer


def check_writable(path: Path, *, force: bool, otherwise: str) -> None:
    """Called before the daemon is asked, because asking may issue a certificate whose key would then be lost.
    ``otherwise``: what to do if the file exists."""
    if path.exists() and not force:
        raise typer.BadParameter(f"{path} exists; {otherwise}")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is not a directory")
    if not os.access(path.parent, os.W_OK):
        raise typer.BadParameter(f"{path.parent} is not writable")


def read_text(path: Path) -> str:
    """A file that is named on the command line, ``-`` for standard input."""
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "is not text"
        raise typer.BadParameter(f"{path}: {problem}") from None


def write_file(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replaces the file in one step; it has its mode before it has any content."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(file, "w") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        raise
