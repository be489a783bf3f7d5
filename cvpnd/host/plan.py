"""What the host has to do for the endpoints: the whole input of `HostGateway`, pure and comparable."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from cvpnd.host.tun import Offload

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Subnet:
    """A network this host has a leg in."""

    id: str
    cidr: IPNetwork
    interface: str
    gateway: IPAddress | None = None
    """The router behind which the rest of the VPC and other networks are; None = they answer on the link."""


@dataclass(frozen=True, slots=True)
class Association:
    """An endpoint's target network."""

    subnet: Subnet
    vpc_cidrs: tuple[IPNetwork, ...] = ()
    neighbours: tuple[Subnet, ...] = ()
    """The other declared subnets of the VPC: reached through their own interfaces."""
    nat: bool = True
    """False = routed mode: the target network sees the clients' own addresses and needs a route back."""


@dataclass(frozen=True, slots=True)
class ExtraRoute:
    destination: IPNetwork
    subnet: Subnet


@dataclass(frozen=True, slots=True)
class Path:
    """One line of an endpoint's routing table."""

    destination: IPNetwork
    subnet_id: str
    interface: str
    gateway: IPAddress | None


@dataclass(frozen=True, slots=True)
class Egress:
    """What clients may reach in their target networks."""

    network: IPNetwork
    protocol: str = "all"
    """``all``, ``tcp``, ``udp`` or ``icmp``."""
    ports: tuple[int, int] | None = None
    """First and last."""


@dataclass(frozen=True, slots=True)
class EndpointPlan:
    name: str
    tun: str
    """Name of its device, at most 15 characters, used by nobody else."""
    client_cidr: IPv4Network
    client_cidr_v6: IPv6Network | None = None
    mtu: int = 1500
    queues: int = 1
    offload: Offload = Offload.TCP_UDP
    """The most to ask of the device; the kernel may have less."""
    associations: tuple[Association, ...] = ()
    routes: tuple[ExtraRoute, ...] = ()
    client_to_client: bool = False
    """The `local` route: clients of this endpoint reach each other."""
    egress: tuple[Egress, ...] | None = None
    """None: everything."""
    allow_inbound: bool = False
    """Target networks may open connections to clients (useful in routed mode only)."""
    flows_per_client: int = 0
    """Connections that the kernel tracks for one address of a client at once; 0: any number."""
    dns: bool = False
    """Clients may ask a resolver on the gateway address (port 53)."""
    _paths: list[tuple[Path, ...]] = field(default_factory=list, init=False, repr=False, compare=False)
    """Once they were asked for: the host room asks a dozen times, and 1,000 routes take 5 ms."""

    @property
    def client_cidrs(self) -> tuple[IPNetwork, ...]:
        return (self.client_cidr,) if self.client_cidr_v6 is None else (self.client_cidr, self.client_cidr_v6)

    @property
    def gateway_addresses(self) -> tuple[IPAddress, ...]:
        """The gateway's own address in each client CIDR: the first host."""
        return tuple(cidr[1] for cidr in self.client_cidrs)

    def paths(self) -> tuple[Path, ...]:
        """Where clients' packets go. Of several claims to one destination the first counts: a subnet's own network,
        then a declared neighbour, then an extra route, then the rest of the VPC."""
        if not self._paths:
            self._paths.append(self._find_paths())
        return self._paths[0]

    def _find_paths(self) -> tuple[Path, ...]:
        by_destination: dict[IPNetwork, Path] = {}

        def add(destination: IPNetwork, subnet: Subnet, *, on_link: bool) -> None:
            gateway = None if on_link else subnet.gateway
            if gateway is not None and gateway.version != destination.version:
                gateway = None
            if destination.version == 6 and self.client_cidr_v6 is None:
                return
            by_destination.setdefault(destination, Path(destination, subnet.id, subnet.interface, gateway))

        for association in self.associations:
            add(association.subnet.cidr, association.subnet, on_link=True)
        for association in self.associations:
            for neighbour in association.neighbours:
                add(neighbour.cidr, neighbour, on_link=True)
        for route in self.routes:
            add(route.destination, route.subnet, on_link=route.destination == route.subnet.cidr)
        for association in self.associations:
            for cidr in association.vpc_cidrs:
                add(cidr, association.subnet, on_link=False)
        return tuple(by_destination.values())

    def nat_by_interface(self) -> dict[str, bool]:
        """Every interface that clients' packets leave by, and whether they leave with the gateway's address.

        An interface without an association of its own (a neighbour's, or an extra route's) is treated like the
        association that brought it, or translated."""
        nat: dict[str, bool] = {}
        for association in self.associations:
            nat.setdefault(association.subnet.interface, association.nat)
        for association in self.associations:
            for neighbour in association.neighbours:
                nat.setdefault(neighbour.interface, association.nat)
        for path in self.paths():
            nat.setdefault(path.interface, True)
        return nat


@dataclass(frozen=True, slots=True)
class HostPlan:
    endpoints: tuple[EndpointPlan, ...] = ()
    listening_ports: frozenset[int] = frozenset()
    """Every UDP and TCP port of every endpoint, of the portal, the API and the metrics; NAT never takes one of them for
    a client."""

    def subnets_by_interface(self) -> dict[str, set[str]]:
        """The target interfaces and the subnets that need each."""
        found: dict[str, set[str]] = {}
        for endpoint in self.endpoints:
            for association in endpoint.associations:  # an IPv6 subnet counts even where clients have no IPv6
                found.setdefault(association.subnet.interface, set()).add(association.subnet.id)
            for path in endpoint.paths():
                found.setdefault(path.interface, set()).add(path.subnet_id)
        return found
