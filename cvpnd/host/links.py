"""Interfaces: which there are, and how a TUN device of ours is set up.

There is nothing to undo here: all of it goes with the device.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import Literal

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP

from cvpnd.host.errors import HostError, from_netlink
from cvpnd.host.netlink import listed
from cvpnd.host.plan import EndpointPlan, HostPlan, IPAddress, IPNetwork

TRANSMIT_QUEUE_LENGTH = 1000
"""The kernel's default of 500 packets is less than one burst of full-size segments; 100 was measured to hurt."""

IN6_ADDR_GEN_MODE_NONE = "1"


async def interface_indexes(netlink: AsyncIPRoute) -> dict[str, int]:
    return dict(await listed(netlink.link, lambda link: (link.get("ifname"), link["index"])))


async def attached_networks(
    netlink: AsyncIPRoute, indexes: Mapping[str, int], ours: Collection[str]
) -> tuple[IPNetwork, ...]:
    """The networks of this host's interfaces, without link-local ones, the loopback and ``ours`` (TUN devices). An
    address without neighbours (a /32) is no network."""
    names = {index: name for name, index in indexes.items()}
    found = set()
    for message in await listed(netlink.addr, lambda message: message):
        network = ip_interface(f"{message.get('address')}/{message['prefixlen']}").network
        if names.get(message["index"]) not in (*ours, "lo") and network.num_addresses > 1 and not network.is_link_local:
            found.add(network)
    return tuple(found)


def narrowest(networks: Iterable[IPNetwork]) -> Callable[[IPAddress], IPNetwork | None]:
    """Which of these an address is in, by numbers: each login asks, and ``in`` takes as long as many steps of one."""
    table = [(n.version, int(n.netmask), int(n.network_address), n) for n in networks]
    table.sort(key=lambda entry: entry[1], reverse=True)

    def look_up(address: IPAddress) -> IPNetwork | None:
        version, number = address.version, int(address)
        for of, mask, first, network in table:
            if of == version and number & mask == first:
                return network
        return None

    return look_up


def check_interfaces(plan: HostPlan, present: dict[str, int]) -> None:
    """Raises HostError naming every subnet whose interface is not there."""
    problems = [
        f"{', '.join(sorted(subnets))}: there is no interface {interface} on this host; "
        f"correct the subnet's interface, or bring it back"
        for interface, subnets in plan.subnets_by_interface().items()
        if interface not in present
    ]
    if problems:
        raise HostError("\n".join(problems))


async def set_up_tun(netlink: AsyncIPRoute, endpoint: EndpointPlan, index: int) -> None:
    """Addresses, MTU and queue length as the plan says, and up. Changes only what differs."""
    doing = f"{endpoint.name}: set up {endpoint.tun}"
    try:
        _set_up_ipv6(endpoint)
        await netlink.link("set", index=index, mtu=endpoint.mtu, txqlen=TRANSMIT_QUEUE_LENGTH, state="up")
        await _set_addresses(netlink, endpoint, index)
    except NetlinkError as error:
        raise from_netlink(error, doing) from error
    except OSError as error:
        raise HostError(f"{doing}: {error}") from error


async def remove(netlink: AsyncIPRoute, name: str, index: int) -> None:
    try:
        await netlink.link("delete", index=index)
    except NetlinkError as error:
        if error.code != errno.ENODEV:  # it went meanwhile
            raise from_netlink(error, f"remove the device {name}") from error


async def state_of_tun(
    netlink: AsyncIPRoute, endpoint: EndpointPlan, index: int
) -> Literal["as planned", "gone", "down", "changed"]:
    """``index``: of the device that is ours; another one of its name is not."""
    if (await interface_indexes(netlink)).get(endpoint.tun) != index:
        return "gone"
    for link in await netlink.link("get", index=index):
        if not link["flags"] & IFF_UP:
            return "down"
        if link.get("mtu") != endpoint.mtu:
            return "changed"
    return "as planned" if await _addresses(netlink, index) == _wanted_addresses(endpoint) else "changed"


def _set_up_ipv6(endpoint: EndpointPlan) -> None:
    """No IPv6 at all for an endpoint that has none. Else no link-local address, hence no router solicitations into the
    tunnel, which is why this comes before the device goes up."""
    settings = Path("/proc/sys/net/ipv6/conf") / endpoint.tun
    if not settings.is_dir():
        if endpoint.client_cidr_v6 is not None:
            raise HostError(f"{endpoint.name}: client_cidr_v6 needs IPv6, which this host's kernel has switched off")
        return
    (settings / "addr_gen_mode").write_text(IN6_ADDR_GEN_MODE_NONE)
    (settings / "accept_ra").write_text("0")
    (settings / "disable_ipv6").write_text("1" if endpoint.client_cidr_v6 is None else "0")


async def _set_addresses(netlink: AsyncIPRoute, endpoint: EndpointPlan, index: int) -> None:
    wanted, present = _wanted_addresses(endpoint), await _addresses(netlink, index)
    for address in present - wanted:
        await netlink.addr("delete", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
    for address in wanted - present:
        await netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)


def _wanted_addresses(endpoint: EndpointPlan) -> set[IPv4Interface | IPv6Interface]:
    return {
        ip_interface(f"{address}/{cidr.prefixlen}")
        for address, cidr in zip(endpoint.gateway_addresses, endpoint.client_cidrs, strict=True)
    }


async def _addresses(netlink: AsyncIPRoute, index: int) -> set[IPv4Interface | IPv6Interface]:
    return {
        ip_interface(f"{message.get('local') or message.get('address')}/{message['prefixlen']}")
        for message in await listed(netlink.addr, lambda message: message, index=index)
    }
