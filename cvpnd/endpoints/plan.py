"""The configuration in the words of the host room, which carries it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cvpnd.config import LOCAL, Config, EndpointConfig, SubnetConfig
from cvpnd.host.plan import Association, Egress, EndpointPlan, ExtraRoute, HostPlan, Subnet
from cvpnd.host.tun import Offload
from cvpnd.policy.mtu import tunnel_mtu


def host_plan(config: Config, devices: Mapping[str, str], workers: int) -> HostPlan:
    """``devices``: endpoint id to the name of its TUN device."""
    return HostPlan(
        endpoints=tuple(_endpoint_plan(config, e, devices[e.id], workers) for e in config.endpoints),
        listening_ports=frozenset(_ports(config)),
    )


def _ports(config: Config) -> Iterator[int]:
    for endpoint in config.endpoints:
        yield from (listen.port for listen in endpoint.listen)
    if config.portal.listen is not None:
        yield config.portal.listen.port
    if config.api.listen is not None:
        yield config.api.listen.port
    if config.metrics.listen is not None:
        yield config.metrics.listen.port


def _endpoint_plan(config: Config, endpoint: EndpointConfig, device: str, workers: int) -> EndpointPlan:
    legs = {chosen.subnet: _legs(config.subnet(chosen.subnet)) for chosen in endpoint.associate}
    return EndpointPlan(
        name=endpoint.name,
        tun=device,
        client_cidr=endpoint.client_cidr,
        client_cidr_v6=endpoint.client_cidr_v6,
        mtu=tunnel_mtu(endpoint.path_mtu),
        queues=workers,
        offload={"auto": Offload.TCP_UDP, "tcp": Offload.TCP, "off": Offload.PLAIN}[config.daemon.packet_offload],
        associations=tuple(
            association
            for chosen in endpoint.associate
            for association in _associations(config, config.subnet(chosen.subnet), chosen.nat)
        ),
        routes=tuple(
            ExtraRoute(route.destination, subnet)
            for route in endpoint.route
            if route.target != LOCAL
            for subnet in legs[route.target]
            if subnet.cidr.version == route.destination.version
        ),
        egress=_egress(config, endpoint),
        flows_per_client=endpoint.limits.flows_per_client,
        client_to_client=any(route.target == LOCAL for route in endpoint.route),
    )


def _egress(config: Config, endpoint: EndpointConfig) -> tuple[Egress, ...] | None:
    egress = config.egress_of(endpoint)
    if egress is None:
        return None
    return tuple(
        Egress(each.network, each.protocol, None if each.ports is None else (each.ports.first, each.ports.last))
        for each in egress
    )


def _legs(subnet: SubnetConfig) -> list[Subnet]:
    """The host knows one network at a time: a dual-stack subnet is two."""
    legs = [Subnet(subnet.id, subnet.cidr, subnet.interface, subnet.gateway)]
    if subnet.cidr_v6 is not None:
        legs.append(Subnet(subnet.id, subnet.cidr_v6, subnet.interface, subnet.gateway_v6))
    return legs


def _associations(config: Config, subnet: SubnetConfig, nat: bool) -> list[Association]:
    neighbours = [
        leg for other in config.subnets if other.vpc == subnet.vpc and other.id != subnet.id for leg in _legs(other)
    ]
    vpc = config.vpc(subnet.vpc)
    return [
        Association(
            subnet=leg,
            vpc_cidrs=tuple(cidr for cidr in vpc.cidr if cidr.version == leg.cidr.version),
            neighbours=tuple(n for n in neighbours if n.cidr.version == leg.cidr.version),
            nat=nat,
        )
        for leg in _legs(subnet)
    ]
