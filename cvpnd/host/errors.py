"""Why the host could not be set up, in words that say what to fix."""

from __future__ import annotations

import errno

from pyroute2.netlink.exceptions import NetlinkError

NEEDS_CAPABILITY = "CAP_NET_ADMIN is missing: start cvpnd as root or by its systemd unit"


class HostError(Exception):
    """``str()`` names the thing and the fix, one problem a line."""


def from_netlink(error: NetlinkError, doing: str) -> HostError:
    """``doing`` says what was tried, e.g. ``subnet-a: route 10.20.0.0/24 through eth1``."""
    if error.code == errno.EPERM:
        return HostError(f"{doing}: {NEEDS_CAPABILITY}")
    if error.code == errno.EACCES:
        return HostError(f"{doing}: IPv6 is switched off there; sysctl -w net.ipv6.conf.INTERFACE.disable_ipv6=0")
    if error.code == errno.ENODEV:
        return HostError(f"{doing}: the interface is gone")
    if error.code == errno.ENETDOWN:
        return HostError(f"{doing}: the interface is down; bring it up")
    if error.code == errno.ENETUNREACH:
        return HostError(f"{doing}: the gateway is not reachable on that interface")
    return HostError(f"{doing}: {error.args[1] if len(error.args) > 1 else error}")
