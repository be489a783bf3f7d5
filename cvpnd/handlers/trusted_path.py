"""Whether somebody else could put other code in the place of a file: what sshd's StrictModes asks of keys.

Everything on the way counts, from the root to the file, symbolic links and where they lead: each belongs to root or to
the daemon's user, and no group and nobody else may write to it, ACLs included, as their mask is what the mode shows as
the group's. A sticky directory of root's, like /tmp, is as good: what is ours in it nobody else can rename. So between
this look and the start of a program only they could change what is started, who could also change the daemon."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MOST_LINKS = 40
"""As in the kernel."""


class UntrustedPathError(Exception):
    """The text is the problem and its fix."""


def problem_with(path: Path) -> str | None:
    """And its fix; None: there is none. Raises ``OSError`` where nothing is."""
    parts = list(reversed(path.absolute().parts))
    here, links = Path(parts.pop()), 0
    while True:
        status = here.lstat()
        if (problem := _problem_with(here, status)) is not None:
            return problem
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > MOST_LINKS:
                return f"{here} is a link that leads round in circles; name the file itself"
            target = here.readlink()
            parts += reversed(target.parts)
            here = Path(parts.pop()) if target.is_absolute() else here.parent
        if not parts:
            return None
        name = parts.pop()
        here = here.parent if name == ".." else here / name


def _problem_with(place: Path, status: os.stat_result) -> str | None:
    if status.st_uid not in (0, os.geteuid()):
        return f"{place} belongs to uid {status.st_uid}, who could let in whom they like; chown root {place}"
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky and not stat.S_ISLNK(status.st_mode):
        mode = stat.S_IMODE(status.st_mode)
        return (
            f"{place} can be changed by others (mode {mode:04o}), who could let in whom they like; chmod go-w {place}"
        )
    return None
