"""Programs that this machine does not have: OpenVPN of other Debian releases, 3, NetworkManager, a newer systemd. None
is installed.

The packages come through apt, from the mirror that this machine's apt uses already, into ``build/clients``. Those of
another release have a state of their own, and the program then runs with its own C library, in place.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DIRECTORY = REPOSITORY / "build/clients"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

SUITES = ("bullseye", "trixie", "sid")
"""OpenVPN 2.5, 2.6 with a much newer OpenSSL, and the newest there is (2.7 at the time of writing). 2.4 is on no mirror
any more."""


class Unavailable(Exception):
    """Why a release cannot be had here."""


@dataclass(frozen=True)
class Release:
    suite: str
    version: str
    program: tuple[str, ...]
    """What to start instead of ``openvpn``."""

    @property
    def generation(self) -> tuple[int, int]:
        major, minor = re.findall(r"\d+", self.version)[:2]
        return int(major), int(minor)


@functools.cache
def chosen() -> Release:
    """The client that tests run: this machine's own, or what ``OPENVPN_SUITE`` says. Raises Unavailable."""
    suite = os.environ.get("OPENVPN_SUITE", "")
    if suite:
        return release(suite)
    own = shutil.which("openvpn", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if own is None:
        raise Unavailable("the openvpn program is not installed")
    return _release("this machine", (own,))


def program() -> tuple[str, ...]:
    """Of the chosen release; empty if there is none."""
    try:
        return chosen().program
    except Unavailable:
        return ()


def generation() -> tuple[int, int]:
    """Of the chosen release, as (2, 6)."""
    try:
        return chosen().generation
    except Unavailable:
        return (0, 0)


def release(suite: str) -> Release:
    """Raises Unavailable."""
    root = unpacked(suite, "openvpn")
    loaders = [path for path in root.rglob("ld-*.so*") if path.is_file() and not path.is_symlink()]
    libraries = [str(path) for path in (*root.glob("lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu"))]
    if not loaders:
        raise Unavailable(f"no dynamic loader in {root}")
    return _release(suite, (str(loaders[0]), "--library-path", ":".join(libraries), str(root / "usr/sbin/openvpn")))


def unpacked(suite: str, package: str, *more: str) -> Path:
    """The files of packages of another release, with all that they need. Fetched once, until ``make clean``. Raises
    Unavailable."""
    if not shutil.which("apt-get") or not KEYRING.exists():
        raise Unavailable("this is no Debian")
    root = DIRECTORY / (suite if package == "openvpn" else package) / "root"
    if not root.exists():
        _fetch(suite, root, package, *more)
    return root


def _release(suite: str, program: tuple[str, ...]) -> Release:
    said = subprocess.run([*program, "--version"], capture_output=True, text=True).stdout
    version = re.match(r"OpenVPN (\S+)", said)
    if version is None:
        raise Unavailable(f"its openvpn does not run here: {said}")
    return Release(suite, version[1], program)


def _fetch(suite: str, root: Path, *packages: str) -> None:
    place = root.parent
    shutil.rmtree(place, ignore_errors=True)
    for directory in ("lists/partial", "archives/partial"):
        (place / directory).mkdir(parents=True)
    (place / "status").touch()  # nothing is installed: all that it needs is fetched
    (place / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
    apt = _apt(place)
    _run(*apt, "update")
    _run(*apt, "install", "--no-install-recommends", "--download-only", *packages)
    coming = place / "unpacked"
    for package in sorted(place.glob("archives/*.deb")):
        _run("dpkg-deb", "--extract", str(package), str(coming))
    shutil.rmtree(place / "lists")
    shutil.rmtree(place / "archives")
    coming.rename(root)  # there as a whole or not at all


def _apt(place: Path) -> list[str]:
    """apt-get with all that it keeps in ``place``, and the sources there."""
    options = {
        "Dir::State": place,
        "Dir::State::lists": place / "lists",
        "Dir::State::status": place / "status",
        "Dir::Cache": place,
        "Dir::Etc::sourcelist": place / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    return ["apt-get", "--yes", *(f"--option={name}={value}" for name, value in options.items())]


def network_manager() -> list[Path]:
    """NetworkManager with its OpenVPN plugin. Raises Unavailable."""
    return _of_this_release("network-manager", "network-manager-openvpn", "dbus", "openvpn")


def resolved() -> list[Path]:
    """systemd-resolved, and the script that tells it what an OpenVPN server pushes. Raises Unavailable."""
    return _of_this_release("systemd-resolved", "openvpn-systemd-resolved", "openvpn", "dbus")


def resolvconf() -> list[Path]:
    """What Debian's own script for OpenVPN tells about resolvers. Raises Unavailable."""
    return _of_this_release("openresolv", "openvpn")


def firewalls() -> list[Path]:
    """Raises Unavailable."""
    return _of_this_release("firewalld", "ufw", "iptables", "dbus")


def _of_this_release(*packages: str) -> list[Path]:
    """Those that are not installed here, for a system that can be thrown away."""
    place = DIRECTORY / packages[0]
    if not place.exists():
        coming = place.with_suffix(".coming")
        shutil.rmtree(coming, ignore_errors=True)
        (coming / "archives/partial").mkdir(parents=True)
        apt = ["apt-get", "--yes", f"--option=Dir::Cache={coming}", "--option=APT::Sandbox::User=root"]
        _run(*apt, "install", "--no-install-recommends", "--download-only", *packages)
        coming.rename(place)
    return sorted(place.glob("archives/*.deb"))


def newer_systemd() -> list[Path]:
    """systemd's packages from Debian's backports, for a system that can be thrown away. Raises Unavailable."""
    place = DIRECTORY / "systemd"
    if not place.exists():
        coming = place.with_suffix(".coming")
        shutil.rmtree(coming, ignore_errors=True)
        suite = f"{_codename()}-backports"
        suites = (_codename(), suite)
        (coming / "lists/partial").mkdir(parents=True)
        (coming / "archives/partial").mkdir(parents=True)
        signed = f"deb [signed-by={KEYRING}] {_mirror()}"
        (coming / "sources.list").write_text("".join(f"{signed} {each} main\n" for each in suites))
        apt = [*_apt(coming), "--option=Dir::State::status=/var/lib/dpkg/status"]
        _run(*apt, "update")
        _run(*apt, "install", "--no-install-recommends", "--download-only", f"--target-release={suite}", "systemd")
        shutil.rmtree(coming / "lists")
        coming.rename(place)
    return sorted(place.glob("archives/*.deb"))


def _codename() -> str:
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def openvpn3() -> Path:
    """The root of a system that has OpenVPN 3 for Linux and what it talks to: a D-Bus daemon and systemd's
    host name service. Raises Unavailable."""
    return unpacked("forky", "openvpn3-client", "dbus", "systemd", "base-files", "dash", "coreutils")


def _mirror() -> str:
    """Where this machine's own Debian packages come from. Raises Unavailable."""
    whose = ("Created-By: Packages", "Origin: Debian", "Label: Debian")
    ask = ["apt-get", "indextargets", "--format", "$(REPO_URI)", *whose]
    found = _run(*ask).split()
    if not found:
        _run("apt-get", "update")
        found = _run(*ask).split()
    if not found:
        raise Unavailable("this machine's apt has no Debian mirror")
    return found[0]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Unavailable(f"{command[0]}: {done.stderr.strip()[-500:] or done.stdout.strip()[-500:]}")
    return done.stdout


def main() -> None:
    """Say which can be had, one a line; which cannot, and why, on standard error."""
    for suite in SUITES:
        try:
            print(release(suite).suite)
        except Unavailable as why:
            print(f"==> SKIPPED: OpenVPN of Debian {suite}: {why}", file=sys.stderr)
    others = {
        "NetworkManager": network_manager,
        "OpenVPN 3": openvpn3,
        "systemd-resolved": resolved,
        "resolvconf": resolvconf,
    }
    for name, fetch in others.items():
        try:
            fetch()
        except Unavailable as why:
            print(f"==> SKIPPED: {name}: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
