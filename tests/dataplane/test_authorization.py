"""The longest prefix that contains the destination decides, and its groups must meet the peer's: by real packets."""

import json
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from helpers.packets import ICMP, ICMPV6, ip, udp
from helpers.plane import EVERYBODY, TARGET, Client, Gateway
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvpnd.dataplane.api import IPAddress, IPNetwork
from cvpnd.policy.compile import GroupNumbers, compile_rules, group_bits
from cvpnd.policy.decide import decide
from cvpnd.policy.model import Rule

SCENARIOS = json.loads((Path(__file__).parents[1] / "data" / "aws-authorization-scenarios.json").read_text())


def reached(gateway: Gateway, attempts: list[tuple[Client, str]]) -> list[bool]:
    """Which of these peers' packets reached the TUN, all sent in one go."""
    for number, (client, destination) in enumerate(attempts):
        source = client.address_v6 if ":" in destination else client.address
        client.send(udp(source, destination, number.to_bytes(4, "big")))
    through = {int.from_bytes(packet[-4:], "big") for packet in gateway.barrier()}
    return [number in through for number in range(len(attempts))]


def test_without_rules_nothing_is_reached(gateway: Gateway) -> None:
    gateway.set_rules(1, {})
    client = gateway.client()
    with gateway.dropping(denied=3):
        assert reached(gateway, [(client, to) for to in (TARGET, "fd20::7", "0.0.0.0")]) == [False] * 3
    stats = gateway.plane.peer_stats(client.peer_id)
    assert (stats.packets_denied, stats.packets_in) == (3, 0)


def test_a_new_endpoint_allows_nothing(make_gateway) -> None:
    gateway = make_gateway()
    gateway.plane.set_rules(1, [])
    client = gateway.client()
    with gateway.dropping(denied=1):
        client.send(udp(client.address, TARGET))


@pytest.mark.parametrize("default", ["0.0.0.0/0", "::/0"])
def test_the_default_prefix_is_simply_the_shortest(gateway: Gateway, default: str) -> None:
    gateway.set_rules(1, {default: EVERYBODY, "10.20.0.0/16": 0b10, "fd20::/32": 0b10})
    client = gateway.client()
    other_v4, other_v6 = "198.51.100.1", "2001:db8::1"
    v4 = default == "0.0.0.0/0"
    attempts = [(client, to) for to in (other_v4, other_v6, TARGET, "fd20::7")]
    assert reached(gateway, attempts) == [v4, not v4, False, False]


def test_a_prefix_of_one_family_says_nothing_about_the_other(gateway: Gateway) -> None:
    gateway.set_rules(1, {"a14::/16": EVERYBODY, "10.20.0.0/16": 0b10})  # 0x0a14 is 10.20
    client = gateway.client()
    assert reached(gateway, [(client, TARGET), (client, "a14::1")]) == [False, True]


def test_a_longer_prefix_takes_a_destination_away(gateway: Gateway) -> None:
    gateway.set_rules(1, {"10.20.0.0/16": EVERYBODY, "10.20.3.0/24": 0b10, "10.20.3.7/32": EVERYBODY})
    client = gateway.client()
    attempts = [(client, to) for to in ("10.20.2.255", "10.20.3.0", "10.20.3.6", "10.20.3.7", "10.20.3.8", "10.20.4.0")]
    assert reached(gateway, attempts) == [True, False, False, True, False, True]


@pytest.mark.parametrize("length", range(33))
def test_ipv4_prefixes_of_every_length(gateway: Gateway, length: int) -> None:
    network = IPv4Network((ip_address("172.21.203.77"), length), strict=False)
    gateway.set_rules(1, {str(network): EVERYBODY})
    client = gateway.client()
    edges = [int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1]
    inside = [str(ip_address(edge)) for edge in edges if 0 <= edge < 2**32]
    assert reached(gateway, [(client, to) for to in inside]) == [ip_address(to) in network for to in inside]


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 31, 32, 33, 48, 63, 64, 65, 96, 127, 128])
def test_ipv6_prefixes_of_many_lengths(gateway: Gateway, length: int) -> None:
    network = IPv6Network((ip_address("2001:db8:5555:aaaa:9999:1234:cccc:3333"), length), strict=False)
    gateway.set_rules(1, {str(network): EVERYBODY})
    client = gateway.client()
    edges = [int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1]
    inside = [str(ip_address(edge)) for edge in edges if 2**32 <= edge < 2**128]
    assert reached(gateway, [(client, to) for to in inside]) == [ip_address(to) in network for to in inside]


