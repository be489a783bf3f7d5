"""Kernel settings per interface, with what was there before in a file.

The file is written before the kernel is, so that the next start can undo what a killed predecessor changed. A setting
that somebody else has changed meanwhile is theirs and stays; also where they want what it is already, as far as anybody
can tell: by the setting for all interfaces, which the kernel copies to each, or by what the host sets at its start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cvpnd.host.errors import HostError
from cvpnd.host.sysctl_files import at_start

PROC_SYS = Path("/proc/sys")
STRICT, LOOSE = "1", "2"  # rp_filter, ip-sysctl.rst
OF_ALL = "net/ipv4/conf/all/forwarding"
HOST_WIDE = (OF_ALL, "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/rp_filter")
"""An administrator's, by which it is decided what has to be set for interfaces."""


@dataclass(frozen=True, slots=True)
class Change:
    before: str
    ours: str
    of_all: str | None = None
    """What the setting for all interfaces was then, where the kernel copies that to each whenever it is another."""


class Sysctls:
    """``apply`` makes the settings in its argument so and takes back every earlier one that is not in it."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._changes: dict[str, Change] = {}
        try:
            stored = json.loads(record.read_text())
            self._changes = {
                path: Change(entry["before"], entry["ours"], entry.get("of_all")) for path, entry in stored.items()
            }
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise HostError(
                f"{record}: not readable ({error}); remove it, and set forwarding and rp_filter by hand if needed"
            ) from error

    def apply(self, wanted: Mapping[str, str]) -> None:
        """Paths are relative to /proc/sys, in the order they are to be written; undone in the reverse order."""
        self._undo(keep=wanted)
        for path, value in wanted.items():
            current = read(path)
            if current == value:
                continue
            before = self._changes[path].before if path in self._changes else current
            self._changes[path] = Change(before, value, _of_all(path))
            self._write_record()
            _write(path, value)

    def restore(self) -> None:
        self.apply({})

    def before(self, path: str) -> str:
        """What the setting is without us."""
        return self._changes[path].before if path in self._changes else read(path)

    def _undo(self, keep: Mapping[str, str]) -> None:
        """Each, whatever became of the others. What could not be undone stays in the record."""
        problems: list[str] = []
        for path, change in reversed(list(self._changes.items())):
            if path in keep:
                continue
            try:
                # an interface that is gone took its settings along
                if (PROC_SYS / path).exists() and read(path) == change.ours and not _is_theirs(path, change):
                    _write(path, change.before)
            except HostError as error:
                problems.append(str(error))
            else:
                del self._changes[path]
                self._write_record()
        if problems:
            raise HostError("\n".join(problems))

    def _write_record(self) -> None:
        changes = {path: asdict(change) for path, change in self._changes.items()}
        scratch = self._record.with_suffix(".new")
        try:
            if not changes:
                self._record.unlink(missing_ok=True)
                return
            scratch.write_text(json.dumps(changes))
            os.replace(scratch, self._record)  # noqa: PTH105 - the name says what it does: atomically
        except OSError as error:
            raise HostError(
                f"{self._record} cannot be written: {error.strerror}; its directory must have room and be cvpnd's"
            ) from error


def _of_all(path: str) -> str | None:
    copied = path.startswith("net/ipv4/conf/") and path.endswith("/forwarding") and path != OF_ALL
    return read(OF_ALL) if copied else None


def _is_theirs(path: str, change: Change) -> bool:
    """Somebody has set it, too, to what we did."""
    by_all = change.of_all is not None and change.of_all != _of_all(path)  # None: recorded by an earlier release
    return by_all or at_start(path) == change.ours


def read(path: str) -> str:
    try:
        return (PROC_SYS / path).read_text().strip()
    except OSError as error:
        raise HostError(f"/proc/sys/{path}: {error.strerror}") from error


def host_wide() -> dict[str, str]:
    """As they are. A host without IPv6 has two of them."""
    return {path: read(path) for path in HOST_WIDE if (PROC_SYS / path).exists()}


def differing(wanted: Mapping[str, str]) -> list[str]:
    """Which of these settings are not so, as the kernel's names for them."""
    return [path for path, value in wanted.items() if not (PROC_SYS / path).exists() or read(path) != value]


def fell_silently(wanted: Mapping[str, str]) -> bool:
    """Who writes 0 to IPv6's forwarding of all interfaces where there was 0, as ``sysctl --system`` does, takes
    force_forwarding from each of them, and the kernel tells nobody."""
    witness = next(
        (path for path, value in wanted.items() if path.endswith("/force_forwarding") and value == "1"), None
    )
    try:
        return witness is not None and read(witness) == "0"
    except HostError:
        return False  # the interface is gone, which is told


