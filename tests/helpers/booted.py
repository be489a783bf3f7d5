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
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from helpers import canaries, netns
from helpers.lab import OpenVpnClient
from helpers.netns import Namespace

SYSTEMD = Path(__file__).parents[2] / "systemd"
VENV = Path("/opt/cvpnd")
SOURCE = Path("/opt/cvpnd-source")
"""The directory that holds the package ``cvpnd`` under test."""


class BootedSystem:
    def __init__(self, directory: Path, *, with_source: bool = True, packages: Sequence[Path] = ()) -> None:
        """``with_source``: the virtual environment and the package under test appear inside. ``packages``: their files
        take the place of this machine's, such as another systemd's."""
        self._directory = directory / "system"
        self.with_source = with_source
        self._packages = packages
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init_pid = 0
        self.root = self._directory / "root"

    def __enter__(self) -> BootedSystem:
        missing = [tool for tool in ("systemd-nspawn", "nsenter", "pgrep") if not shutil.which(tool)]
        if missing:
            raise RuntimeError(f"missing: {', '.join(missing)}")
        netns.remove_leftovers()
        self._directory.mkdir()
        name = netns.unique_prefix()
        subprocess.run(["mount", "-t", "tmpfs", name, self._directory], check=True)
        try:
            upper, work = self._directory / "upper", self._directory / "work"
            for path in (upper, work, self.root):
                path.mkdir()
            options = f"lowerdir=/,upperdir={upper},workdir={work}"
            subprocess.run(["mount", "-t", "overlay", name, "-o", options, self.root], check=True)
            self._unwant()  # of this machine's services, all
            for kept in ("etc", "var/lib", "var/log"):  # and what a gateway on it has
                shutil.rmtree(self.root / kept / "cvpnd", ignore_errors=True)
            for package in self._packages:
                files = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
                # /lib is a link to usr/lib, and stays one
                unpack = ["tar", "--extract", "--keep-directory-symlink", "--directory", self.root]
                subprocess.run(unpack, input=files, check=True)
        except BaseException:
            self._unmount()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._init_pid:
            journal = self.run("journalctl", "--no-pager", "--output=export", check=False).stdout
            processes = self.run("ps", "axeww", check=False).stdout
            canaries.look_below(self.root / "etc/cvpnd", {"the journal": journal, "ps": processes})
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

    def install(self, packages: Sequence[Path]) -> None:
        """Before it boots, and none of their services with it."""
        place = self.root / "packages"
        place.mkdir()
        for package in packages:
            shutil.copy(package, place)
        subprocess.run(
            ["chroot", self.root, "sh", "-c", "DEBIAN_FRONTEND=noninteractive dpkg --install /packages/*.deb"],
            check=True,
            capture_output=True,
        )
        self._unwant()

    def _unwant(self) -> None:
        for wants in (self.root / "etc/systemd/system").glob("*.wants"):
            shutil.rmtree(wants)

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
                    *(binds if self.with_source else ()),
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

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout_s: float = 60,
        outside_network: bool = False,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """A command inside, as root. With ``check`` a failure shows what it said. ``outside_network``: for what
        downloads."""
        done = subprocess.run(
            self._inside(command, () if outside_network else ("-n",)),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            input=input,
        )
        if check and done.returncode:
            journal = ""
            with contextlib.suppress(subprocess.SubprocessError):
                journal = self.run("journalctl", "--no-pager", "-n", "60", check=False).stdout
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}\n{journal}")
        return done

    @contextlib.contextmanager
    def process(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """One that runs beside others; killed at the end."""
        with subprocess.Popen(
            self._inside(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _inside(self, command: Sequence[str], network: Sequence[str] = ("-n",)) -> list[str]:
        return ["nsenter", "-t", str(self._init_pid), "-m", "-p", "-u", "-i", *network, "-r", "-w", *command]

    def connect(self, interface: str, address: str, other: Namespace, its_address: str) -> None:
        """A cable between the system and another machine's eth0."""
        ends = [interface, "netns", str(self._init_pid), "type", "veth", "peer", "eth0", "netns", other.name]
        subprocess.run(["ip", "link", "add", *ends], check=True)
        self.run("ip", "address", "add", address, "dev", interface)
        self.run("ip", "link", "set", interface, "up")
        other.ip_batch(f"address add {its_address} dev eth0", "link set eth0 up")

    def client(self, machine: Namespace) -> OpenVpnClient:
        """The stock client there, with the profile that ``cvpnd init`` has left; 192.0.2.1 is this system."""
        profile = machine.directory / "client1.ovpn"
        text = (self.root / "etc/cvpnd/client1.ovpn").read_text()
        profile.write_text(re.sub(r"(?m)^remote \S+", "remote 192.0.2.1", text))
        return OpenVpnClient(machine.start("openvpn", "--config", profile, "--verb", "4"), machine)

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


@contextlib.contextmanager
def machine(name: str, directory: Path, *, of: int | None = None) -> Iterator[Namespace]:
    """Another one beside the booted system; or with its ``init_pid`` its network, for servers on its loopback."""
    with contextlib.closing(Namespace(f"{netns.unique_prefix()}-{name}", directory, of=of)) as namespace:
        yield namespace


def source_drop_in(root: Path, *lines: str) -> None:
    """Only where things lie differs from an installed service: the scripts of a moved environment cannot run."""
    unit = (SYSTEMD / "cvpnd.service").read_text().splitlines()
    text = ["[Service]"]
    for key in ("ExecStart=", "ExecStopPost="):
        (line,) = (each for each in unit if each.startswith(key))
        text += [key, line.replace("/opt/cvpnd/bin/cvpnd", f"{VENV}/bin/python -m cvpnd")]
    text += [
        f"Environment=PYTHONPATH={SOURCE}",
        *lines,
    ]
    if Path(sys.base_prefix).is_relative_to("/root"):  # a Python of root's own, such as pyenv's
        text.append("ProtectHome=no")
        (root / "root").chmod(0o755)
    drop_in = root / "etc/systemd/system/cvpnd.service.d"
    drop_in.mkdir()
    (drop_in / "test.conf").write_text("\n".join(text) + "\n")


def unit_files(root: Path) -> None:
    """The unit and its snippets, as an installation puts them."""
    shutil.copy(SYSTEMD / "cvpnd.service", root / "etc/systemd/system")
    shutil.copy(SYSTEMD / "cvpnd.sysusers.conf", root / "usr/lib/sysusers.d/cvpnd.conf")
    shutil.copy(SYSTEMD / "cvpnd.tmpfiles.conf", root / "usr/lib/tmpfiles.d/cvpnd.conf")
    shutil.copy(SYSTEMD / "cvpnd.catalog", root / "usr/lib/systemd/catalog")


def cvpnd(system: BootedSystem, *arguments: str) -> str:
    return system.run(*_command(system, "cvpnd", "cvpnd", arguments)).stdout


def cvpnctl(system: BootedSystem, *arguments: str, input: str | None = None) -> str:
    return system.run(*cvpnctl_command(system, *arguments), input=input).stdout


def cvpnctl_command(system: BootedSystem, *arguments: str) -> list[str]:
    return _command(system, "cvpnctl", "cvpnd.ctl", arguments)


def _command(system: BootedSystem, name: str, module: str, arguments: Sequence[str]) -> list[str]:
    """The installed one, or the one under test."""
    command = ["env", f"PYTHONPATH={SOURCE}", f"{VENV}/bin/python", "-m", module] if system.with_source else [name]
    return [*command, *arguments]
