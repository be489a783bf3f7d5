"""The options of a PUSH_REPLY (openvpn-wire.md section 16), all but those that the wire itself negotiates: cipher,
protocol flags, key derivation, peer id.

What clients do not know they log and ignore, so an option is only made to depend on the client where a wrong one would
do harm or the right one is chosen by what the client says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import NamedTuple
from urllib.parse import quote

from cvpnd.config import EndpointConfig, covers
from cvpnd.policy.model import ClientFacts, IPAddress, IPNetwork, Lease, ProtoBit, Route
from cvpnd.policy.mtu import client_mtu

MAX_OPTION_LENGTH = 255
"""OpenVPN 2.x cuts a longer one (OPTION_LINE_SIZE 256)."""

EXIT_NOTICES = 1
"""Needed by clients with control-channel EXIT too: they send it only if this option is set (sig.c)."""

# Fills the place of the IPv6 that the endpoint does not have, so that the client routes IPv6 into the tunnel, where
# ``block-ipv6`` refuses it with an ICMP error. The same for everybody: no such packet ever leaves a client.
# The prefix is random (RFC 4193).
BLACK_HOLE_V6 = ("fd6e:8f0a:51c3::2/64", "fd6e:8f0a:51c3::1")

_PRIVATE_V4 = tuple(IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"))
_SHARED_V4 = IPv4Network("100.64.0.0/10")
_PUSHABLE_PUNCTUATION_REFUSED = frozenset(",\"'\\")


def push_options(endpoint: EndpointConfig, routes: Sequence[Route], lease: Lease, facts: ClientFacts) -> list[str]:
    """Everything this client is told. ``routes`` are the endpoint's; IPv6 ones go only to who has an IPv6 address.

    Raises ValueError for an option that would not arrive as it is: the configuration should have refused its source."""
    kind = _Kind(
        lease.v6 is not None,
        facts.transport == "udp",
        _knows_dns(facts),
        facts.platform == "win",
        facts.platform == "linux",
        _blocks_local(endpoint, facts),
        client_mtu(endpoint.path_mtu, facts).pushed,
    )
    told = _told(_Configuration(endpoint, tuple(routes)), kind)
    options = ["topology subnet", told.route_gateway, f"ifconfig {lease.v4} {told.netmask}"]
    if lease.v6 is not None and endpoint.client_cidr_v6 is not None:
        options.append(f"ifconfig-ipv6 {lease.v6}/{endpoint.client_cidr_v6.prefixlen} {endpoint.gateway_v6}")
    options += told.redirection
    if (detour := _detour(told.pushed, facts)) is not None:
        options.append(f"route {detour} 255.255.255.255 net_gateway")
    options += told.rest
    return options


class _Kind(NamedTuple):
    """What of a client its options depend on, but for addresses."""

    has_v6: bool
    over_udp: bool
    knows_dns: bool
    is_windows: bool
    is_linux: bool
    blocks_local: bool
    mtu: int | None


class _Configuration:
    """Compared by identity: models and routes are replaced whole, and to hash them takes longer than what is saved."""

    __slots__ = ("endpoint", "routes")

    def __init__(self, endpoint: EndpointConfig, routes: tuple[Route, ...]) -> None:
        self.endpoint = endpoint
        self.routes = routes

    def __hash__(self) -> int:
        return hash((id(self.endpoint), id(self.routes)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Configuration) and self.endpoint is other.endpoint and self.routes is other.routes


class _Told(NamedTuple):
    """What all clients of a kind are told."""

    route_gateway: str
    netmask: str
    redirection: tuple[str, ...]
    pushed: tuple[IPNetwork, ...]
    """The networks in ``rest``."""
    rest: tuple[str, ...]


@lru_cache(maxsize=64)
def _told(configuration: _Configuration, kind: _Kind) -> _Told:
    endpoint, routes = configuration.endpoint, configuration.routes
    destinations = [route.destination for route in routes]
    full_v4 = not endpoint.split_tunnel or any(_is_default(d) for d in destinations if d.version == 4)
    full_v6 = not endpoint.split_tunnel or any(_is_default(d) for d in destinations if d.version == 6)
    redirection = tuple(_redirection(kind, full_v4, full_v6))
    pushed = _pushed_networks(endpoint, destinations, kind, full_v4, full_v6)
    rest = [
        *(f"route {n.network_address} {n.netmask}" if n.version == 4 else f"route-ipv6 {n}" for n in pushed),
        *_dns(endpoint, kind, full_v4),
        f"ping {endpoint.ping_s}",
        f"ping-restart {endpoint.ping_restart_s}",
        *_banner(endpoint.login_banner),
    ]
    if kind.over_udp:
        rest.append(f"explicit-exit-notify {EXIT_NOTICES}")
    if kind.mtu is not None:
        rest.append(f"tun-mtu {kind.mtu}")
    told = _Told(
        f"route-gateway {endpoint.gateway}", str(endpoint.client_cidr.netmask), redirection, tuple(pushed), tuple(rest)
    )
    for option in (told.route_gateway, *redirection, *rest):
        _check(option)
    return told


UPDATABLE = frozenset(
    {
        *("block-ipv6", "block-outside-dns", "dhcp-option", "dns", "ifconfig", "ifconfig-ipv6", "redirect-gateway"),
        *("route", "route-gateway", "route-ipv6", "route-metric", "topology", "tun-mtu"),
    }
)
"""What a live client can take differently, all that can be pushed of it (openvpn-wire.md 14.2)."""


def update_options(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """What a PUSH_UPDATE says to turn one set of options into another; empty if there is nothing to say.

    Each changed option comes with all of its values, which replace the former ones, and one that is gone as ``-name``.
    What a live client cannot change (its timers) is left for its next connection and is no reason to disturb it."""
    old, new = _by_name(before), _by_name(after)
    changes = [f"-{name}" for name in old if name not in new]
    return [*changes, *(option for name, options in new.items() if options != old.get(name) for option in options)]


def _by_name(options: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for option in options:
        name = option.partition(" ")[0]
        if name in UPDATABLE:
            found.setdefault(name, []).append(option)
    return found


# -- where the client's traffic goes ------------------------------------------------------------------------


def _redirection(kind: _Kind, full_v4: bool, full_v6: bool) -> Iterator[str]:
    """A default route in a split tunnel is pushed this way too: only so does the client keep its path to us."""
    if full_v4:
        flags = ["def1"]
        # With IPv6 from us it goes into the tunnel; without, it is caught and refused, and leaks nowhere.
        if full_v6 or not kind.has_v6:
            flags.append("ipv6")
        if kind.blocks_local:
            flags.append("block-local")
        yield f"redirect-gateway {' '.join(flags)}"
        if not kind.has_v6:
            address, gateway = BLACK_HOLE_V6
            yield f"ifconfig-ipv6 {address} {gateway}"
            yield "block-ipv6"
    elif full_v6 and kind.has_v6:
        yield "redirect-gateway ipv6 !ipv4"


def _blocks_local(endpoint: EndpointConfig, facts: ClientFacts) -> bool:
    """``auto`` (DESIGN.md section 3): a "local" network outside the private ranges may be a lure that pulls public
    addresses out of the tunnel. Without knowledge of the network nothing is blocked: printers are local too."""
    if endpoint.client_route_enforcement:
        return True
    if endpoint.block_local != "auto":
        return endpoint.block_local == "always"
    return isinstance(facts.lan, IPv4Network) and not _is_private(facts.lan)


@lru_cache(maxsize=64)
def _is_private(network: IPv4Network) -> bool:
    return any(network.subnet_of(private) for private in _PRIVATE_V4)


def _pushed_networks(
    endpoint: EndpointConfig, destinations: Iterable[IPNetwork], kind: _Kind, full_v4: bool, full_v6: bool
) -> list[IPNetwork]:
    """What the redirection and the client's own subnet do not cover already."""
    wanted = [destination for destination in destinations if not _is_default(destination)]
    wanted += [ip_network(server) for server in endpoint.dns_servers]
    own: list[IPNetwork] = [endpoint.client_cidr, *([endpoint.client_cidr_v6] if endpoint.client_cidr_v6 else [])]
    pushed: list[IPNetwork] = []
    for destination in sorted(wanted, key=lambda network: (network.version, network.prefixlen, network)):
        needless = full_v4 if destination.version == 4 else full_v6 or not kind.has_v6
        if not needless and not any(covers(other, destination) for other in (*own, *pushed)):
            pushed.append(destination)
    return pushed


