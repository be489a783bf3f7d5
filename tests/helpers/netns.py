"""Network namespaces of a test run: made, entered, and removed with everything that ran in them.

A namespace's name carries the pid and start time of the process that made it, so that what a killed run left behind
can be told from what a parallel run (pytest-xdist) is using. Programs run as children in the foreground with output
in a file, and die with the thread that started them (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PREFIX = "cvpndlab"
NETNS_DIRECTORY = Path("/run/netns")
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_counter = itertools.count(1)


class LabError(AssertionError):
    """The lab or a program in it did not do what was asked; the text carries the program's last output."""


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat: with the pid it names one process for as long as the machine is up."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def unique_prefix() -> str:
    pid = os.getpid()
    return f"{PREFIX}-{pid}-{_start_time(pid)}-{next(_counter)}"


def _is_leftover(name: str) -> bool:
    found = re.match(rf"{PREFIX}-(\d+)-(\d+)-", name)
    return found is not None and _start_time(int(found[1])) != found[2]


def remove_leftovers() -> list[str]:
    """Delete the namespaces, mounts and directories of runs that are no more. Returns their names.

    Another run may be at the same ones just now, so what is gone already is fine."""
    namespaces = NETNS_DIRECTORY.glob(f"{PREFIX}-*") if NETNS_DIRECTORY.is_dir() else ()
    removed = [path.name for path in namespaces if _is_leftover(path.name)]
    for name in removed:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):  # the latest lies on the others
        name, path, *_ = line.split()
        if _is_leftover(name):
            subprocess.run(["umount", "--lazy", path], capture_output=True)
            removed.append(name)
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*"):
        if _is_leftover(directory.name):
            shutil.rmtree(directory, ignore_errors=True)
            removed.append(directory.name)
    return removed


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Process:
    """A program in a namespace, owned by the test. Both outputs go to ``log_path``."""

    def __init__(
        self, label: str, arguments: Sequence[str], log_path: Path, env: Mapping[str, str] | None, cwd: Path | None
    ) -> None:
        self.label = label
        self.log_path = log_path
        with log_path.open("ab") as log:
            self.popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def wait_for(self, pattern: str, timeout_s: float = 15, *, start: int = 0) -> re.Match[str]:
        """Wait until the log, from character ``start`` on, matches; raises LabError if it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while True:
            alive = self.running  # asked first: what was written before the end is seen below
            found = re.compile(pattern, re.MULTILINE).search(self.log(), start)
            if found:
                return found
            if not alive:
                raise LabError(f"{self.label} ended with {self.popen.returncode} before {pattern!r}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise LabError(f"{self.label}: no {pattern!r} within {timeout_s} s:\n{self.tail()}")
            time.sleep(0.02)

    def wait(self, timeout_s: float = 15) -> int:
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.label} still runs after {timeout_s} s:\n{self.tail()}") from None

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def stop(self, timeout_s: float = 10) -> int:
        """SIGTERM, and the exit status. A program that does not end in time is killed, and that is an error."""
        if self.running:
            self.popen.terminate()
            try:
                self.popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise LabError(f"{self.label} did not end on SIGTERM within {timeout_s} s:\n{self.tail()}") from None
        return self.popen.returncode

    def kill(self) -> None:
        """SIGKILL to the program and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)  # its own session: the group is the program's alone
        self.popen.wait()


@dataclass(frozen=True)
class PingStatistics:
    sent: int
    received: int
    min_ms: float
    average_ms: float
    max_ms: float

    @property
    def lost(self) -> int:
        return self.sent - self.received

    @staticmethod
    def parse(text: str) -> PingStatistics:
        """From the last lines of iputils ping (also after SIGINT)."""
        counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
        if not counts:
            raise LabError(f"no ping statistics in:\n{text}")
        times = re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/", text)
        low, average, high = (float(value) for value in times.groups()) if times else (0.0, 0.0, 0.0)
        return PingStatistics(int(counts[1]), int(counts[2]), low, average, high)


