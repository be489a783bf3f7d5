"""The bad network is bad as asked, and equally bad each time."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from helpers.lab import ECHO_PORT, Lab, Weather, wait_until
from helpers.relay import Impairment


def test_same_seed_same_fate() -> None:
    weather = Weather(loss=0.1, duplicate=0.1, reorder=0.1, delay_ms=10, jitter_ms=5)

    def fates(seed: int) -> list[list[float]]:
        impairment = Impairment(weather, seed)
        return [impairment.delivery_times(100, now) for now in range(500)]

    assert fates(1) == fates(1)
    assert fates(1) != fates(2)


def test_shares_are_what_was_asked_for() -> None:
    impairment = Impairment(Weather(loss=0.02, duplicate=0.05, reorder=0.1, reorder_ms=7), 1)
    fates = [impairment.delivery_times(100, 0.0) for _ in range(20_000)]
    assert sum(not times for times in fates) / len(fates) == pytest.approx(0.02, abs=0.005)
    assert sum(len(times) == 2 for times in fates) / len(fates) == pytest.approx(0.05, abs=0.008)
    assert sum(times[:1] == [0.007] for times in fates) / len(fates) == pytest.approx(0.1, abs=0.01)


def test_rate_spreads_packets_and_a_full_queue_loses_them() -> None:
    impairment = Impairment(Weather(rate_mbit=1, queue_ms=20), 1)
    times = [impairment.delivery_times(1250, 0.0) for _ in range(5)]  # 10 ms each
    assert times == [[pytest.approx(0.01)], [pytest.approx(0.02)], [pytest.approx(0.03)], [], []]


@pytest.fixture
def echo() -> Iterator[Lab]:
    with Lab() as lab:
        lab.gateway.sysctl("net/ipv4/ip_forward", 1)
        lab.start_servers()
        yield lab


def test_datagrams_pass_a_relay_and_come_back_until_rebound(echo: Lab) -> None:
    with echo.target.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
        upstream.bind(("10.20.0.10", 9))
        upstream.settimeout(2)
        relay = echo.relay("10.20.0.10", 9, Weather())
        with echo.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.sendto(b"one", ("127.0.0.1", relay.port))
            data, first = upstream.recvfrom(100)
            upstream.sendto(data + b" back", first)
            assert client.recv(100) == b"one back"
            relay.rebind()

            def source_has_changed() -> bool:
                client.sendto(b"two", ("127.0.0.1", relay.port))
                return upstream.recvfrom(100)[1] != first

            assert wait_until(source_has_changed, what="a new upstream port")


def test_lossy_relay_loses_some_of_the_datagrams(echo: Lab) -> None:
    relay = echo.relay("10.20.0.10", ECHO_PORT, Weather(loss=0.3), seed=5)
    with echo.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.3)
        for number in range(200):
            client.sendto(b"%d" % number, ("127.0.0.1", relay.port))
        received = set()
        try:
            while True:
                received.add(client.recv(100))
        except TimeoutError:
            pass
    assert 60 < len(received) < 140  # 200 * 0.7 * 0.7 = 98
