"""A PostgreSQL server of the test's own, on loopback, gone with the test."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import psycopg

USER = "postgres"


def _programs() -> Path | None:
    """Debian keeps the server's programs off the PATH, below its version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return found[-1].parent if found else None


def installed() -> bool:
    return _programs() is not None and os.geteuid() == 0


class PostgreSql:
    def __init__(self, disk_mib: int = 0) -> None:
        """``disk_mib``: its data, but not what it writes ahead, have a disk of that size; 0: that of ``/tmp``."""
        programs = _programs()
        assert programs is not None
        self._programs = programs
        self._password = secrets.token_hex(8)
        self._disk_mib = disk_mib
        self._directory = Path()
        self._port = 0

    def __enter__(self) -> PostgreSql:
        self._directory = Path(tempfile.mkdtemp(prefix="cvpnd-pg-"))
        shutil.chown(self._directory, USER)
        password = self._directory / "password"
        password.write_text(self._password)
        shutil.chown(password, USER)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        data = self.data
        if self._disk_mib:
            data.mkdir()
            size = f"size={self._disk_mib}m,mode=700,uid={pwd.getpwnam(USER).pw_uid}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", data], check=True)
        ahead = str(self._directory / "ahead")
        self._run(
            "initdb", "-D", str(data), "-X", ahead, "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync",
            "-E", "UTF8", "--locale=C.UTF-8",
        )  # fmt: skip
        self.start()
        return self

    @property
    def data(self) -> Path:
        return self._directory / "data"

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Nothing more fits on its disk."""
        filler = self.data / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        try:
            yield
        finally:
            filler.unlink()

    def start(self) -> None:
        options = (
            f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._directory} -c fsync=off"
        )
        log = str(self._directory / "log")
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """At once, connections and all, as in a crash."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def pause(self) -> None:
        """All of its processes stand still; the kernel goes on accepting connections and what is sent over them."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        main = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for pid in (main, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if self._disk_mib:
            subprocess.run(["umount", "-l", self.data], check=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def new_database(self, name: str) -> str:
        """Its URL."""
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self._url(name)

    def everywhere(self, url: str) -> str:
        """The same database for another network namespace: over the Unix socket."""
        self._directory.chmod(0o755)
        return url.replace("@127.0.0.1:", "@:") + f"?host={self._directory}&port={self._port}"

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self._port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        command = ["runuser", "-u", USER, "--", str(self._programs / program), *arguments]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, cwd="/"
        )
        assert done.returncode == 0, done.stderr
