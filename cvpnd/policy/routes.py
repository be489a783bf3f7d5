"""An endpoint's own view of the configuration: its routes and rules as policy types."""

from __future__ import annotations

from collections.abc import Iterable

from cvpnd.config import Config, EndpointConfig, covers
from cvpnd.policy.model import IPNetwork, Route, Rule


def endpoint_routes(endpoint: EndpointConfig, config: Config) -> tuple[Route, ...]:
    """Associating a subnet brings the routes to its vpc, as in AWS; the file adds others. One for each destination.

    With several subnets of one vpc the first carries the vpc, and each carries its own network."""
    routes: dict[IPNetwork, Route] = {
        route.destination: Route(route.destination, route.target, "add-route") for route in endpoint.route
    }
    for association in endpoint.associate:
        subnet = config.subnet(association.subnet)
        vpc = config.vpc(subnet.vpc)
        for destination in vpc.cidr:
            routes.setdefault(destination, Route(destination, subnet.id, "associate"))
        for destination in subnet.networks:
            if best_target(routes.values(), destination) != subnet.id:
                routes.setdefault(destination, Route(destination, subnet.id, "associate"))
    return tuple(routes.values())


def endpoint_rules(endpoint: EndpointConfig) -> tuple[Rule, ...]:
    """The rules that belong to the file; those added at run time are the store's."""
    return tuple(Rule(rule.network, rule.group, rule.description, "file") for rule in endpoint.authorize)


def best_target(routes: Iterable[Route], network: IPNetwork) -> str | None:
    """Where traffic for all of ``network`` goes: the target of the longest prefix around it."""
    around = [route for route in routes if covers(route.destination, network)]
    return max(around, key=lambda route: route.destination.prefixlen).target if around else None
