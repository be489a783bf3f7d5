"""Where the daemon writes: whether it may, and whether there is room."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cvpnd.config import Config
from cvpnd.doctor.facts import Facts
from cvpnd.doctor.findings import Finding, problem, warning

LOW_BYTES = 200 * 1024 * 1024
FEW_FILES = 100


def disks(facts: Facts) -> Iterator[Finding]:
    if facts.config is None:
        return
    for key, path in _places(facts.config):
        at = f"daemon.{key}"
        if not path.is_dir():
            if facts.daemon is not None:
                yield problem("disk", f"{at}: {path} is no directory", f"mkdir -m 750 {path}, for cvpnd's user")
            continue
        room = os.statvfs(path)
        if room.f_flag & os.ST_RDONLY:
            yield problem(
                "disk", f"{at}: {path} can only be read",
                f"mount -o remount,rw {_mount_point(path)}; dmesg says whether its disk is broken",
            )  # fmt: skip
            continue
        free = room.f_bavail * room.f_frsize
        if free < LOW_BYTES:
            yield warning(
                "disk", f"{at}: {free // 1024**2} MB are left at {path}; without room entries are lost and "
                "changes refused", f"make room: du -xh {path} | sort -h | tail",
            )  # fmt: skip
        if room.f_files and room.f_favail < FEW_FILES:  # some file systems count none
            yield warning(
                "disk", f"{at}: {room.f_favail} more files may be made at {path}, whatever room there is",
                f"remove some: du -x --inodes {_mount_point(path)} | sort -n | tail",
            )  # fmt: skip
    yield from _owners(facts, facts.config)


def _places(config: Config) -> Iterator[tuple[str, Path]]:
    yield "log_directory", config.daemon.log_directory
    if (state := state_file(config)) is not None:
        yield "state", state.parent


def state_file(config: Config) -> Path | None:
    """None: it is on a server."""
    path = config.daemon.state.removeprefix("sqlite:///")
    return None if path == config.daemon.state else Path(path)


def _owners(facts: Facts, config: Config) -> Iterator[Finding]:
    """What root has made there by running the daemon by hand."""
    if facts.user is None:
        return
    with facts.user.being():
        closed = [path for path in _written(config) if not os.access(path, os.W_OK, effective_ids=True)]
    for path in closed:
        yield problem(
            "disk", f"user {facts.user.name}, as whom cvpnd runs, may not write to {path}",
            f"chown {facts.user.name}: {path}",
        )  # fmt: skip


def _written(config: Config) -> Iterator[Path]:
    """What is there of it."""
    files = [config.daemon.log_directory / "connections.log"]
    if (state := state_file(config)) is not None:
        files += [state, state.with_name(f"{state.name}-wal")]
    for path in dict.fromkeys((*(path for _, path in _places(config)), *files)):
        with contextlib.suppress(OSError):  # beyond a directory that is told already
            if path.exists():
                yield path


def _mount_point(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.is_mount())
