"""The host: kernel, interfaces, forwarding, buffers, ports, room on disks."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

from pyroute2 import IPRoute

from cvpnd.config import Config, EndpointConfig, Listen, covers
from cvpnd.doctor.facts import Facts, is_root
from cvpnd.doctor.findings import Finding, problem, warning
from cvpnd.ops.udp_sockets import read_udp_sockets
from cvpnd.policy.mtu import tunnel_mtu

PROC_SYS = Path("/proc/sys")
BUFFER_BYTES = 4 * 1024 * 1024
"""Of one of our UDP sockets; with CAP_NET_ADMIN the daemon gets it whatever the limit."""
FULL_SHARE = 0.9
LOW_BYTES = 200 * 1024 * 1024
RELOAD = "then systemctl reload cvpnd"


def _sysctl(path: str) -> str | None:
    try:
        return (PROC_SYS / path).read_text().strip()
    except OSError:
        return None


def tun_device(_facts: Facts) -> Iterator[Finding]:
    path = Path("/dev/net/tun")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield problem("tun", f"{path}: {error.strerror}", "modprobe tun; in a container pass the device in")
        return
    if not stat.S_ISCHR(mode):
        yield problem("tun", f"{path} is no device", "mknod /dev/net/tun c 10 200")


def programs(_facts: Facts) -> Iterator[Finding]:
    if program("nft") is None:
        yield problem("programs", "nft is not installed", "apt-get install nftables")


def interfaces(facts: Facts) -> Iterator[Finding]:
    """Those of the subnets."""
    for subnet in () if facts.config is None else facts.config.subnets:
        link, at = facts.link(subnet.interface), f"subnet {subnet.id}"
        if link is None:
            yield problem(
                "interfaces", f"{at}: there is no interface {subnet.interface}",
                "correct interface = … in the file (ip link shows them), or bring it back",
            )  # fmt: skip
        elif not link.up:
            yield problem("interfaces", f"{at}: {link.name} is down", f"ip link set {link.name} up")
        elif not link.carrier:
            yield problem("interfaces", f"{at}: {link.name} has no carrier", "look at its cable or its other end")
        elif not any(address.ip in network for network in subnet.networks for address in link.addresses):
            yield problem(
                "interfaces", f"{at}: {link.name} has no address in {subnet.cidr}, so nothing there can be reached",
                f"ip address add …/{subnet.cidr.prefixlen} dev {link.name}, and for good in the network configuration",
            )  # fmt: skip


def overlaps(facts: Facts) -> Iterator[Finding]:
    """Addresses and routes of this host within a client CIDR."""
    if facts.config is None:
        return
    routes = _routes()
    for endpoint in facts.config.endpoints:
        for link in facts.links:
            for address in link.addresses:
                if link.name not in facts.devices and address.network.overlaps(endpoint.client_cidr):
                    yield problem(
                        "addresses",
                        f"{link.name} has {address}, which lies in client_cidr {endpoint.client_cidr} of endpoint "
                        f"{endpoint.name}: clients there and that network hide each other",
                        "choose another client_cidr, or another network for the interface",
                    )
        for destination, device in routes:
            if device not in facts.devices and covers(endpoint.client_cidr, ip_network(destination)):
                connected = any(str(a.network) == destination for link in facts.links for a in link.addresses)
                if not connected:  # told above
                    yield problem(
                        "addresses",
                        f"a route to {destination} through {device} takes packets of clients of {endpoint.name} away",
                        f"ip route del {destination}, or another client_cidr",
                    )


def _routes() -> list[tuple[str, str]]:
    """Destination and device, IPv4, of the main table."""
    found = []
    with IPRoute() as netlink:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}
        for route in netlink.get_routes(family=socket.AF_INET, table=254):
            destination = route.get_attr("RTA_DST")
            if destination is not None and route["dst_len"]:
                found.append((f"{destination}/{route['dst_len']}", names.get(route.get_attr("RTA_OIF"), "?")))
    return found


def forwarding(facts: Facts) -> Iterator[Finding]:
    """The daemon switches it on for each interface at start and reload; a host-wide 0 afterwards undoes that."""
    if facts.daemon is None or facts.config is None:
        return
    used = {a.subnet for endpoint in facts.config.endpoints for a in endpoint.associate}
    names = {subnet.interface for subnet in facts.config.subnets if subnet.id in used} | facts.devices
    closed = sorted(name for name in names if _sysctl(f"net/ipv4/conf/{name}/forwarding") == "0")
    if closed:
        yield problem(
            "forwarding", f"IPv4 is not forwarded from {', '.join(closed)}: it was switched off after cvpnd's start",
            f"remove net.ipv4.ip_forward = 0 from /etc/sysctl.conf and /etc/sysctl.d, {RELOAD}",
        )  # fmt: skip


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def buffers(facts: Facts) -> Iterator[Finding]:
    sockets = read_udp_sockets()
    for endpoint, listen in listeners(facts.config, "udp"):
        seen = sockets.get((ip_address(listen.host), listen.port))
        if seen is not None and seen.dropped:
            yield warning(
                "buffers", f"{endpoint.name}: the kernel dropped {seen.dropped} packets at port {listen.port}, "
                "its buffers were full",
                "more workers or cores; under a flood this is what they are for",
            )  # fmt: skip
    for name in ("rmem_max", "wmem_max"):
        value = _sysctl(f"net/core/{name}")
        if value is not None and int(value) < BUFFER_BYTES and not _may_force(facts):
            yield warning(
                "buffers", f"net.core.{name} is {value}: without CAP_NET_ADMIN sockets get no more",
                f"sysctl -w net.core.{name}={BUFFER_BYTES}, or start cvpnd by its unit, which has the capability",
            )  # fmt: skip


def _may_force(facts: Facts) -> bool:
    """A daemon that runs has set up TUN devices, for which it needs the same capability."""
    return facts.daemon is not None or is_root()


def ports(facts: Facts) -> Iterator[Finding]:
    """Whether a daemon could listen, where none does."""
    if facts.config is None or facts.daemon is not None:
        return
    for who, listen in _all_listeners(facts.config):
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        kind = socket.SOCK_DGRAM if listen.transport == "udp" else socket.SOCK_STREAM
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((listen.host, listen.port))
            except OSError as error:
                what = f"{who} cannot listen on {listen}: {error.strerror}"
                yield problem("ports", what, _listen_fix(listen, error))


def _listen_fix(listen: Listen, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"ss -lnp{listen.transport[0]} 'sport = {listen.port}' shows who; stop it, or choose another port"
        case errno.EADDRNOTAVAIL:
            return "no interface has that address; correct listen = […], or write 0.0.0.0"
        case errno.EACCES:
            return "run cvpnctl doctor as root"
        case _:
            return "choose another address or port"


def mtu(facts: Facts) -> Iterator[Finding]:
    for endpoint in () if facts.config is None else facts.config.endpoints:
        for link in facts.links:
            if link.name == "lo" or link.name in facts.devices or not link.up or not link.addresses:
                continue
            if link.mtu < endpoint.path_mtu and not endpoint.path_discovery:
                yield warning(
                    "mtu", f"{link.name} carries {link.mtu} bytes, less than path_mtu {endpoint.path_mtu} of endpoint "
                    f"{endpoint.name}, which does not find out by itself",
                    f"path_mtu = {max(1280, link.mtu)}, or path_discovery = true",
                )  # fmt: skip
            elif link.mtu < tunnel_mtu(endpoint.path_mtu):
                yield warning(
                    "mtu", f"{link.name} carries {link.mtu} bytes, less than the {tunnel_mtu(endpoint.path_mtu)} of "
                    f"the tunnel of endpoint {endpoint.name}: packets that pass it are cut or refused",
                    f"ip link set {link.name} mtu 1500 if its network can, else path_mtu = {max(1280, link.mtu)}",
                )  # fmt: skip


def connection_tracking(_facts: Facts) -> Iterator[Finding]:
    count, most = _sysctl("net/netfilter/nf_conntrack_count"), _sysctl("net/netfilter/nf_conntrack_max")
    if count is not None and most is not None and int(count) > FULL_SHARE * int(most):
        yield problem(
            "conntrack", f"{count} of {most} connections are tracked: new ones of clients are dropped soon",
            f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(most)}",
        )  # fmt: skip


def disks(facts: Facts) -> Iterator[Finding]:
    if facts.config is None:
        return
    places = {"log_directory": facts.config.daemon.log_directory}
    if facts.config.daemon.state.startswith("sqlite:///"):
        places["state"] = Path(facts.config.daemon.state.removeprefix("sqlite:///")).parent
    for key, path in places.items():
        if not path.is_dir():
            if facts.daemon is not None:
                yield problem("disk", f"daemon.{key}: {path} is no directory", f"mkdir -m 750 {path}, for cvpnd's user")
            continue
        room = os.statvfs(path)
        free = room.f_bavail * room.f_frsize
        if free < LOW_BYTES:
            yield warning(
                "disk", f"daemon.{key}: {free // 1024**2} MB are left at {path}; without room entries are lost and "
                "changes refused", f"make room: du -xh {path} | sort -h | tail",
            )  # fmt: skip


def _all_listeners(config: Config) -> Iterator[tuple[str, Listen]]:
    for endpoint, listen in listeners(config):
        yield f"endpoint {endpoint.name}", listen
    for who, place in (
        ("api", config.api.listen),
        ("portal", config.portal.listen),
        ("metrics", config.metrics.listen),
    ):
        if place is not None:
            yield who, Listen("tcp", place.host, place.port)


def listeners(config: Config | None, transport: str | None = None) -> Iterator[tuple[EndpointConfig, Listen]]:
    for endpoint in () if config is None else config.endpoints:
        for listen in endpoint.listen:
            if transport in (None, listen.transport):
                yield endpoint, listen
