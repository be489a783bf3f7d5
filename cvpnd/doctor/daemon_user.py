"""The files as the daemon's own user has them: root, who asks the doctor, may read and write them all."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICE_USER, SERVICE_CONFIG = "cvpnd", Path("/etc/cvpnd/cvpnd.toml")
"""Of cvpnd.service."""


@dataclass(frozen=True, slots=True)
class DaemonUser:
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @contextlib.contextmanager
    def being(self) -> Iterator[None]:
        """What is opened within is opened as this user. For root, and for the whole process: no other thread may be at
        work."""
        before = os.getegid(), os.getgroups()
        try:
            os.setgroups(self.groups)
            os.setegid(self.gid)
            os.seteuid(self.uid)
            yield
        finally:
            os.seteuid(0)
            os.setegid(before[0])
            os.setgroups(before[1])


def daemon_user(config_path: Path, daemon: Mapping[str, Any] | None) -> DaemonUser | None:
    """Who it is, or would be as a service. None: root, as who asks, or nobody knows."""
    if os.geteuid() != 0:
        return None
    if daemon is not None:
        return _of_process(daemon["pid"])
    if config_path != SERVICE_CONFIG:
        return None
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return None
    return DaemonUser(SERVICE_USER, entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(SERVICE_USER, entry.pw_gid)))


def _of_process(pid: int) -> DaemonUser | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    told = {name: values.split() for name, _, values in (line.partition(":") for line in lines)}
    uid, gid = int(told["Uid"][1]), int(told["Gid"][1])
    if uid == 0:
        return None
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return DaemonUser(name, uid, gid, tuple(map(int, told["Groups"])))
