"""The host: kernel, interfaces, forwarding, buffers, ports."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cvpnd.config import Config, EndpointConfig, Listen
from cvpnd.doctor.facts import Facts, is_root
from cvpnd.doctor.findings import Finding, problem, warning
from cvpnd.ops.udp_sockets import read_udp_sockets
from cvpnd.policy.mtu import tunnel_mtu

PROC_SYS = Path("/proc/sys")
BUFFER_BYTES = 4 * 1024 * 1024
"""Of one of our UDP sockets; with CAP_NET_ADMIN the daemon gets it whatever the limit."""
FULL_SHARE = 0.9
FEW_CONNECTIONS = 3072
"""Fewer than the kernel tracks by itself on a host of 512 MB; a browser has a hundred."""
LOCAL_ROUTE = 2
"""RTN_LOCAL, rtnetlink(7)."""
TUN_NUMBER = os.makedev(10, 200)


def sysctl(path: str) -> str | None:
    try:
        return (PROC_SYS / path).read_text().strip()
    except OSError:
        return None


def tun_device(_facts: Facts) -> Iterator[Finding]:
    path = Path("/dev/net/tun")
    try:
        number = path.stat().st_rdev
        if number == TUN_NUMBER and is_root():
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))  # makes no device yet
    except OSError as error:
        yield problem("tun", f"{path}: {error.strerror}", "modprobe tun; in a container pass the device in")
        return
    if number != TUN_NUMBER:
        yield problem("tun", f"{path} is not the device of that name", f"rm {path} && mknod {path} c 10 200")


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
        elif subnet.cidr_v6 is not None and not has_ipv6(link.name):
            yield problem(
                "interfaces", f"{at}: {link.name} has no IPv6 for {subnet.cidr_v6}",
                f"sysctl -w net.ipv6.conf.{link.name}.disable_ipv6=0, for good in /etc/sysctl.d; an MTU from 1280 on",
            )  # fmt: skip


def outside(facts: Facts) -> Iterator[Finding]:
    """The others, by which clients come. Those that never had a cable are nobody's fault."""
    subnets = set() if facts.config is None else {subnet.interface for subnet in facts.config.subnets}
    with IPRoute() as netlink:
        defaults = {route.get_attr("RTA_OIF") for route in netlink.get_default_routes()}
        ways_out = {link.get_attr("IFLA_IFNAME") for link in netlink.get_links() if link["index"] in defaults}
    for link in facts.links:
        if link.name == "lo" or link.name in subnets or link.name in facts.devices or not link.addresses:
            continue
        shown = ", ".join(str(address.ip) for address in link.addresses)
        if not link.up:
            yield warning(
                "interfaces",
                f"{link.name} has {shown} and is down: nobody gets in there",
                f"ip link set {link.name} up",
            )
        elif not link.carrier and link.name in ways_out:
            yield problem(
                "interfaces",
                f"{link.name}, which leads to the Internet, has no carrier",
                "look at its cable or its other end",
            )


def has_ipv6(interface: str) -> bool:
    return sysctl(f"net/ipv6/conf/{interface}/disable_ipv6") == "0"


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
        value = sysctl(f"net/core/{name}")
        if value is not None and int(value) < BUFFER_BYTES and not _may_force(facts):
            yield warning(
                "buffers", f"net.core.{name} is {value}: without CAP_NET_ADMIN sockets get no more",
                f"sysctl -w net.core.{name}={BUFFER_BYTES}, or start cvpnd by its unit, which has the capability",
            )  # fmt: skip


def _may_force(facts: Facts) -> bool:
    """A daemon that runs has set up TUN devices, for which it needs the same capability."""
    return facts.daemon is not None or is_root()


def ports(facts: Facts) -> Iterator[Finding]:
    """Whether a daemon could listen where none does, and what comes to one that does."""
    if facts.config is None:
        return
    if facts.daemon is not None:
        yield from _lost_addresses(facts.config)
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


def _lost_addresses(config: Config) -> Iterator[Finding]:
    """A socket stays when its address goes."""
    with IPRoute() as netlink:
        for who, listen in _all_listeners(config):
            asked = ip_address(listen.host)
            if not asked.is_unspecified and not _is_own(netlink, asked):
                yield problem(
                    "ports", f"{who} listens on {listen}, whose address this host has lost: nobody gets there",
                    "ip address add it to its interface again, or correct listen = […]",
                )  # fmt: skip


def _is_own(netlink: IPRoute, address: IPv4Address | IPv6Address) -> bool:
    """As the kernel says, for which a route can make any address its own."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        (route,) = netlink.route("get", dst=str(address), family=family)
    except NetlinkError:
        return False
    return bool(route["type"] == LOCAL_ROUTE)


def open_files(facts: Facts) -> Iterator[Finding]:
    """Of the daemon. Each client over TCP is one."""
    if facts.daemon is None or not facts.daemon["pid"]:
        return
    process = Path("/proc") / str(facts.daemon["pid"])
    (limit,) = (line for line in (process / "limits").read_text().splitlines() if line.startswith("Max open files"))
    most, count = int(limit.split()[3]), sum(1 for _ in (process / "fd").iterdir())
    if count > FULL_SHARE * most:
        yield problem(
            "files", f"cvpnd has {count} of {most} files open: clients over TCP are turned away soon",
            f"LimitNOFILE={8 * most} in a drop-in of its unit (systemctl edit cvpnd), then restart it",
        )  # fmt: skip


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
    count, most = sysctl("net/netfilter/nf_conntrack_count"), sysctl("net/netfilter/nf_conntrack_max")
    if count is None or most is None or int(most) == 0:  # as many as there are
        return
    if int(count) > FULL_SHARE * int(most):
        yield problem(
            "conntrack", f"{count} of {most} connections are tracked: new ones of clients are dropped soon",
            f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(most)}",
        )  # fmt: skip
    elif int(most) < FEW_CONNECTIONS:
        yield warning(
            "conntrack", f"the kernel tracks {most} connections at most, those of all clients together",
            f"sysctl -w net.netfilter.nf_conntrack_max={8 * FEW_CONNECTIONS}, for good in /etc/sysctl.d",
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