def _detour(pushed: Iterable[IPNetwork], facts: ClientFacts) -> IPAddress | None:
    """Where our address is in a network that goes through the tunnel, a client would send its encrypted packets into
    the tunnel they make up: that address needs a route of its own past it. Not where the system keeps the client's own
    socket out of the tunnel; and a client out there that reached a private address was translated on its way, does not
    send there, and may want it in the tunnel. ``net_gateway`` exists for IPv4 only."""
    server, client = facts.server_address, facts.address
    if not isinstance(server, IPv4Address) or not any(server in network for network in pushed):
        return None
    if facts.platform in ("android", "ios"):
        return None
    ours_inside, theirs_inside = (any(each in n for n in (*_PRIVATE_V4, _SHARED_V4)) for each in (server, client))
    return None if ours_inside and not theirs_inside else server


def _is_default(network: IPNetwork) -> bool:
    return network.prefixlen == 0


# -- names --------------------------------------------------------------------------------------------------


def _knows_dns(facts: ClientFacts) -> bool:
    """``dns`` options, and applies them itself. On Linux 2.6 leaves that to scripts as its forerunners do, and hands
    them an IPv6 resolver under a name that few of them know."""
    if facts.proto & ProtoBit.DNS_OPTION_V2:
        return True
    return facts.proto & ProtoBit.DNS_OPTION != 0 and facts.platform != "linux"


