"""What clients are told, by what they are and where they are."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any
from urllib.parse import unquote

import pytest

from cvpnd.config import EndpointConfig
from cvpnd.policy import push
from cvpnd.policy.model import ClientFacts, Lease, Route
from cvpnd.policy.push import MAX_OPTION_LENGTH, push_options, update_options

OPENVPN_24 = ClientFacts(
    proto=2, iv_mtu=None, own_mtu=1500, platform="linux", transport="udp", address=ip_address("198.51.100.7")
)
OPENVPN_26 = replace(OPENVPN_24, proto=990, iv_mtu=1600)
OPENVPN_27 = replace(OPENVPN_24, proto=8094 & ~(1 << 6), iv_mtu=1600)
CLIENTS = [OPENVPN_24, OPENVPN_26, OPENVPN_27]

V4_LEASE = Lease(ip_address("10.100.0.7"))
LEASE = Lease(ip_address("10.100.0.7"), ip_address("fd00:100::7"))

BLOCKED_V6 = ["ifconfig-ipv6 fd6e:8f0a:51c3::2/64 fd6e:8f0a:51c3::1", "block-ipv6"]


def endpoint(**keys: Any) -> EndpointConfig:
    return EndpointConfig.model_validate(
        {
            "name": "staff",
            "client_cidr": "10.100.0.0/22",
            "listen": ("udp://0.0.0.0:1194",),
            "server_certificate": {"certificate": "c", "private_key": "k"},
            "authentication": ({"type": "certificate-authentication", "client_ca": "ca"},),
            **keys,
        }
    )


def routes(*destinations: str) -> list[Route]:
    return [Route(ip_network(destination), "subnet-a", "associate") for destination in destinations]


def pushed(
    settings: EndpointConfig, *destinations: str, facts: ClientFacts = OPENVPN_26, lease: Lease | None = None
) -> list[str]:
    if lease is None:
        lease = V4_LEASE if settings.client_cidr_v6 is None else LEASE
    return push_options(settings, routes(*destinations), lease, facts)


def of(options: list[str], *names: str) -> list[str]:
    return [option for option in options if option.split()[0] in names]


def test_a_split_tunnel_client_of_2_6_gets_exactly_this() -> None:
    assert pushed(endpoint(split_tunnel=True), "10.20.0.0/16") == [
        "topology subnet",
        "route-gateway 10.100.0.1",
        "ifconfig 10.100.0.7 255.255.252.0",
        "route 10.20.0.0 255.255.0.0",
        "ping 10",
        "ping-restart 60",
        "explicit-exit-notify 1",
        "tun-mtu 1420",
    ]


def test_a_full_tunnel_catches_ipv6_that_it_cannot_carry() -> None:
    options = pushed(endpoint(), "10.20.0.0/16")
    assert of(options, "redirect-gateway") == ["redirect-gateway def1 ipv6"]
    assert of(options, "ifconfig-ipv6", "block-ipv6") == BLOCKED_V6
    assert not of(options, "route", "route-ipv6"), "the redirection covers them"


def test_a_full_tunnel_with_ipv6_carries_it() -> None:
    options = pushed(endpoint(client_cidr_v6="fd00:100::/64"), "10.20.0.0/16", "fd00:20::/48")
    assert of(options, "redirect-gateway") == ["redirect-gateway def1 ipv6"]
    assert of(options, "ifconfig-ipv6", "block-ipv6") == ["ifconfig-ipv6 fd00:100::7/64 fd00:100::1"]
    assert not of(options, "route", "route-ipv6")


def test_a_split_tunnel_leaves_the_clients_own_ipv6_alone() -> None:
    options = pushed(endpoint(split_tunnel=True), "10.20.0.0/16", "fd00:20::/48")
    assert not of(options, "redirect-gateway", "ifconfig-ipv6", "block-ipv6", "route-ipv6")


def test_ipv6_routes_go_to_clients_with_ipv6() -> None:
    options = pushed(endpoint(split_tunnel=True, client_cidr_v6="fd00:100::/64"), "10.20.0.0/16", "fd00:20::/48")
    assert of(options, "route", "route-ipv6") == ["route 10.20.0.0 255.255.0.0", "route-ipv6 fd00:20::/48"]
    assert of(options, "ifconfig-ipv6") == ["ifconfig-ipv6 fd00:100::7/64 fd00:100::1"]


@pytest.mark.parametrize(
    ("destinations", "expected"),
    [
        (["10.20.0.0/16", "10.20.1.0/24"], ["route 10.20.0.0 255.255.0.0"]),
        (["10.20.1.0/24", "10.20.0.0/16"], ["route 10.20.0.0 255.255.0.0"]),
        (["10.20.0.0/17", "10.20.128.0/17"], ["route 10.20.0.0 255.255.128.0", "route 10.20.128.0 255.255.128.0"]),
        (["10.100.0.0/22"], []),
        (["192.0.2.1/32"], ["route 192.0.2.1 255.255.255.255"]),
    ],
)
def test_routes_that_others_cover_are_not_pushed(destinations: list[str], expected: list[str]) -> None:
    assert of(pushed(endpoint(split_tunnel=True), *destinations), "route") == expected


def test_a_default_route_in_a_split_tunnel_keeps_the_clients_path_to_the_gateway() -> None:
    options = pushed(endpoint(split_tunnel=True), "10.20.0.0/16", "0.0.0.0/0")
    assert of(options, "redirect-gateway", "route") == ["redirect-gateway def1 ipv6"]
    with_v6 = endpoint(split_tunnel=True, client_cidr_v6="fd00:100::/64")
    options = pushed(with_v6, "10.20.0.0/16", "::/0", "fd00:20::/48")
    assert of(options, "redirect-gateway", "route", "route-ipv6") == [
        "redirect-gateway ipv6 !ipv4",
        "route 10.20.0.0 255.255.0.0",
    ]


@pytest.mark.parametrize(
    ("server", "client", "detour"),
    [
        ("192.168.1.10", "192.168.1.20", ["route 192.168.1.10 255.255.255.255 net_gateway"]),
        ("192.168.1.10", "10.1.2.3", ["route 192.168.1.10 255.255.255.255 net_gateway"]),
        ("192.168.1.10", "198.51.100.7", []),
        ("203.0.113.1", "192.168.1.20", []),
        (None, "192.168.1.20", []),
        ("2001:db8::1", "2001:db8::2", []),
    ],
)
def test_a_client_keeps_its_path_to_a_gateway_inside_a_target_network(
    server: str | None, client: str, detour: list[str]
) -> None:
    facts = replace(
        OPENVPN_26, address=ip_address(client), server_address=None if server is None else ip_address(server)
    )
    options = pushed(endpoint(split_tunnel=True), "192.168.1.0/24", facts=facts)
    assert of(options, "route") == [*detour, "route 192.168.1.0 255.255.255.0"]


@pytest.mark.parametrize(
    ("server", "client", "platform", "is_told"),
    [
        ("203.0.113.1", "198.51.100.7", "linux", True),  # a rented server: its one interface is the target network too
        ("203.0.113.1", "198.51.100.7", "android", False),  # whose own socket is never in the tunnel
        ("203.0.113.1", "198.51.100.7", "ios", False),
        ("100.64.1.5", "198.51.100.7", "win", False),  # by way of a router that forwards the port
        ("100.64.1.5", "10.1.2.3", "win", True),
        ("10.1.2.3", "100.64.1.5", "mac", True),
    ],
)
def test_a_client_elsewhere_keeps_its_path_to_a_gateway_in_a_network_that_is_pushed(
    server: str, client: str, platform: str, is_told: bool
) -> None:
    facts = replace(OPENVPN_26, address=ip_address(client), server_address=ip_address(server), platform=platform)
    network = ip_network(f"{server}/24", strict=False)
    options = pushed(endpoint(split_tunnel=True), str(network), facts=facts)
    detour = [f"route {server} 255.255.255.255 net_gateway"] * is_told
    assert of(options, "route") == [*detour, f"route {network[0]} 255.255.255.0"]


@pytest.mark.parametrize(
    ("setting", "lan", "blocked"),
    [
        ("auto", None, False),
        ("auto", "192.168.1.0/24", False),
        ("auto", "10.0.0.0/8", False),
        ("auto", "172.31.0.0/16", False),
        ("auto", "169.254.0.0/16", False),
        ("auto", "203.0.113.0/24", True),
        ("auto", "172.32.0.0/16", True),
        ("auto", "192.0.0.0/8", True),
        ("auto", "2001:db8::/64", False),
        ("always", None, True),
        ("always", "192.168.1.0/24", True),
        ("never", "203.0.113.0/24", False),
    ],
)
def test_the_local_network_is_blocked_where_it_has_public_addresses(
    setting: str, lan: str | None, blocked: bool
) -> None:
    facts = replace(OPENVPN_26, lan=None if lan is None else ip_network(lan))
    (redirection,) = of(pushed(endpoint(block_local=setting), facts=facts), "redirect-gateway")
    assert redirection == "redirect-gateway def1 ipv6" + (" block-local" if blocked else "")


DNS = {"dns_servers": ("10.20.0.2", "fd00:20::2"), "dns_domains": ("corp.example.com", "example.com")}


@pytest.mark.parametrize("platform", ["win", "android", ""])
def test_dns_in_the_old_form_for_those_who_do_not_know_the_new(platform: str) -> None:
    settings = endpoint(split_tunnel=True, client_cidr_v6="fd00:100::/64", **DNS)
    options = pushed(settings, "10.20.0.0/16", "fd00:20::/48", facts=replace(OPENVPN_24, platform=platform))
    assert of(options, "dhcp-option", "dns") == [
        "dhcp-option DNS 10.20.0.2",
        "dhcp-option DNS6 fd00:20::2",
        "dhcp-option DOMAIN corp.example.com",
        "dhcp-option DOMAIN-SEARCH example.com",
    ]


@pytest.mark.parametrize("facts", [OPENVPN_24, OPENVPN_26])
@pytest.mark.parametrize(
    ("keys", "everything"),
    [
        ({"split_tunnel": True}, False),
        ({"split_tunnel": False}, True),
        ({"split_tunnel": True, "dns_domains": ()}, True),
    ],
)
def test_dns_on_linux_as_scripts_understand_it(facts: ClientFacts, keys: dict[str, Any], everything: bool) -> None:
    settings = endpoint(client_cidr_v6="fd00:100::/64", **{**DNS, **keys})
    options = of(pushed(settings, "10.20.0.0/16", "fd00:20::/48", facts=facts), "dhcp-option", "dns")
    assert options[:2] == ["dhcp-option DNS 10.20.0.2", "dhcp-option DNS fd00:20::2"]
    searched = (
        [] if "dns_domains" in keys else ["dhcp-option DOMAIN corp.example.com", "dhcp-option DOMAIN example.com"]
    )
    assert options[2:-1] == searched
    assert options[-1] == f"dhcp-option DOMAIN-ROUTE {'.' if everything else '2.0.20.10.in-addr.arpa'}"


@pytest.mark.parametrize("facts", [replace(OPENVPN_26, platform="win"), OPENVPN_27])
def test_dns_in_the_new_form_asks_about_our_domains_only_in_a_split_tunnel(facts: ClientFacts) -> None:
    settings = endpoint(split_tunnel=True, client_cidr_v6="fd00:100::/64", **DNS)
    options = pushed(settings, "10.20.0.0/16", "fd00:20::/48", facts=facts)
    assert of(options, "dhcp-option", "dns") == [
        "dns search-domains corp.example.com example.com",
        "dns server 0 address 10.20.0.2 fd00:20::2",
        "dns server 0 resolve-domains corp.example.com example.com",
    ]


@pytest.mark.parametrize(("longer", "lines"), [(0, 1), (1, 2)])
def test_as_many_domains_share_a_line_as_fit_and_not_one_letter_more(longer: int, lines: int) -> None:
    rest = MAX_OPTION_LENGTH - len("dns search-domains  ")
    first = f"{'a' * 63}.{'a' * 53}"
    second = f"{'b' * 63}.{'b' * (rest - len(first) - 64 + longer)}"
    settings = endpoint(**{**DNS, "dns_domains": [first, second]})
    searched = of(pushed(settings, "10.20.0.0/16", facts=OPENVPN_27), "dns")[:-1]
    assert len(searched) == lines and len(searched[0]) == (MAX_OPTION_LENGTH if lines == 1 else 19 + len(first))
    assert [name for line in searched for name in line.split()[2:]] == [first, second]


def test_dns_in_the_new_form_answers_everything_in_a_full_tunnel() -> None:
    options = pushed(endpoint(**DNS), "10.20.0.0/16", facts=OPENVPN_27)
    assert of(options, "dhcp-option", "dns") == [
        "dns search-domains corp.example.com example.com",
        "dns server 0 address 10.20.0.2",
    ], "and an IPv6 resolver is no use without IPv6"


@pytest.mark.parametrize(
    ("keys", "platform", "blocked"),
    [
        (DNS, "win", True),
        (DNS, "linux", False),
        ({**DNS, "split_tunnel": True}, "win", False),
        ({}, "win", False),
    ],
)
def test_windows_asks_no_other_resolvers_in_a_full_tunnel_that_has_some(
    keys: dict[str, Any], platform: str, blocked: bool
) -> None:
    options = pushed(endpoint(**keys), "10.20.0.0/16", facts=replace(OPENVPN_26, platform=platform))
    assert ("block-outside-dns" in options) is blocked


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        (("10.20.0.2",), []),
        (("10.100.0.1",), []),
        (("10.30.0.2", "10.20.0.2"), ["route 10.30.0.2 255.255.255.255"]),
        (("fd00:20::2",), ["route-ipv6 fd00:20::2/128"]),
    ],
)
def test_a_resolver_outside_the_routes_gets_one_of_its_own(servers: tuple[str, ...], expected: list[str]) -> None:
    settings = endpoint(split_tunnel=True, client_cidr_v6="fd00:100::/64", dns_servers=servers)
    options = pushed(settings, "10.20.0.0/16")
    assert of(options, "route", "route-ipv6") == ["route 10.20.0.0 255.255.0.0", *expected]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (OPENVPN_24, ["explicit-exit-notify 1"]),
        (OPENVPN_26, ["explicit-exit-notify 1", "tun-mtu 1420"]),
        (replace(OPENVPN_26, transport="tcp"), ["tun-mtu 1420"]),
        (replace(OPENVPN_26, iv_mtu=1300), ["explicit-exit-notify 1", "tun-mtu 1300"]),
    ],
)
def test_exit_notice_over_udp_and_mtu_to_those_who_understand_it(facts: ClientFacts, expected: list[str]) -> None:
    assert of(pushed(endpoint(), facts=facts), "explicit-exit-notify", "tun-mtu") == expected


def test_timers_are_the_endpoints() -> None:
    assert of(pushed(endpoint(ping_s=3, ping_restart_s=20)), "ping", "ping-restart") == ["ping 3", "ping-restart 20"]


@pytest.mark.parametrize("facts", CLIENTS)
def test_long_lists_are_cut_into_options_that_fit(facts: ClientFacts) -> None:
    settings = endpoint(
        client_cidr_v6="fd00:100::/64",
        dns_servers=tuple(f"2001:db8:aaaa:bbbb:cccc:dddd:eeee:{n:04x}" for n in range(0x1000, 0x1008)),
        dns_domains=tuple(f"{letter * 60}.{letter * 60}.{letter * 60}.example.com" for letter in "abcdefghij"),
    )
    options = pushed(settings, facts=facts)
    assert max(map(len, options)) <= MAX_OPTION_LENGTH
    text = " ".join(options)
    assert all(str(server) in text for server in settings.dns_servers)
    assert all(domain in text for domain in settings.dns_domains)


@pytest.mark.parametrize("domain", ["a,push-me", 'a"b', "a'b", "a\\b", "a\nb", "a\x00b", "ä.example", "x" * 250])
def test_what_cannot_be_pushed_is_refused_even_if_the_configuration_let_it_through(domain: str) -> None:
    settings = endpoint(dns_servers=("10.20.0.2",)).model_copy(update={"dns_domains": (domain,)})
    with pytest.raises(ValueError, match="an option"):
        pushed(settings)


# -- changes under a live session ---------------------------------------------------------------------------


def test_update_brings_all_values_of_what_changed_and_nothing_else() -> None:
    before = pushed(endpoint(split_tunnel=True), "10.20.0.0/16", "10.40.0.0/16")
    after = pushed(endpoint(split_tunnel=True), "10.20.0.0/16", "10.30.0.0/16")
    assert update_options(before, after) == ["route 10.20.0.0 255.255.0.0", "route 10.30.0.0 255.255.0.0"]
    assert update_options(before, before) == []


def test_update_takes_back_what_is_gone() -> None:
    full = pushed(endpoint(dns_servers=["10.20.0.10"]), "10.20.0.0/16", facts=OPENVPN_27)
    split = pushed(endpoint(split_tunnel=True), "10.20.0.0/16", facts=OPENVPN_27)
    changes = update_options(full, split)
    assert set(changes) == {
        *("-redirect-gateway", "-ifconfig-ipv6", "-block-ipv6", "-dns", "route 10.20.0.0 255.255.0.0"),
    }
    assert update_options(split, pushed(endpoint(split_tunnel=True), facts=OPENVPN_27)) == ["-route"]


def test_timers_are_no_reason_to_disturb_a_live_session() -> None:
    assert update_options(pushed(endpoint()), pushed(endpoint(ping_s=5, ping_restart_s=90))) == []


def test_a_banner_arrives_whole_whatever_is_in_it() -> None:
    text = 'Welcome, "all"!\n\nÜber 100%: \\ see https://example.com/a?b=c ' + "so long " * 150
    options = of(pushed(endpoint(login_banner=text)), "echo")
    assert all(len(option) <= MAX_OPTION_LENGTH and option.count(" ") <= 2 for option in options)
    lines, shown = [""], None
    for option in options:  # as a graphical client puts it together
        _, what, *rest = unquote(option).split(" ", 2)
        if what == "msg-window":
            shown = "\n".join(lines[:-1])
            break
        lines[-1] += rest[0] if rest else ""
        if what == "msg":
            lines.append("")
    assert shown == text.strip()
    assert not of(pushed(endpoint()), "echo")


def test_nobody_is_told_what_was_meant_for_another() -> None:
    """Options are remembered for clients of a kind: all kinds in turn, and again, get what each gets alone."""
    v6 = {"client_cidr_v6": "fd00:100::/64", "dns_servers": ["10.20.0.53", "fd00:20::53"], "dns_domains": ["a.example"]}
    endpoints = [endpoint(split_tunnel=split, **more) for split in (True, False) for more in ({}, v6)]
    clients = [
        (Lease(ip_address(f"10.100.0.{number}"), lease_v6), replace(OPENVPN_26, **facts))
        for number, (lease_v6, facts) in enumerate(
            product(
                (None, ip_address("fd00:100::7")),
                (
                    {},
                    {"platform": "win"},
                    {"proto": 0},
                    {"transport": "tcp"},
                    {"iv_mtu": None},
                    {"iv_mtu": 1300},
                    {"lan": ip_network("203.0.113.0/24")},
                    {"address": ip_address("10.20.0.9"), "server_address": ip_address("10.20.0.1")},
                ),
            ),
            start=2,
        )
    ]
    told_alone = []
    there = tuple(routes("10.20.0.0/16", "fd00:20::/64"))
    for settings, (lease, facts) in product(endpoints, clients):
        push._told.cache_clear()
        told_alone.append(push_options(settings, there, lease, facts))
    for _ in range(2):
        for (settings, (lease, facts)), alone in zip(product(endpoints, clients), told_alone, strict=True):
            assert push_options(settings, there, lease, facts) == alone
    assert len({tuple(options) for options in told_alone}) == len(told_alone)
    assert push._told.cache_info().hits > 0
