"""One gateway per host: locks that die with the process, so that what is found on the host then belongs to nobody
alive."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TextIO

from cvpnd.host.errors import HostError

NETWORK_NAMESPACE = Path("/proc/thread-self/ns/net")
"""Routing tables and the firewall are its own, so there is one gateway in each."""


class Claim:
    """On a runtime directory, and on the network that this process is in."""

    def __init__(self, runtime_dir: Path) -> None:
        self._path = runtime_dir / "host.lock"
        self._locked: tuple[TextIO, ...] = ()

    @property
    def is_held(self) -> bool:
        return bool(self._locked)

    def take(self) -> None:
        """Idempotent. Raises ``HostError`` while another gateway has the runtime directory or, with a directory of its
        own, the network."""
        if self._locked:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            directory = self._path.open("a+")
        except OSError as error:
            raise HostError(f"{self._path}: {error.strerror}; the runtime directory must be writable") from error
        if not _lock(directory):
            directory.seek(0)
            holder = directory.read().strip()
            directory.close()
            raise HostError(f"{self._path}: cvpnd is running already (pid {holder}); stop it first")
        network = NETWORK_NAMESPACE.open()
        if not _lock(network):
            holder = _holder(network)
            directory.close()
            network.close()
            raise HostError(
                f"{NETWORK_NAMESPACE}: another cvpnd is running on this host already (pid {holder}), with another "
                "admin_socket; stop it first, or give each a network namespace"
            )
        directory.truncate(0)
        directory.write(f"{os.getpid()}\n")
        directory.flush()
        self._locked = (directory, network)

    def release(self) -> None:
        for file in self._locked:
            file.close()
        self._locked = ()


def _lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holder(file: TextIO) -> str:
    """The process id of who has locked it, as far as the kernel tells us."""
    inode = str(os.fstat(file.fileno()).st_ino)
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            match line.split():
                case [_, "FLOCK", _, "WRITE", pid, where, *_] if where.rpartition(":")[2] == inode:
                    return pid
    return "unknown"
