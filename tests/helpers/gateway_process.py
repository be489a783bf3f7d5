"""The daemon under test: its configuration file, its process, what it says of itself, and ``cvpnctl`` for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from helpers import canaries, netns
from helpers.netns import LabError, Namespace, Process

from cvpnd.ops.log_writer import GATHER_S

WITNESS = Path(__file__).resolve().parent / "witness"
UNWATCHED = "CVPND_UNWATCHED"
"""In the environment: no daemon writes down what it is told, which costs it time (``helpers/witness/``)."""


def _witness(namespace: Namespace, env: dict[str, str]) -> dict[str, str]:
    path = [str(WITNESS), env.get("PYTHONPATH", os.environ.get("PYTHONPATH"))]
    return {"PYTHONPATH": os.pathsep.join(filter(None, path)), "CVPND_WITNESS": str(namespace.directory / "witness")}


class GatewayProcess:
    """In a namespace, with a directory of its own."""

    def __init__(self, namespace: Namespace, directory: Path, toml: str, env: dict[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.namespace = namespace
        self.directory = directory
        self.config_path = directory / "cvpnd.toml"
        self.admin_socket = directory / "admin.sock"
        self.log_directory = directory / "log"
        witness = {} if UNWATCHED in os.environ else _witness(namespace, env)
        self._env = {"PYTHONUNBUFFERED": "1", **env, **witness}
        self.process: Process | None = None
        self.write_config(toml)

    def write_config(self, toml: str) -> None:
        """Write the file; the running daemon sees it at its next ``reload()``."""
        daemon = f"""[daemon]
state = "sqlite:///{self.directory}/state.db"
admin_socket = "{self.admin_socket}"
log_directory = "{self.log_directory}"
"""
        if "shutdown_grace_s" not in toml:  # on a machine's own wires nothing is lost
            daemon += "shutdown_grace_s = 1\n"
        if "[daemon]" not in toml:
            toml = daemon + toml
        elif "admin_socket" not in toml:
            toml = toml.replace("[daemon]\n", daemon, 1)
        if "[metrics]" not in toml:
            toml = '[metrics]\nlisten = "127.0.0.1:9176"\n' + toml
        new = self.config_path.with_suffix(".new")
        new.write_text(toml)
        new.rename(self.config_path)  # a reload under way must not read half of it

    def start(self, *, wait: bool = True, timeout_s: float = 20) -> None:
        command = [sys.executable, "-m", "cvpnd", "run", "--config", str(self.config_path)]
        self.process = self.namespace.start(*command, label="cvpnd", env=self._env, cwd=self.directory)
        if wait:
            self.wait_ready(timeout_s)

    def wait_ready(self, timeout_s: float = 20) -> None:
        """Until the admin socket answers HTTP (any status)."""
        deadline = time.monotonic() + timeout_s
        while not self.admin_answers():
            if not self.running.running or time.monotonic() > deadline:
                state = "does not answer" if self.running.running else f"ended with {self.running.popen.returncode}"
                raise LabError(f"cvpnd {state}:\n{self.running.tail(80)}")
            time.sleep(0.03)

    def admin_answers(self) -> bool:
        # a unix socket is found by path, so the test's own namespace does
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(2)
            try:
                admin.connect(str(self.admin_socket))
                admin.sendall(b"GET / HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
                return admin.recv(5) == b"HTTP/"
            except OSError:
                return False

    @property
    def running(self) -> Process:
        assert self.process is not None, "not started"
        return self.process

    def log(self) -> str:
        """Everything the daemon wrote since its last start."""
        return self.running.log()

    def refusals(self) -> list[str]:
        """The reasons of attempts in the connection log."""
        return [entry["connection-attempt-failure-reason"] for entry in self.connection_log()]

    def connection_log(self) -> list[dict[str, Any]]:
        """The entries of all connection log files under the log directory, in file order; those of a moment ago too,
        which the daemon lets gather before it writes them."""
        time.sleep(GATHER_S + 0.2)
        lines: list[str] = []
        for path in sorted(self.log_directory.rglob("*")):
            if path.is_file():
                lines += path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def metrics(self) -> dict[str, float]:
        """The exposition as ``{'name{label="x"}': value}``."""
        text = self.namespace.run("curl", "-sS", "--fail", "http://127.0.0.1:9176/metrics").stdout
        samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def operations(self) -> dict[str, int]:
        """The data plane's running totals, by kind: messages and calls, and the packets in them."""
        found = re.compile(r'cvpnd_engine_operations_total\{kind="(\w+)"\}')
        return {match[1]: int(value) for name, value in self.metrics().items() if (match := found.fullmatch(name))}

    def worker_seconds(self) -> list[float]:
        """CPU time of each packet thread so far."""
        named = {}
        for task in Path(f"/proc/{self.running.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread of Python's pool that has just ended
                named[(task / "comm").read_text().strip()] = task
        workers = sorted(name for name in named if name.startswith("cvpnd-w"))
        return [int((named[name] / "schedstat").read_text().split()[0]) / 1e9 for name in workers]

    def ctl(self, *arguments: str, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """``cvpnctl`` with this daemon's admin socket; a failure is a LabError unless ``check`` is false."""
        command = [sys.executable, "-m", "cvpnd.ctl", "--socket", str(self.admin_socket), *arguments]
        done = self.namespace.run(*command, check=check, env=self._env, cwd=self.directory, input=input)
        canaries.note(self.namespace.directory, done.stdout, input)
        return done

    def ctl_json(self, *arguments: str) -> Any:
        return netns.json_of(self.ctl(*arguments, "--json"))

    def reload(self) -> None:
        """SIGHUP. The daemon works on it by itself: wait for what it should bring about."""
        self.running.signal(signal.SIGHUP)

    def stop(self) -> None:
        """SIGTERM and a clean end (status 0), or LabError."""
        status = self.running.stop()
        if status:
            raise LabError(f"cvpnd ended with {status}:\n{self.running.tail(80)}")

    def kill(self) -> None:
        """kill -9: nothing is undone."""
        self.running.kill()
