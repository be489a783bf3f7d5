"""What only several tables together can get wrong: ids that name nothing, and networks that overlap.

Each check yields ``(key path, problem and fix)``; none raises, so that the operator sees everything at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from cvpnd.config.endpoint import EndpointConfig
from cvpnd.config.file import Config
from cvpnd.config.networks import DEFAULT_GROUP, SubnetConfig
from cvpnd.config.saml import PROVIDER_ARN
from cvpnd.config.values import LOCAL, LOCAL_DIRECTORY, IPNetwork, covers, overlap
from cvpnd.spelling import any_spelling

Problem = tuple[str, str]


def cross_check(config: Config) -> list[Problem]:
    """Every problem between the tables of a configuration whose tables are each in order."""
    names = [
        (f"endpoint[{index}].name", f'"{config.endpoints[index].name}" is the id of endpoint[{other}]; choose another')
        for index, other in _named_like_ids(config.endpoints)
    ]
    return [*_between_tables(config), *names]


def _between_tables(config: Config) -> list[Problem]:
    problems = [*_duplicates(config), *_networks_of_the_host(config), *_sockets(config), *_client_networks(config)]
    problems += [*_spellings(config), *_radius(config)]
    for index, endpoint in enumerate(config.endpoints):
        at = f"endpoint[{index}]"
        problems += _associations(at, endpoint, config)
        problems += _routes(at, endpoint, config)
        problems += _rules(at, endpoint)
        problems += _addresses(at, endpoint)
        problems += _resolvers(at, endpoint, config)
        problems += _security_groups(at, endpoint, config)
        problems += _directories(at, endpoint, config)
        problems += _saml_providers(at, endpoint, config)
        problems += _handler(at, endpoint, config)
        problems += _self_service(at, endpoint, config)
    return problems


def managed_problems(config: Config, managed: Sequence[EndpointConfig]) -> list[tuple[EndpointConfig, str]]:
    """What is wrong with endpoints that no file declares, beside each other and those of ``config``, which is in order
    by itself. A resolver that no route leads to is none of it: associations come later. Nor is what is ``mistakable``:
    no endpoint that there is already stands still for its name."""
    together = config.model_copy(update={"endpoints": (*config.endpoints, *managed)})
    found = []
    for key, problem in _between_tables(together):
        number, _, rest = key.removeprefix("endpoint[").partition("].")
        if number.isdecimal() and int(number) >= len(config.endpoints) and not rest.startswith("dns_"):
            found.append((together.endpoints[int(number)], f"{rest}: {problem}"))
    return found


def mistakable(config: Config, managed: Sequence[EndpointConfig]) -> list[tuple[EndpointConfig, str]]:
    """Of the endpoints of ``config`` and those that no file declares, whose name is another's id."""
    together = (*config.endpoints, *managed)
    return [
        (
            together[index],
            f'name: "{together[index].name}" is the id of endpoint {together[other].name}; choose another',
        )
        for index, other in _named_like_ids(together)
    ]


def _named_like_ids(endpoints: Sequence[EndpointConfig]) -> Iterator[tuple[int, int]]:
    """What is meant for one of the two would be done to the other."""
    ids = {endpoint.id: index for index, endpoint in enumerate(endpoints)}
    for index, endpoint in enumerate(endpoints):
        if (other := ids.get(endpoint.name, index)) != index:
            yield index, other


def suggest(word: str, known: Sequence[str]) -> str:
    """The fix for a name that names nothing: the nearest one, else all there are."""
    if near := get_close_matches(word, known, n=1):
        return f'did you mean "{near[0]}"?'
    return f"known are {', '.join(known)}" if known else "there is none yet, declare it"


def _client_cidrs(endpoint: EndpointConfig) -> Iterator[tuple[str, IPNetwork]]:
    yield "client_cidr", endpoint.client_cidr
    if endpoint.client_cidr_v6 is not None:
        yield "client_cidr_v6", endpoint.client_cidr_v6