def _write(path: str, value: str) -> None:
    try:
        (PROC_SYS / path).write_text(value)
    except OSError as error:
        raise HostError(
            f"/proc/sys/{path} cannot be set to {value}: {error.strerror}; "
            f"/proc/sys/net must be writable (in the systemd unit: ProtectKernelTunables=no)"
        ) from error


# -- forwarding --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """Where packets are forwarded only because we asked for it: there the firewall keeps everything else out, so that
    a host does not become a router between its networks by running a VPN gateway."""

    ipv4: frozenset[str] = frozenset()
    ipv6: frozenset[str] = frozenset()
    ipv6_everywhere: bool = False


def forwarding(
    sysctls: Sysctls,
    tuns: list[str],
    interfaces: list[str],
    *,
    tuns_v6: list[str],
    per_interface_v6: bool | None = None,
) -> tuple[dict[str, str], Opened]:
    """The settings that let packets pass between TUNs and target interfaces, and what that opens. ``tuns_v6``: those of
    the TUNs that have IPv6. Others have no settings of IPv6 where their MTU is below 1280.

    IPv4 is forwarded by the receiving interface's own setting. IPv6 has such a setting (force_forwarding) since
    Linux 6.17; before, there is only a switch for the whole host, and interfaces that learn their address from router
    advertisements must be told to go on doing so. ``per_interface_v6`` is for tests; None = ask the kernel.

    Of a TUN's own settings these, and those without which it has no IPv6 but ours (``links``), are all that matter:
    accept_redirects and secure_redirects      a router is believed of its own route, and no client has its address
    send_redirects, accept_ra_*, autoconf      the table keeps both from passing (output, input)
    route_localnet, accept_local               nothing is for this host but pings and names (input)
    rp_filter                                  any is met: the main table has the clients there
    proxy_arp, proxy_ndp, arp_*, dad_*, mld*   it has no neighbours
    mc_forwarding, bc_forwarding, ioam6_*      an administrator's, for packets that rules let through
    """
    wanted = {f"net/ipv4/conf/{name}/forwarding": "1" for name in (*tuns, *interfaces)}
    # A packet may name a way of its own, by an address that rules allow to one that they do not. It goes nowhere if
    # either this or the setting for all interfaces says no, and that is an administrator's.
    wanted |= {f"net/ipv4/conf/{name}/accept_source_route": "0" for name in tuns}
    opened_v4: list[str] = []
    if sysctls.before("net/ipv4/conf/all/forwarding") == "0":
        opened_v4 = [name for name in interfaces if sysctls.before(f"net/ipv4/conf/{name}/forwarding") == "0"]
    opened_v6: list[str] = []
    everywhere = False
    if tuns_v6:
        host_wide = "net/ipv6/conf/all/forwarding"
        closed = sysctls.before(host_wide) == "0"
        # The same over IPv6, where a TUN begins with the administrator's setting for interfaces to come. A kernel may
        # lack them.
        for setting in ("seg6_enabled", "rpl_seg_enabled"):
            if (PROC_SYS / "net/ipv6/conf/all" / setting).exists():
                wanted |= {f"net/ipv6/conf/{name}/{setting}": "0" for name in tuns_v6}
        if per_interface_v6 is None:
            per_interface_v6 = (PROC_SYS / "net/ipv6/conf/all/force_forwarding").exists()
        if per_interface_v6 and closed:
            wanted |= {f"net/ipv6/conf/{name}/force_forwarding": "1" for name in (*tuns_v6, *interfaces)}
            opened_v6 = interfaces
        elif closed:
            for directory in sorted((PROC_SYS / "net/ipv6/conf").iterdir()):
                accept_ra = f"net/ipv6/conf/{directory.name}/accept_ra"
                if directory.name not in (*tuns, "all") and sysctls.before(accept_ra) == "1":
                    wanted[accept_ra] = "2"
            wanted[host_wide] = "1"
            everywhere = True
    return wanted, Opened(frozenset(opened_v4), frozenset(opened_v6), everywhere)


def is_strict(sysctls: Sysctls, interface: str) -> bool:
    """Would replies be dropped whose way back (by the main table) is another interface? The larger value counts."""
    values = (read("net/ipv4/conf/all/rp_filter"), sysctls.before(f"net/ipv4/conf/{interface}/rp_filter"))
    return max(values) == STRICT