class Namespace:
    """One network namespace. ``directory`` takes the logs of what runs inside."""

    def __init__(self, name: str, directory: Path, *, of: int | None = None) -> None:
        """A new one, or by another name the one that the process ``of`` has."""
        self.name = name
        self.directory = directory
        self.processes: list[Process] = []
        made = ["add", name] if of is None else ["attach", name, str(of)]
        subprocess.run(["ip", "netns", *made], check=True)
        self.ip_batch("link set lo up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into the namespace. Sockets made there stay in it; so do children started there."""
        with Path("/proc/thread-self/ns/net").open() as home, (NETNS_DIRECTORY / self.name).open() as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    # -- commands ------------------------------------------------------------------------------------------

    def run(
        self,
        *arguments: str | Path,
        check: bool = True,
        timeout_s: float = 30,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. With ``check`` a failure is a LabError that shows what the command said."""
        command = [str(argument) for argument in arguments]
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            input=input,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
        )
        if check and done.returncode:
            raise LabError(f"{' '.join(command)} in {self.name}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(
        self,
        *arguments: str | Path,
        label: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """Start a program that lives until the lab ends, or until the test stops it."""
        command = [str(argument) for argument in arguments]
        label = label or Path(command[0]).name
        log_path = self.directory / f"{self.name.rpartition('-')[2]}-{label}-{len(self.processes)}.log"
        process = Process(label, ["ip", "netns", "exec", self.name, *command], log_path, env, cwd)
        self.processes.append(process)
        return process

    def ip_batch(self, *commands: str) -> None:
        """Several ``ip`` commands by one process; the first that fails stops the rest and is an error."""
        done = subprocess.run(
            ["ip", "-n", self.name, "-batch", "-"], input="\n".join(commands), capture_output=True, text=True
        )
        if done.returncode:
            raise LabError(f"ip -batch in {self.name}: {done.stderr}")

    # -- sysctl, sockets, ping -----------------------------------------------------------------------------

    def sysctl(self, path: str, value: str | int | None = None) -> str:
        """Read, and with a value first write, e.g. ``net/ipv4/ip_forward``."""
        file = Path("/proc/sys") / path
        with self.entered():  # /proc/sys/net shows the namespace of whoever looks
            if value is not None:
                file.write_text(str(value))
            return file.read_text().strip()

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        with self.entered():
            return socket.socket(family, kind, protocol)

    def connect(self, address: tuple[str, int], timeout_s: float = 5) -> socket.socket:
        """A TCP connection from here; OSError (TimeoutError, ConnectionRefusedError) as usual."""
        with self.entered():
            return socket.create_connection(address, timeout_s)

    def ping(
        self, address: str, count: int = 3, interval_s: float = 0.05, wait_s: float = 1, *options: str
    ) -> PingStatistics:
        """Ping to the end; nothing received is an answer too, not an error. One packet more than ``count`` is sent,
        which does not count: ping gives the answer to its last one no more than two round trips."""
        ping = ["ping", "-n", "-c", str(count + 1), "-i", str(interval_s), "-W", str(wait_s), *options, address]
        done = self.run(*ping, check=False, timeout_s=count * (interval_s + wait_s) + 10)
        if "unreachable" in done.stderr.lower():
            return PingStatistics(count, 0, 0.0, 0.0, 0.0)
        statistics = PingStatistics.parse(done.stdout + done.stderr)
        answered = {int(number) for number in re.findall(r"bytes from .*icmp_seq=(\d+)", done.stdout)}
        return replace(statistics, sent=count, received=len([number for number in answered if number <= count]))

    def start_ping(self, address: str, interval_s: float = 0.1, *options: str) -> BackgroundPing:
        return BackgroundPing(self.start("ping", "-n", "-i", str(interval_s), *options, address, label="ping"))

    # -- the end -------------------------------------------------------------------------------------------

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True)


class BackgroundPing:
    """A ping that runs beside the test; ``finish()`` gives the statistics."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def finish(self) -> PingStatistics:
        """An answer still on its way counts as lost for a ping interrupted just then: callers allow for one."""
        self.process.signal(signal.SIGINT)
        self.process.wait(5)
        return PingStatistics.parse(self.process.log())


def json_of(done: subprocess.CompletedProcess[str]) -> Any:
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise LabError(f"not JSON: {done.args}\n{done.stdout}\n{done.stderr}") from None
