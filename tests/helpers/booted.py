"""A booted systemd over a copy-on-write view of this machine, to start the real unit in.

    with BootedSystem(tmp_path) as system:
        (system.root / "etc/cvpnd/cvpnd.toml").write_text(…)        # before boot() as well as after
        system.boot()
        system.run("systemctl", "start", "cvpnd")

Nothing is downloaded and nothing of this machine changes: the root is an overlay, the network a namespace with
only loopback. The virtual environment that runs the test appears below /opt/cvpnd.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

VENV = Path("/opt/cvpnd")
SOURCE = Path("/opt/cvpnd-source")
"""The directory that holds the package ``cvpnd`` under test."""


class BootedSystem:
    def __init__(self, directory: Path, *, with_source: bool = True) -> None:
        """``with_source``: the virtual environment and the package under test appear inside."""
        self._directory = directory / "system"
        self._with_source = with_source
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init_pid = 0
        self.root = self._directory / "root"

    def __enter__(self) -> BootedSystem:
        missing = [tool for tool in ("systemd-nspawn", "nsenter", "pgrep") if not shutil.which(tool)]
        if missing:
            raise RuntimeError(f"missing: {', '.join(missing)}")
        self._directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self._directory], check=True)
        try:
            upper, work = self._directory / "upper", self._directory / "work"
            for path in (upper, work, self.root):
                path.mkdir()
            options = f"lowerdir=/,upperdir={upper},workdir={work}"
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self.root], check=True)
            # of this machine's services none is wanted
            for wants in (self.root / "etc/systemd/system").glob("*.wants"):
                shutil.rmtree(wants)
        except BaseException:
            self._unmount()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._init_pid:
            # a clean halt; killing nspawn would orphan what runs inside
            subprocess.run(["kill", "-s", "RTMIN+3", str(self._init_pid)], check=False)
        if self._nspawn is not None:
            try:
                self._nspawn.wait(20)
            except subprocess.TimeoutExpired:
                self._nspawn.send_signal(signal.SIGTERM)
                self._nspawn.wait(10)
        self._unmount()

    def _unmount(self) -> None:
        for path in (self.root, self._directory):
            subprocess.run(["umount", "--lazy", path], check=False, stderr=subprocess.DEVNULL)

    def boot(self, timeout_s: float = 30) -> None:
        source = find_spec("cvpnd")
        assert source is not None and source.origin is not None
        binds = [f"--bind-ro={sys.prefix}:{VENV}", f"--bind-ro={Path(source.origin).parents[1]}:{SOURCE}"]
        console = (self._directory / "console").open("wb")
        with console:
            self._nspawn = subprocess.Popen(
                [
                    *("systemd-nspawn", "--boot", "--register=no", "--keep-unit", "--private-network"),
                    *("--capability=CAP_NET_ADMIN", "--console=read-only", "--quiet", f"--directory={self.root}"),
                    *(binds if self._with_source else ()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + timeout_s
        state = ""
        while state not in ("running", "degraded"):
            if self._nspawn.poll() is not None or time.monotonic() > deadline:
                shown = (self._directory / "console").read_text(errors="replace")
                raise RuntimeError(f"the system does not boot ({state}):\n{shown}")
            time.sleep(0.1)
            children = subprocess.run(
                ["pgrep", "-P", str(self._nspawn.pid), "-x", "systemd"], capture_output=True, text=True, check=False
            )
            if children.stdout.strip():
                self._init_pid = int(children.stdout)
                state = self.run("systemctl", "is-system-running", check=False).stdout.strip()

    @property
    def init_pid(self) -> int:
        """Whose namespaces are the system's, e.g. to move an interface there."""
        return self._init_pid

    def run(self, *command: str, check: bool = True, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """A command inside, as root. With ``check`` a failure shows what it said."""
        done = subprocess.run(
            ["nsenter", "-t", str(self._init_pid), "-m", "-p", "-u", "-i", "-n", "-r", "-w", *command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            journal = ""
            with contextlib.suppress(subprocess.SubprocessError):
                journal = self.run("journalctl", "--no-pager", "-n", "60", check=False).stdout
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}\n{journal}")
        return done

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()