def _duplicates(config: Config) -> Iterator[Problem]:
    for key, values in (
        ("vpc[{}].id", [vpc.id for vpc in config.vpcs]),
        ("subnet[{}].id", [subnet.id for subnet in config.subnets]),
        ("security_group[{}].id", [group.id for group in config.security_groups]),
        ("local_users[{}].name", [user.name for user in config.local_users]),
        ("handler[{}].name", [handler.name for handler in config.handlers]),
        ("directory[{}].id", [directory.id for directory in config.directories]),
        ("saml_provider[{}].id", [provider.id for provider in config.saml_providers]),
        ("radius[{}].directory", [radius.directory for radius in config.radius]),
        ("endpoint[{}].name", [endpoint.name for endpoint in config.endpoints]),
        ("endpoint[{}].id", [endpoint.id for endpoint in config.endpoints]),
    ):
        for index, value in enumerate(values):
            first = values.index(value)
            if first < index:
                # The same name twice is also the same derived id twice; once is enough.
                if key == "endpoint[{}].id" and config.endpoints[first].name == config.endpoints[index].name:
                    continue
                yield key.format(index), f'"{value}" is already {key.format(first)}; choose another'


def _spellings(config: Config) -> Iterator[Problem]:
    """Whoever ends the sessions of one of them, or counts them, means both; and one may be let in as the other where
    the names differ only in how accents are composed."""
    first: dict[str, int] = {}
    for index, user in enumerate(config.local_users):
        before = first.setdefault(any_spelling(user.name), index)
        if before != index and config.local_users[before].name != user.name:
            yield (
                f"local_users[{index}].name",
                f'"{user.name}" is local_users[{before}].name in another spelling; choose another',
            )


# -- networks of the host -----------------------------------------------------------------------------------


def _networks_of_the_host(config: Config) -> Iterator[Problem]:
    vpcs = {vpc.id: vpc for vpc in config.vpcs}
    for index, group in enumerate(config.security_groups):
        if group.vpc not in vpcs:
            yield f"security_group[{index}].vpc", f'"{group.vpc}" is no vpc; {suggest(group.vpc, list(vpcs))}'
    for index, subnet in enumerate(config.subnets):
        at = f"subnet[{index}]"
        vpc = vpcs.get(subnet.vpc)
        if vpc is None:
            yield f"{at}.vpc", f'"{subnet.vpc}" is no vpc; {suggest(subnet.vpc, list(vpcs))}'
        else:
            for key, network in (("cidr", subnet.cidr), ("cidr_v6", subnet.cidr_v6)):
                if network is not None and not any(covers(outer, network) for outer in vpc.cidr):
                    outer_text = ", ".join(map(str, vpc.cidr))
                    yield (
                        f"{at}.{key}",
                        f"{network} is outside vpc {vpc.id} ({outer_text}); correct it or add it to the vpc's cidr",
                    )
        yield from _gateways(at, subnet)


def _gateways(at: str, subnet: SubnetConfig) -> Iterator[Problem]:
    if subnet.gateway is not None and subnet.gateway not in subnet.cidr:
        yield f"{at}.gateway", f"{subnet.gateway} is outside {subnet.cidr}; name a router of this subnet"
    if subnet.gateway_v6 is None:
        return
    if subnet.cidr_v6 is None:
        yield f"{at}.gateway_v6", "the subnet has no IPv6; add cidr_v6, or leave gateway_v6 away"
    elif subnet.gateway_v6 not in subnet.cidr_v6 and not subnet.gateway_v6.is_link_local:
        yield (
            f"{at}.gateway_v6",
            f"{subnet.gateway_v6} is outside {subnet.cidr_v6}; name a router of this subnet, or its fe80:: address",
        )


def _sockets(config: Config) -> Iterator[Problem]:
    taken: dict[tuple[str, str, int], str] = {}
    for index, endpoint in enumerate(config.endpoints):
        for number, listen in enumerate(endpoint.listen):
            key = f"endpoint[{index}].listen[{number}]"
            owner = taken.setdefault((listen.transport, listen.host, listen.port), key)
            if owner != key:
                yield key, f"{listen} is already {owner}; choose another address or port"
    others = ("metrics.listen", config.metrics.listen), ("api.listen", config.api.listen)
    for key, other in (*others, ("portal.listen", config.portal.listen)):
        if other is None:
            continue
        owner = taken.setdefault(("tcp", other.host, other.port), key)
        if owner != key:
            yield key, f"{other} is already {owner}; choose another port"


# -- client networks ----------------------------------------------------------------------------------------