def _dns(endpoint: EndpointConfig, kind: _Kind, full: bool) -> Iterator[str]:
    servers = [server for server in endpoint.dns_servers if server.version == 4 or kind.has_v6]
    if not servers:
        return
    if kind.knows_dns:
        yield from _dns_new(servers, endpoint.dns_domains, full)
    elif kind.is_linux:
        yield from _dns_for_scripts(servers, endpoint.dns_domains, full)
    else:
        yield from _dns_classic(servers, endpoint.dns_domains)
    # Only with a resolver inside: else the client could ask nobody at all.
    if full and kind.is_windows:
        yield "block-outside-dns"


def _dns_new(servers: Sequence[IPAddress], domains: Sequence[str], full: bool) -> Iterator[str]:
    """Only what the 2.6 form and the final one have in common. Repeated lines add to each other.

    In a split tunnel our resolver is asked about our domains only, where the client can keep questions apart."""
    yield from _packed("dns search-domains", domains)
    yield from _packed("dns server 0 address", map(str, servers))
    if not full:
        yield from _packed("dns server 0 resolve-domains", domains)


def _dns_classic(servers: Sequence[IPAddress], domains: Sequence[str]) -> Iterator[str]:
    for server in servers:
        yield f"dhcp-option {'DNS' if server.version == 4 else 'DNS6'} {server}"
    for number, domain in enumerate(domains):
        yield f"dhcp-option {'DOMAIN-SEARCH' if number else 'DOMAIN'} {domain}"


def _dns_for_scripts(servers: Sequence[IPAddress], domains: Sequence[str], full: bool) -> Iterator[str]:
    """What all of them understand: NetworkManager knows no DNS6, Debian's one for resolvconf no DOMAIN-SEARCH either,
    and both several DOMAIN. DOMAIN-ROUTE is for systemd-resolved, which else asks our resolvers and the client's own
    at once about what is below none of the domains: everything is asked here, or no more, for which it takes some
    name that is asked here and not searched."""
    yield from (f"dhcp-option DNS {server}" for server in servers)
    yield from (f"dhcp-option DOMAIN {domain}" for domain in domains)
    yield f"dhcp-option DOMAIN-ROUTE {'.' if full or not domains else servers[0].reverse_pointer}"


def _banner(text: str) -> Iterator[str]:
    """As graphical clients take messages (openvpn-wire.md section 16), which decode them like URLs: so there is neither
    a comma, which would end the option, nor a space, of which an option has few."""
    for line in text.splitlines():
        start = 0
        encoded = [quote(character, safe=_BANNER_SAFE) for character in line]
        room = MAX_OPTION_LENGTH - len("echo msg-n ")
        for end in range(1, len(encoded) + 1):
            if end == len(encoded) or sum(map(len, encoded[start : end + 1])) > room:
                yield f"echo {'msg' if end == len(encoded) else 'msg-n'} {''.join(encoded[start:end])}"
                start = end
        if not line:
            yield "echo msg"
    if text:
        yield f"echo msg-window {BANNER_TITLE}"


BANNER_TITLE = "Welcome"
_BANNER_SAFE = ".:;!?()-_/@=+*&<>[]{}|~^"


def _packed(head: str, words: Iterable[str]) -> Iterator[str]:
    """``head`` and as many words as fit, as often as needed."""
    line = head
    for word in words:
        if line != head and len(line) + 1 + len(word) > MAX_OPTION_LENGTH:
            yield line
            line = head
        line += f" {word}"
    if line != head:
        yield line


def _check(option: str) -> None:
    """The last line of defence: a comma or quote would make other options of the rest of a text."""
    if len(option) > MAX_OPTION_LENGTH:
        raise ValueError(f"an option of {len(option)} bytes would be cut at {MAX_OPTION_LENGTH}: {option[:60]}…")
    if not (option.isascii() and option.isprintable()) or _PUSHABLE_PUNCTUATION_REFUSED & set(option):
        raise ValueError(f"an option has characters that cannot be pushed: {option!r}")