@pytest.mark.parametrize(
    ("permitted", "groups", "meets"),
    [
        (0b1, 0b1, True),
        (0b110, 0b1001, False),
        (0b110, 0b101, True),
        (0, 0b1, False),
        (0b1, 0, False),
        (1 << 63, 1 << 63, True),
        (1 << 64, 1 << 64 | 1, True),
        (1 << 64, 1, False),
        (1, 1 << 64, False),
        (1 << 1000, 1 << 1000, True),
        (1 << 1000, (1 << 1000) - 1, False),
        ((1 << 1000) - 1, 1 << 1000, False),
    ],
)
def test_bit_sets_of_any_width(gateway: Gateway, permitted: int, groups: int, meets: bool) -> None:
    gateway.set_rules(1, {"10.20.0.0/16": permitted})
    client = gateway.client(groups=groups)
    assert reached(gateway, [(client, TARGET)]) == [meets]


def test_new_rules_are_felt_by_the_next_packet(gateway: Gateway) -> None:
    client = gateway.client()
    for _ in range(20):
        gateway.set_rules(1, {})
        with gateway.dropping(denied=1):
            client.send(udp(client.address, TARGET))
        gateway.set_rules(1, {"10.20.0.0/16": EVERYBODY})
        client.send(udp(client.address, TARGET))
        assert gateway.delivered()


def test_rules_change_under_load_without_a_wrong_decision(gateway: Gateway) -> None:
    client = gateway.client()
    always, never = udp(client.address, "10.20.0.1", b"always"), udp(client.address, "10.21.0.1", b"never!")
    for turn in range(50):
        for packet in (always, never) * 5:
            client.send(packet)
        gateway.set_rules(1, {"10.0.0.0/8" if turn % 2 else "10.16.0.0/12": 0b10, "10.20.0.0/16": EVERYBODY})
    assert gateway.barrier() == [always] * 250
    assert gateway.drops() == {"denied": 250}


def test_new_groups_are_felt_by_the_next_packet(gateway: Gateway) -> None:
    gateway.set_rules(1, {"10.20.0.0/16": 0b100})
    client, other = gateway.client(groups=0b1), gateway.client(2, ("10.100.0.3",), groups=0b1)
    for groups, through in ((0b101, True), (0b1, False), (0b111, True), (0, False)):
        gateway.plane.set_groups(client.peer_id, groups)
        assert reached(gateway, [(client, TARGET), (other, TARGET)]) == [through, False]


def test_rules_belong_to_one_endpoint(gateway: Gateway) -> None:
    gateway.add_endpoint(2)
    gateway.add_listener(2, 2)
    gateway.set_rules(2, {"192.0.2.0/24": EVERYBODY})
    here, there = gateway.client(), gateway.client(2, endpoint=2, listener=2)
    with gateway.dropping(denied=2):
        here.send(udp(here.address, "192.0.2.1"))
        there.send(udp(there.address, TARGET))
    there.send(udp(there.address, "192.0.2.1"))
    assert gateway.delivered(endpoint=2)


def test_rules_that_cannot_be_are_refused_and_the_old_ones_stay(gateway: Gateway) -> None:
    client = gateway.client()
    for endpoint, rules, error in (
        (1, [(ip_network("10.0.0.0/8"), 1), (ip_network("10.0.0.0/8"), 2)], ValueError),
        (1, [(ip_network("10.0.0.0/8"), -1)], ValueError),
        (7, [], KeyError),
    ):
        with pytest.raises(error):
            gateway.plane.set_rules(endpoint, rules)
    with pytest.raises(ValueError):
        gateway.plane.set_groups(client.peer_id, -1)
    with pytest.raises(KeyError):
        gateway.plane.set_groups(77, 1)
    assert reached(gateway, [(client, TARGET), (client, "10.21.0.1")]) == [True, False]


def test_changed_prefixes_are_judged_anew_and_all_others_as_before(gateway: Gateway) -> None:
    gateway.set_rules(1, {"10.0.0.0/8": 0b10, "10.20.0.0/16": 0b10, "10.21.0.0/16": 0b100, "fd20::/32": 0b10})
    client, other = gateway.client(groups=0b10), gateway.client(2, ("10.100.0.3",), groups=0b100)
    attempts = [(one, to) for one in (client, other) for to in (TARGET, "10.21.0.1", "10.22.0.1")]
    assert reached(gateway, attempts) == [True, False, True, False, True, False]
    for changes, expected in (
        ({"10.20.0.0/16": 0b110}, [True, False, True, True, True, False]),
        ({"10.20.0.0/16": 0b100, "10.22.0.0/24": 0b100}, [False, False, False, True, True, True]),
        ({"10.20.0.0/16": None, "10.22.0.0/24": None}, [True, False, True, False, True, False]),
        ({"10.23.0.0/16": None}, [True, False, True, False, True, False]),
        ({"10.0.0.0/8": None, "10.21.0.0/16": 0}, [False] * 6),
        ({}, [False] * 6),
        ({"0.0.0.0/0": 0b100}, [False, False, False, True, False, True]),
    ):
        gateway.plane.change_rules(1, {ip_network(network): groups for network, groups in changes.items()})
        assert reached(gateway, attempts) == expected, changes
    for endpoint, changes, error in (
        (1, {"10.20.0.0/16": 0b10, "10.21.0.0/16": -1}, ValueError),
        (7, {"10.20.0.0/16": 0b10}, KeyError),
    ):
        with pytest.raises(error):
            gateway.plane.change_rules(endpoint, {ip_network(network): groups for network, groups in changes.items()})
    gateway.plane.change_rules(1, {ip_network("10.99.0.0/16"): 0b10})
    assert reached(gateway, attempts) == [False, False, False, True, False, True]