def _client_networks(config: Config) -> Iterator[Problem]:
    """Overlap would send answers for clients to somebody else, or traffic for a target network to clients."""
    others: list[tuple[str, IPNetwork]] = []
    for vpc in config.vpcs:
        others += [(f"vpc {vpc.id}", network) for network in vpc.cidr]
    for subnet in config.subnets:
        others += [(f"subnet {subnet.id}", network) for network in subnet.networks]
    for endpoint in config.endpoints:
        for route in endpoint.route:
            # A default route is the one prefix that is meant to lie over everything.
            if route.target != LOCAL and route.destination.prefixlen > 0:
                others.append((f"a route of endpoint {endpoint.name}", route.destination))
    for index, endpoint in enumerate(config.endpoints):
        for key, network in _client_cidrs(endpoint):
            # A subnet lies in its vpc, so one sentence each would say the same twice.
            clash = next(((what, other) for what, other in others if overlap(network, other)), None)
            if clash is not None:
                yield (
                    f"endpoint[{index}].{key}",
                    f"{network} overlaps {clash[1]} of {clash[0]}; choose a network used nowhere else",
                )
            for earlier in config.endpoints[:index]:
                for _, other in _client_cidrs(earlier):
                    if overlap(network, other):
                        yield (
                            f"endpoint[{index}].{key}",
                            f"{network} of endpoint {endpoint.name} overlaps {other} of endpoint {earlier.name}; "
                            "choose a network used nowhere else",
                        )


def _addresses(at: str, endpoint: EndpointConfig) -> Iterator[Problem]:
    v6 = endpoint.client_cidr_v6
    if v6 is not None:
        largest = 128 - (32 - endpoint.client_cidr.prefixlen)
        if v6.prefixlen > largest:
            yield (
                f"{at}.client_cidr_v6",
                f"{v6} has fewer addresses than {endpoint.client_cidr}; choose a prefix from /64 to /{largest}",
            )
        least = MIN_PATH_MTU_FOR_IPV6_AND_CBC if endpoint.legacy_cbc_ciphers else MIN_PATH_MTU_FOR_IPV6
        if endpoint.path_mtu < least:
            yield (
                f"{at}.path_mtu",
                f"{endpoint.path_mtu} leaves less than the 1280 bytes that IPv6 needs inside the tunnel; "
                f"choose at least {least}, or leave client_cidr_v6 away",
            )
    if endpoint.block_local == "always" and endpoint.split_tunnel:
        yield f"{at}.block_local", '"always" needs a full tunnel; set split_tunnel = false, or block_local = "auto"'


MIN_PATH_MTU_FOR_IPV6 = 1360
"""1280 (RFC 8200) and what ``policy.mtu`` keeps back for headers."""
MIN_PATH_MTU_FOR_IPV6_AND_CBC = 1436
"""The same with the longest HMAC, an IV and padding."""


# -- target networks, routes, rules -------------------------------------------------------------------------


def _associations(at: str, endpoint: EndpointConfig, config: Config) -> Iterator[Problem]:
    known = [subnet.id for subnet in config.subnets]
    seen: set[str] = set()
    for number, association in enumerate(endpoint.associate):
        key = f"{at}.associate[{number}]"
        if association.subnet not in known:
            yield key, f'"{association.subnet}" is no subnet; {suggest(association.subnet, known)}'
        if association.subnet in seen:
            yield key, f'"{association.subnet}" is associated twice; keep one'
        seen.add(association.subnet)


def _routes(at: str, endpoint: EndpointConfig, config: Config) -> Iterator[Problem]:
    associated = [association.subnet for association in endpoint.associate]
    declared = {subnet.id for subnet in config.subnets}
    seen: dict[IPNetwork, int] = {}
    for number, route in enumerate(endpoint.route):
        key = f"{at}.route[{number}]"
        if (first := seen.setdefault(route.destination, number)) != number:
            yield f"{key}.destination", f"{route.destination} is already {at}.route[{first}]; keep one"
        if route.target == LOCAL:
            cidrs = [network for _, network in _client_cidrs(endpoint)]
            if not any(covers(network, route.destination) for network in cidrs):
                wanted = " or ".join(map(str, cidrs))
                yield (
                    f"{key}.destination",
                    f'{route.destination} is not among the clients; "local" leads to {wanted}',
                )
        elif route.target not in associated:
            if route.target in declared:
                yield f"{key}.target", f'"{route.target}" is not associated; add it to {at}.associate'
            else:
                yield (
                    f"{key}.target",
                    f'"{route.target}" is no associated subnet; {suggest(route.target, [*associated, LOCAL])}',
                )


def _rules(at: str, endpoint: EndpointConfig) -> Iterator[Problem]:
    seen: dict[tuple[IPNetwork, str | None], int] = {}
    for number, rule in enumerate(endpoint.authorize):
        if (first := seen.setdefault((rule.network, rule.group), number)) != number:
            whom = "everybody" if rule.group is None else f'group "{rule.group}"'
            yield f"{at}.authorize[{number}]", f"{rule.network} for {whom} is already {at}.authorize[{first}]; keep one"


