"""What the administrator has this host set when it starts: sysctl.d(5), without what its distribution does."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

ETC = Path("/etc")
ALIASES = {"net/ipv4/ip_forward": "net/ipv4/conf/all/forwarding"}


def at_start(path: str, etc: Path = ETC) -> str | None:
    """The value of a setting, relative to /proc/sys; None: nobody sets it, or nobody can tell. Where one has its own
    name it is set so whatever patterns say; of several the last counts."""
    own, by_pattern = None, None
    for line in _lines(etc):
        key, equals, value = line.removeprefix("-").partition("=")
        if not equals or line.startswith(("#", ";")):
            continue
        name = _path(key.strip())
        if name == path:
            own = value.strip()
        elif fnmatchcase(path, name):
            by_pattern = value.strip()
    return by_pattern if own is None else own


def _lines(etc: Path) -> Iterator[str]:
    for file in (*sorted((etc / "sysctl.d").glob("*.conf")), etc / "sysctl.conf"):
        try:
            yield from map(str.strip, file.read_text(errors="replace").splitlines())
        except OSError:
            continue


def _path(key: str) -> str:
    """Dots and slashes change places where a dot comes first: an interface may have either in its name."""
    separator = next((c for c in key if c in "./"), "/")
    path = key if separator == "/" else key.translate(str.maketrans("./", "/."))
    return ALIASES.get(path, path)
