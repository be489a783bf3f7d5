"""A PostgreSQL server of the test's own, on loopback, gone with the test."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
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
    def __init__(self) -> None:
        programs = _programs()
        assert programs is not None
        self._programs = programs
        self._password = secrets.token_hex(8)
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
        data = str(self._directory / "data")
        self._run(
            "initdb", "-D", data, "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync", "-E", "UTF8",
            "--locale=C.UTF-8",
        )  # fmt: skip
        self.start()
        return self

    def start(self) -> None:
        options = (
            f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._directory} -c fsync=off"
        )
        log = str(self._directory / "log")
        self._run("pg_ctl", "-D", str(self._directory / "data"), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """At once, connections and all, as in a crash."""
        self._run("pg_ctl", "-D", str(self._directory / "data"), "-w", "-m", "immediate", "stop")

    def pause(self) -> None:
        """All of its processes stand still; the kernel goes on accepting connections and what is sent over them."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        main = int((self._directory / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for pid in (main, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
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
