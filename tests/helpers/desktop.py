"""A booted system one cable away from a lab's gateway, and the stock client in it as Debian's own unit runs it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from helpers import certs, other_releases
from helpers.booted import BootedSystem
from helpers.lab import Lab, OpenVpnClient, wait_until

GATEWAY, DEVICE = "198.18.0.1", "198.18.0.2"
CABLE = "desktop"
UNIT = "openvpn-client@{}.service"


@contextmanager
def desktop(lab: Lab, directory: Path, packages: Sequence[Path] = ()) -> Iterator[BootedSystem]:
    """Its eth0 has neither address nor route. ``packages`` are installed, and none of their services started."""
    with BootedSystem(directory) as system:
        if packages:
            system.install(packages)
        _unit(system)
        system.boot()
        system.run("chmod", "0666", "/dev/net/tun")
        lab.gateway.ip_batch(
            f"link add {CABLE} index 190 type veth peer name eth0 netns {system.init_pid}",
            f"address add {GATEWAY}/24 dev {CABLE}",
            f"link set {CABLE} up",
        )
        yield system
        lab.gateway.ip_batch(f"link del {CABLE}")


def configure(system: BootedSystem) -> None:
    """Its network, where nobody else does."""
    system.run("ip", "address", "add", f"{DEVICE}/24", "dev", "eth0")
    system.run("ip", "link", "set", "eth0", "up")
    system.run("ip", "route", "add", "default", "via", GATEWAY)


def _unit(system: BootedSystem) -> None:
    """It runs the release of the client that tests run, with the script that came with it."""
    drop_in = system.root / "etc/systemd/system/openvpn-client@.service.d"
    drop_in.mkdir()
    release = other_releases.chosen()
    command = f"{shlex.join(release.program)} --suppress-timestamps --nobind --config %i.conf"
    (drop_in / "program.conf").write_text(f"[Service]\nProtectHome=no\nExecStart=\nExecStart={command}\n")
    for script in (other_releases.DIRECTORY / release.suite).rglob("dns-updown"):
        own = system.root / script.relative_to(other_releases.DIRECTORY / release.suite / "root")
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(script, own)


class Unit:
    """One client of somebody who has certificate and key in files, as a profile without them says."""

    def __init__(self, system: BootedSystem, name: str, profile: str, person: str = "alice") -> None:
        self.name = UNIT.format(name)
        self._system = system
        place = system.root / "etc/openvpn/client"
        (place / f"{name}.conf").write_text(profile)
        certs.client(person).write(place, person)

    def start(self) -> None:
        self._system.run("systemctl", "start", self.name)
        self.wait_connected(1)

    def wait_connected(self, times: int) -> None:
        wait_until(lambda: self.log().count(OpenVpnClient.COMPLETED) >= times, 30, f"connected {times} times")

    def stop(self) -> None:
        self._system.run("systemctl", "stop", self.name)

    def log(self) -> str:
        return self._system.run("journalctl", "--no-pager", "--output=cat", f"--unit={self.name}").stdout
