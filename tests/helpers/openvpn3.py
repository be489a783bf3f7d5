"""OpenVPN 3 for Linux in a lab's namespace: its services on a system bus of their own, below a root of their own.

OpenVPN Connect on every platform is the same core. On Linux it is a handful of services that a bus starts, each with
few rights; so the bus runs in mount and process namespaces where it finds the users, the directories and the TUN device
that a system would have, and nothing of this machine changes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import other_releases
from helpers.lab import LabError, wait_until
from helpers.netns import Namespace, Process

USERS = {"root": 0, "messagebus": 100, "_openvpn": 101}
STATE = "var/lib/openvpn3"
RESOLVERS = "etc/resolv.conf"
LAUNCHER = "usr/lib/dbus-1.0/dbus-daemon-launch-helper"
HOST_NAME_SERVICE = "usr/share/dbus-1/system-services/org.freedesktop.hostname1.service"
"""OpenVPN 3 asks it for the platform. Where systemd runs, that starts it, and the bus does not."""

BUS = """
set -e
mount --make-rprivate /
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/dev/net"
mknod --mode 666 "$1/dev/net/tun" c 10 200
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
mkdir -p "$1/run/dbus" "$1/run/lock" "$1/run/systemd" "$1/run/udev/data"
mount --bind "$2" "$1/root"
exec chroot "$1" /usr/bin/dbus-daemon --system --nofork --nopidfile
"""


def _prepared(root: Path) -> Path:
    """What the packages' own installation would have done."""
    for name, lines in (
        ("passwd", [f"{user}:x:{number}:{number}::/:/usr/sbin/nologin" for user, number in USERS.items()]),
        ("group", [f"{user}:x:{number}:" for user, number in USERS.items()]),
        ("nsswitch.conf", ["passwd: files", "group: files", "hosts: files"]),
        ("machine-id", ["0123456789abcdef0123456789abcdef"]),
        ("resolv.conf", []),
    ):
        (root / "etc" / name).write_text("\n".join(lines) + "\n")
    for directory in (
        "dev",
        "proc",
        "sys",
        "run",
        "root",
        "tmp",
        f"{STATE}/configs",
        f"{STATE}/deviceposture/profiles",
    ):
        (root / directory).mkdir(parents=True, exist_ok=True)
    if not (root / "var/run").is_symlink():
        shutil.rmtree(root / "var/run", ignore_errors=True)
        (root / "var/run").symlink_to("/run")
    # as an administrator says where systemd-resolved does not run; without it the client ignores what is pushed
    (root / STATE / "netcfg.json").write_text(json.dumps({"resolv_conf_file": f"/{RESOLVERS}"}))
    subprocess.run(["chown", "-R", "101:101", root / STATE], check=True)
    subprocess.run(["chown", "0:100", root / LAUNCHER], check=True)
    (root / LAUNCHER).chmod(0o4754)
    service = root / HOST_NAME_SERVICE
    service.write_text(service.read_text().replace("/bin/false", "/usr/lib/systemd/systemd-hostnamed"))
    return root


class OpenVpn3:
    """The client in one namespace. ``log()`` is what all its services say."""

    def __init__(self, namespace: Namespace, home: Path, bus: Process, pid: str) -> None:
        self._namespace = namespace
        self._home = home
        self._bus = bus
        self._pid = pid

    def openvpn3(self, *arguments: str) -> str:
        """Raises LabError."""
        inside = ("nsenter", "--target", self._pid, "--mount", "--pid", "--root", "--wd")
        return self._namespace.run(*inside, "openvpn3", *arguments, timeout_s=40).stdout

    def connect(self, profile: str) -> None:
        (self._home / "profile.ovpn").write_text(profile)
        self.openvpn3("session-start", "--config", "/root/profile.ovpn")

    def connect_with_browser(self, profile: str) -> str:
        """The address that it wants opened."""
        (self._home / "profile.ovpn").write_text(profile)
        self.openvpn3("session-start", "--background", "--config", "/root/profile.ovpn")

        def address() -> str:
            return "".join(re.findall(r"Auth URL: (\S+)", self.openvpn3("session-auth")))

        return str(wait_until(address, 15, self.log()))

    def sessions(self) -> str:
        return self.openvpn3("sessions-list")

    def statistics(self) -> str:
        return self.openvpn3("session-stats", "--config", "/root/profile.ovpn")

    def disconnect(self) -> None:
        self.openvpn3("session-manage", "--disconnect", "--config", "/root/profile.ovpn")

    def resolvers(self) -> list[str]:
        """The DNS servers that it has written down for the whole system."""
        written = Path(f"/proc/{self._pid}/root", RESOLVERS).read_text()
        return re.findall(r"(?m)^nameserver (\S+)", written)

    def log(self) -> str:
        return self._bus.log()


@contextmanager
def openvpn3_client(namespace: Namespace, home: Path) -> Iterator[OpenVpn3]:
    """``home`` is an empty directory for its profiles. Raises Unavailable and LabError."""
    root = _prepared(other_releases.openvpn3())
    own = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    bus = namespace.start(*own, "sh", "-c", BUS, "bus", root, home, label="openvpn3")
    try:
        yield OpenVpn3(namespace, home, bus, _child(bus, root))
    finally:
        bus.kill()


def _child(bus: Process, root: Path) -> str:
    """The bus itself, once it listens: the first process of its namespace."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and bus.running:
        children = Path(f"/proc/{bus.pid}/task/{bus.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/root/run/dbus/system_bus_socket").is_socket():
            return children[0]
        time.sleep(0.05)
    raise LabError(f"the bus of OpenVPN 3 does not start below {root}:\n{bus.tail()}")
