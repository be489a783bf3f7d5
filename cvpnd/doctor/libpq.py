"""What libpq adds to the URL of a PostgreSQL database: passwords and keys in files, which the URL, the daemon's
environment or nobody names."""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qs

PASSWORD_VARIABLES = ("PGPASSWORD", "PGSSLPASSWORD")
_SERVICE_USER = "cvpnd"
_FILES = (("passfile", "PGPASSFILE", ".pgpass"), ("sslkey", "PGSSLKEY", ".postgresql/postgresql.key"))
"""Parameter, variable, and the file below the home directory."""
_PASSWORD_LINE = re.compile(r"(?:(?:[^:\\]|\\.)*:){4}(?P<password>.+)")
"""Four fields, of which a colon or backslash within one is escaped, and the password."""


def environment_of(pid: int) -> dict[str, str]:
    """As a process was started; empty if it is gone. Raises ``PermissionError`` for who is not root."""
    try:
        written = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (entry.partition("=") for entry in written.decode(errors="replace").split("\0"))
    return {name: value for name, equals, value in pairs if equals}


def secret_files(database: SplitResult, environment: Mapping[str, str]) -> Iterator[Path]:
    """All that may have been used, there or not."""
    query, home = parse_qs(database.query), _home(environment)
    for parameter, variable, default in _FILES:
        yield from map(Path, query.get(parameter, ()))
        if variable in environment:
            yield Path(environment[variable])
        if home is not None:
            yield home / default


def passwords(lines: Iterable[str]) -> Iterator[str]:
    """Of a password file, as it writes them and as they are."""
    for line in lines:
        if found := _PASSWORD_LINE.fullmatch(line):
            yield found["password"]
            yield re.sub(r"\\(.)", r"\1", found["password"])


def _home(environment: Mapping[str, str]) -> Path | None:
    """Of the daemon's user."""
    if home := environment.get("HOME"):
        return Path(home)
    try:
        return Path(pwd.getpwnam(_SERVICE_USER).pw_dir)
    except KeyError:
        return None