def test_ten_thousand_rules(gateway: Gateway) -> None:
    rules = {f"10.{high}.{low}.0/24": 1 << (high * 40 + low) % 50 for high in range(250) for low in range(40)}
    gateway.set_rules(1, rules)
    client = gateway.client(groups=1 << 7)
    destinations = [f"10.{high}.{low}.9" for high in (0, 17, 120, 249) for low in range(45)]
    expected = [bool(rules.get(f"{to.rpartition('.')[0]}.0/24", 0) & 1 << 7) for to in destinations]
    assert reached(gateway, [(client, to) for to in destinations]) == expected
    assert any(expected)


# -- and the other way


def came(gateway: Gateway, client: Client, sources: list[str]) -> list[bool]:
    """From which of these the client gets packets, all sent in one go."""
    for number, source in enumerate(sources):
        to = client.address_v6 if ":" in source else client.address
        gateway.inject(udp(source, to, number.to_bytes(4, "big")))
    gateway.inject(udp(ALWAYS, client.address, b"last"))
    through = set()
    while (payload := client.receive().payload)[-4:] != b"last":
        through.add(int.from_bytes(payload[-4:], "big"))
    return [number in through for number in range(len(sources))]


ALWAYS = "10.29.0.1"
"""In a rule of every test here."""


def test_nothing_comes_from_where_no_rule_lets_the_client_write_to(gateway: Gateway) -> None:
    sources = ["10.20.0.1", "10.20.9.1", "10.21.0.1", "fd20::7", "fd20:0:9::7", "fd21::7", "::ffff:10.20.0.1"]
    rules = {
        ALWAYS: EVERYBODY,
        "10.20.0.0/16": EVERYBODY,
        "10.20.9.0/24": 0b10,
        "fd20::/32": 0b1,
        "fd20:0:9::/48": 0b10,
    }
    gateway.set_rules(1, rules)
    client = gateway.client()
    with gateway.dropping(denied_source=5):
        assert came(gateway, client, sources) == [True, False, False, True, False, False, False]
    gateway.plane.set_groups(client.peer_id, 0b11)
    assert came(gateway, client, sources) == [True, True, False, True, True, False, False]
    gateway.plane.change_rules(1, {ip_network("10.20.0.0/16"): None, ip_network("fd20::/32"): None})
    assert came(gateway, client, sources) == [False, True, False, False, True, False, False]
    gateway.set_rules(1, {ALWAYS: EVERYBODY, "10.0.0.0/8": 0b10, "::/0": 0b10})
    assert came(gateway, client, sources) == [True] * 7
    gateway.plane.set_groups(client.peer_id, 0b1)
    assert came(gateway, client, sources) == [False] * 7
    assert gateway.plane.peer_stats(client.peer_id).packets_denied == 0


def icmp_error(source: str, to: str, kind: int, quoted: bytes) -> bytes:
    message = bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + quoted
    return ip(source, to, ICMP if ip_address(source).version == 4 else ICMPV6, message)


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_an_icmp_error_of_any_router_stands_and_falls_with_the_packet_that_it_quotes(
    gateway: Gateway, v6: bool
) -> None:
    gateway.set_rules(1, {ALWAYS: EVERYBODY, "10.20.0.0/16": EVERYBODY, "fd20::/32": EVERYBODY})
    client = gateway.client()
    router, own, allowed_to, not_to, other = (
        ("2001:db8::1", client.address_v6, "fd20::7", "fd21::7", "fd64::9")
        if v6
        else ("192.0.2.1", client.address, TARGET, "10.21.0.1", "10.100.0.9")
    )
    errors = (1, 2, 3, 4) if v6 else (3, 11, 12)
    none = (0, 5, 100, 127, 128, 137) if v6 else (0, 4, 5, 8, 13)
    quoted = udp(own, allowed_to, b"a question")
    last = udp(ALWAYS, client.address, b"last")
    for kind in errors:
        for error in (icmp_error(router, own, kind, quoted), icmp_error(allowed_to, own, kind, quoted)):
            gateway.inject(error)
            assert client.receive().payload == error
    header = 40 if v6 else 20
    shortest = icmp_error(router, own, errors[0], quoted[:header])
    gateway.inject(shortest)
    assert client.receive().payload == shortest
    refused = [
        icmp_error(router, own, errors[0], udp(own, not_to, b"what was never let through")),
        icmp_error(allowed_to, own, errors[0], udp(own, not_to, b"as a disguise")),
        icmp_error(router, own, errors[0], udp(other, allowed_to, b"somebody else's")),
        icmp_error(router, own, errors[0], udp(allowed_to, own, b"the wrong way round")),
        icmp_error(router, own, errors[0], quoted[: header - 1]),
        icmp_error(router, own, errors[0], udp(*(("10.100.0.2", TARGET) if v6 else ("fd64::2", "fd20::7")), bytes(40))),
        *(icmp_error(router, own, kind, quoted) for kind in none),
        udp(router, own, bytes(8) + quoted),
    ]
    if not v6:
        later = bytearray(icmp_error(router, own, errors[0], quoted))
        later[6:8] = (0x2000 | 7).to_bytes(2, "big")  # a fragment but the first: what is there is no ICMP header
        refused.append(bytes(later))
    with gateway.dropping(denied_source=len(refused)):
        for packet in refused:
            gateway.inject(packet)
        gateway.inject(last)
        assert client.receive().payload == last


