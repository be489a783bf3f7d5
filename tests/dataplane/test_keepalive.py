"""Pings sent and absorbed, silence noticed, goodbyes heard (openvpn-wire.md 11.7). Intervals are whole seconds, and
idle peers are looked after once a second, so these tests take that long."""

import time

import pytest
from helpers.packets import OCC, OCC_EXIT, OCC_REQUEST, PING, udp
from helpers.plane import TARGET, Gateway

from cvpnd.dataplane.api import PeerExit, PeerTimeout


def test_a_ping_goes_out_after_silence_and_is_no_traffic(gateway: Gateway) -> None:
    client = gateway.client(ping_interval_s=1)
    silent = gateway.client(2, ("10.100.0.3",))
    started = time.monotonic()
    opened = client.receive()
    assert opened.payload == PING
    assert 0.9 < time.monotonic() - started < 2.5
    assert client.receive().packet_id == opened.packet_id + 1  # and again
    assert silent.received_nothing()
    assert gateway.plane.peer_stats(client.peer_id).packets_out == 0
    assert gateway.drops() == {}


def test_a_peer_that_is_not_ready_is_not_pinged(gateway: Gateway) -> None:
    gateway.client(2, ("10.100.0.3",), ping_interval_s=1, key=False)
    gateway.client(3, ("10.100.0.4",), ping_interval_s=1, connect=False)
    gateway.client(ping_interval_s=1).receive()
    assert gateway.drops() == {}


def test_a_peer_that_gets_packets_is_not_pinged(gateway: Gateway) -> None:
    busy = gateway.client(2, ("10.100.0.3",), ping_interval_s=1)
    idle = gateway.client(ping_interval_s=1)
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        gateway.inject(udp(TARGET, busy.address))
        assert busy.receive().payload != PING
        time.sleep(0.02)
    assert idle.receive().payload == PING


def test_silence_is_told_once(gateway: Gateway) -> None:
    client = gateway.client(timeout_s=1)
    gateway.client(2, ("10.100.0.3",), timeout_s=60)
    gateway.client(3, ("10.100.0.4",))
    # What does not authenticate, and what is sealed for the peer, are no signs of life.
    stranger = gateway.client(4, ("10.100.0.5",))
    started = time.monotonic()
    while time.monotonic() - started < 0.8:
        client.send_raw(client.seal(PING)[:-1] + b"\x00")
        gateway.inject(udp(TARGET, client.address))
        time.sleep(0.05)
    assert gateway.event(PeerTimeout) == PeerTimeout(client.peer_id)
    assert 0.9 < time.monotonic() - started < 2.5
    stranger.send(PING)
    with pytest.raises(AssertionError, match="no PeerTimeout"):
        gateway.event(PeerTimeout, within_s=1.2)


def test_a_ping_keeps_the_peer_alive_and_goes_no_further(gateway: Gateway) -> None:
    alive, dead = gateway.client(timeout_s=1), gateway.client(2, ("10.100.0.3",), timeout_s=1)
    until = time.monotonic() + 2.2
    while time.monotonic() < until:
        alive.send(PING)
        time.sleep(0.05)
    assert gateway.barrier() == []
    assert gateway.plane.peer_stats(alive.peer_id).packets_in == 0
    assert gateway.plane.peer_stats(alive.peer_id).idle_s < 1
    assert gateway.events() == [PeerTimeout(dead.peer_id)]
    assert gateway.drops() == {}


def test_an_exit_is_told_once_and_goes_no_further(gateway: Gateway) -> None:
    client = gateway.client()
    for _ in range(3):
        client.send(OCC_EXIT)
    assert gateway.barrier() == []
    assert gateway.event(PeerExit) == PeerExit(client.peer_id)
    assert gateway.events() == []
    assert gateway.drops() == {}


@pytest.mark.parametrize(
    "notice", [OCC_REQUEST, OCC + b"\x01V4,dev-type tun\x00", OCC + b"\x02\x05\xdc", OCC + b"\xff"]
)
def test_other_notices_are_absorbed(gateway: Gateway, notice: bytes) -> None:
    client = gateway.client()
    client.send(notice)
    assert gateway.barrier() == []
    assert gateway.events() == []
    assert gateway.drops() == {}
    assert client.received_nothing()
