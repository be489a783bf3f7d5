"""What the checks look at, gathered once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from cvpnd.config import Config, ConfigError, EndpointConfig, load
from cvpnd.doctor.daemon_user import DaemonUser, daemon_user

IFF_UP = 1
DEVICE = r"cvpn\d+"


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    up: bool
    carrier: bool
    mtu: int
    sent: int
    dropped: int
    """Instead of being sent."""
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    config_path: Path
    config: Config | None = None
    """None: the file cannot be used, for ``config_problems``."""
    config_problems: tuple[str, ...] = ()
    daemon: Mapping[str, Any] | None = None
    """What it answers to ``/v1/status``, its ``pid`` as it is called here, 0 if it cannot be seen from here; None:
    there is none. One that ``hangs`` has not answered, and may have no ``pid`` for that."""
    links: Sequence[Link] = field(default_factory=tuple)
    user: DaemonUser | None = None
    """Whose files they have to be, where that is somebody else than who asks."""

    @property
    def devices(self) -> frozenset[str]:
        """The daemon's TUN devices."""
        if self.daemon is not None and "hangs" in self.daemon:
            return frozenset(link.name for link in self.links if re.fullmatch(DEVICE, link.name))
        endpoints = () if self.daemon is None else self.daemon["endpoints"]
        return frozenset(endpoint["interface"] for endpoint in endpoints)

    @property
    def own_addresses(self) -> frozenset[IPv4Address | IPv6Address]:
        return frozenset(address.ip for link in self.links for address in link.addresses)

    def served(self) -> Iterator[tuple[EndpointConfig, str]]:
        """The file's endpoints that the daemon serves, and their devices."""
        if self.config is not None and self.daemon is not None:
            devices = {endpoint["name"]: endpoint["interface"] for endpoint in self.daemon["endpoints"]}
            for endpoint in self.config.endpoints:
                if endpoint.name in devices:
                    yield endpoint, devices[endpoint.name]

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links if link.name == name), None)


def gather(config_path: Path, daemon: Mapping[str, Any] | None) -> Facts:
    config: Config | None = None
    problems: tuple[str, ...] = ()
    try:
        config = load(config_path)
    except ConfigError as error:
        problems = error.problems
    return Facts(config_path, config, problems, daemon, _links(), daemon_user(config_path, daemon))


def is_root() -> bool:
    return os.geteuid() == 0


def _links() -> tuple[Link, ...]:
    with IPRoute() as netlink:
        addresses: dict[int, list[IPv4Interface | IPv6Interface]] = {}
        for message in netlink.get_addr():
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            addresses.setdefault(message["index"], []).append(ip_interface(f"{text}/{message['prefixlen']}"))
        return tuple(
            Link(
                name=message.get_attr("IFLA_IFNAME"),
                up=bool(message["flags"] & IFF_UP),
                carrier=message.get_attr("IFLA_OPERSTATE") not in ("DOWN", "LOWERLAYERDOWN", "NOTPRESENT"),
                mtu=message.get_attr("IFLA_MTU"),
                sent=message.get_attr("IFLA_STATS64")["tx_packets"],
                dropped=message.get_attr("IFLA_STATS64")["tx_dropped"],
                addresses=tuple(addresses.get(message["index"], ())),
            )
            for message in netlink.get_links()
        )