# -- the AWS guide's tables


@pytest.mark.parametrize("scenario", SCENARIOS["scenarios"], ids=lambda scenario: scenario["name"])
def test_aws_scenarios(gateway: Gateway, scenario: dict[str, Any]) -> None:
    rules = [Rule(ip_network(rule["cidr"]), rule["group"], rule["description"], "file") for rule in scenario["rules"]]
    numbers = GroupNumbers()
    gateway.set_rules(1, {str(network): groups for network, groups in compile_rules(rules, numbers)})
    clients: dict[tuple[str, ...], Client] = {}
    attempts = []
    for decision in scenario["decisions"]:
        groups = tuple(decision["groups"])
        if groups not in clients:
            number = len(clients) + 1
            clients[groups] = gateway.client(number, (f"10.100.0.{number}",), groups=group_bits(groups, numbers))
        attempts.append((clients[groups], decision["destination"]))
    expected = [decision["allow"] for decision in scenario["decisions"]]
    with gateway.dropping(denied=expected.count(False)):
        assert reached(gateway, attempts) == expected
    for decision in scenario["decisions"]:
        assert decide(rules, decision["groups"], ip_address(decision["destination"])).allowed is decision["allow"]


# -- anything


def oracle(rules: dict[IPNetwork, int], groups: int, destination: IPAddress) -> bool:
    matching = [network for network in rules if destination in network]
    return bool(matching) and rules[max(matching, key=lambda network: network.prefixlen)] & groups != 0


# Few distinct bits, so that prefixes nest and destinations fall into them.
NUMBERS_V4 = st.builds(
    lambda parts: sum(part << 8 * at for at, part in enumerate(parts)),
    st.tuples(*[st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])] * 3, st.sampled_from([10, 11, 172])),
)
NUMBERS_V6 = st.builds(
    lambda high, low: high << 120 | low << 56 | low, st.sampled_from([0x20, 0x21, 0xFD]), st.integers(0, 255)
)
LENGTHS_V4, LENGTHS_V6 = st.integers(0, 32), st.integers(0, 128)
NETWORKS: st.SearchStrategy[IPNetwork] = st.one_of(
    st.builds(lambda number, length: IPv4Network((number, length), strict=False), NUMBERS_V4, LENGTHS_V4),
    st.builds(lambda number, length: IPv6Network((number, length), strict=False), NUMBERS_V6, LENGTHS_V6),
)
DESTINATIONS: st.SearchStrategy[IPAddress] = st.one_of(
    NUMBERS_V4.map(ip_address), NUMBERS_V6.map(ip_address), st.integers(0, 2**32 - 1).map(ip_address)
)
GROUPS = st.integers(0, 15).map(lambda bits: bits << 62)  # across a word border


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rules=st.dictionaries(NETWORKS, GROUPS, max_size=12),
    groups=GROUPS,
    destinations=st.lists(DESTINATIONS, min_size=1, max_size=24),
)
def test_any_rules_decide_as_a_plain_search_does(
    gateway: Gateway, rules: dict[IPNetwork, int], groups: int, destinations: list[IPAddress]
) -> None:
    client = next((known for known in gateway.clients if known.peer_id == 1), None) or gateway.client()
    gateway.plane.set_groups(client.peer_id, groups)
    gateway.set_rules(1, {str(network): permitted for network, permitted in rules.items()})
    expected = [oracle(rules, groups, destination) for destination in destinations]
    assert reached(gateway, [(client, str(destination)) for destination in destinations]) == expected
