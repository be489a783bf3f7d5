"""Does a packet cost more when more is installed? Peers and rules come through the door of the data plane, as sessions
and authorizations would have them compiled, without handshakes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from ipaddress import ip_network

from benchmarks.experiment import CVPND, DIRECTIONS, Asked, Curves, Experiment, Metric, Sample, Settings
from benchmarks.plane import EVERYBODY, INSIDE, plane
from cvpnd.dataplane.api import IPNetwork

SMALL, LARGE = 64, 1400
TALKERS = 256
RANDOM_SEED = 4


def peers_row(direction: str, talkers: int) -> str:
    return f"{SMALL} bytes {direction}, {'one peer' if talkers == 1 else f'up to {talkers} peers in turn'}"


def in_order(points: tuple[int, ...], number: int) -> tuple[int, ...]:
    """Upwards and downwards in turn, so that a machine that slows down makes no slope."""
    return points if number % 2 == 0 else points[::-1]


def measure_peers(settings: Settings, number: int) -> Iterator[Sample]:
    for count in in_order(settings.peers, number):
        with plane(peers=count) as measured:
            measured.warm_up()
            for direction in DIRECTIONS:
                for talkers in (1, TALKERS):
                    cost = measured.ns_per_packet(direction, SMALL, settings.packets, min(talkers, count))
                    yield Sample(peers_row(direction, talkers), CVPND, {"ns": cost}, count)


def some_rules(count: int) -> list[tuple[IPNetwork, int]]:
    """Networks of 8 to 32 bits all over IPv4, many of them inside each other, for all sorts of groups; one decides."""
    chance = random.Random(RANDOM_SEED)
    rules: dict[IPNetwork, int] = {ip_network(f"{INSIDE}/32"): EVERYBODY}
    while len(rules) < count:
        length = chance.choice((8, 12, 16, 20, 24, 24, 24, 28, 32))
        rules.setdefault(
            ip_network((chance.getrandbits(32) >> (32 - length) << (32 - length), length)), 1 << chance.randrange(64)
        )
    return list(rules.items())


def rules_row(size: int) -> str:
    return f"{size} bytes up"


def measure_rules(settings: Settings, number: int) -> Iterator[Sample]:
    for count in in_order(settings.rules, number):
        with plane(rules=some_rules(count)) as measured:
            measured.warm_up()
            for size in (SMALL, LARGE):
                cost = measured.ns_per_packet("up", size, settings.packets)
                yield Sample(rules_row(size), CVPND, {"ns": cost}, count)


def _estimate_s(settings: Settings, points: int, rows: int) -> float:
    return points * (0.5 + rows * settings.packets * 15e-6)


METRICS = (Metric("ns", "CPU ns a packet", 0),)

EXPERIMENTS = (
    Experiment(
        "peers",
        "Installed peers, data plane alone",
        METRICS,
        measure_peers,
        lambda settings: _estimate_s(settings, len(settings.peers), 4) + sum(settings.peers) * 60e-6,
        {(peers_row(direction, 1), "ns"): Asked(ratio=1.15) for direction in DIRECTIONS},
        Curves("ns", "installed peers"),
    ),
    Experiment(
        "rules",
        "Authorization rules, data plane alone",
        METRICS,
        measure_rules,
        lambda settings: _estimate_s(settings, len(settings.rules), 2) + sum(settings.rules) * 20e-6,
        {(rules_row(size), "ns"): Asked(ratio=1.15) for size in (SMALL, LARGE)},
        Curves("ns", "rules"),
    ),
)