def _security_groups(at: str, endpoint: EndpointConfig, config: Config) -> Iterator[Problem]:
    known = {group.id: group for group in config.all_security_groups}
    declared = [*(group.id for group in config.security_groups), DEFAULT_GROUP]
    vpcs = {subnet.vpc for subnet in config.subnets for a in endpoint.associate if a.subnet == subnet.id}
    for number, name in enumerate(endpoint.security_groups):
        key = f"{at}.security_groups[{number}]"
        if name == DEFAULT_GROUP:
            continue
        if name not in known:
            yield key, f'"{name}" is no security_group; {suggest(name, declared)}'
        elif vpcs and known[name].vpc not in vpcs:
            yield key, f'"{name}" is of vpc {known[name].vpc}, which endpoint {endpoint.name} is not associated with'


def _directories(at: str, endpoint: EndpointConfig, config: Config) -> Iterator[Problem]:
    known = [LOCAL_DIRECTORY, *(directory.id for directory in config.directories)]
    for number, method in enumerate(endpoint.authentication):
        if method.directory is not None and method.directory not in known:
            key = f"{at}.authentication[{number}].directory"
            yield key, f'"{method.directory}" is no directory; {suggest(method.directory, known)}'
        judges = {radius.directory for radius in config.radius}
        if method.mfa.startswith("radius") and method.directory not in judges:
            yield (
                f"{at}.authentication[{number}].mfa",
                f'"{method.mfa}" without RADIUS servers; add [[radius]] with directory = "{method.directory}"',
            )


def _radius(config: Config) -> Iterator[Problem]:
    known = [LOCAL_DIRECTORY, *(directory.id for directory in config.directories)]
    for number, radius in enumerate(config.radius):
        if radius.directory not in known:
            yield (
                f"radius[{number}].directory",
                f'"{radius.directory}" is no directory; {suggest(radius.directory, known)}',
            )


def _saml_providers(at: str, endpoint: EndpointConfig, config: Config) -> Iterator[Problem]:
    known = [provider.id for provider in config.saml_providers]
    for number, method in enumerate(endpoint.authentication):
        for key in ("saml_provider", "portal_saml_provider"):
            wanted = getattr(method, key)
            if wanted is not None and wanted not in known and not PROVIDER_ARN.fullmatch(wanted):
                where = f"{at}.authentication[{number}].{key}"
                yield where, f'"{wanted}" is no saml_provider; {suggest(wanted, known)}'


def _self_service(at: str, endpoint: EndpointConfig, config: Config) -> Iterator[Problem]:
    if endpoint.self_service_portal and config.portal.listen is None:
        yield f"{at}.self_service_portal", "there is no portal; add [portal] with listen, url and a certificate"


def _handler(at: str, endpoint: EndpointConfig, config: Config) -> Iterator[Problem]:
    known = [handler.name for handler in config.handlers]
    name = endpoint.handler
    if name is not None and name not in known:
        yield f"{at}.connect_handler", f'"{name}" is no handler; {suggest(name, known)}'


def _resolvers(at: str, endpoint: EndpointConfig, config: Config) -> Iterator[Problem]:
    """A client sends its questions into the tunnel, so a resolver that no route leads to is one that never answers."""
    if not endpoint.dns_servers and endpoint.dns_domains:
        yield f"{at}.dns_domains", "domains without a resolver for them; add dns_servers"
    vpcs = {vpc.id: vpc for vpc in config.vpcs}
    subnets = {subnet.id: subnet for subnet in config.subnets}
    reachable = [network for _, network in _client_cidrs(endpoint)]
    reachable += [route.destination for route in endpoint.route]
    for association in endpoint.associate:
        subnet = subnets.get(association.subnet)
        if subnet is not None and subnet.vpc in vpcs:
            reachable += vpcs[subnet.vpc].cidr
    for number, server in enumerate(endpoint.dns_servers):
        if server in endpoint.dns_servers[:number]:
            yield f"{at}.dns_servers[{number}]", f"{server} is named twice; keep one"
        elif not any(server in network for network in reachable):
            yield (
                f"{at}.dns_servers[{number}]",
                f"no route of endpoint {endpoint.name} leads to {server}; choose one in a target network, or add "
                f'route = [{{ destination = "{server}/{server.max_prefixlen}", target = … }}]',
            )
