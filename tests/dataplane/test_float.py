"""A client that moves: only an authentic packet says so, and only the control side decides (openvpn-wire.md 2.4)."""

import time

from helpers.packets import PING, udp
from helpers.plane import TARGET, Gateway, readable, wait_for

from cvpnd.dataplane.api import Drop, FloatSeen


def test_an_authentic_packet_from_a_new_address_is_told(gateway: Gateway) -> None:
    client = gateway.client()
    client.move()
    packet = udp(client.address, TARGET)
    client.send(packet)
    assert gateway.event(FloatSeen) == FloatSeen(client.peer_id, 1, client.own_address(), "127.0.0.1")
    assert gateway.delivered() == packet


def test_nothing_moves_until_the_control_side_says_so(gateway: Gateway) -> None:
    client = gateway.client()
    home = client.socket.dup()
    client.move()
    client.send(PING)
    seen = gateway.event(FloatSeen)
    gateway.inject(udp(TARGET, client.address, b"first"))
    assert readable(home)
    assert client.keys[0].open(home.recv(65536)).payload.endswith(b"first")
    gateway.plane.set_remote(client.peer_id, seen.listener, seen.source, seen.local)
    gateway.inject(udp(TARGET, client.address, b"second"))
    assert client.receive().payload.endswith(b"second")
    home.close()


def test_no_float_is_told_from_where_the_peer_is(gateway: Gateway) -> None:
    client = gateway.client()
    for _ in range(3):
        client.send(PING)
    gateway.barrier()
    assert gateway.events() == []


def test_after_set_remote_the_new_address_is_home(gateway: Gateway) -> None:
    client = gateway.client()
    client.move()
    client.send(PING)
    seen = gateway.event(FloatSeen)
    gateway.plane.set_remote(client.peer_id, seen.listener, seen.source, seen.local)
    for _ in range(3):
        client.send(udp(client.address, TARGET))
        assert gateway.delivered()
    assert gateway.events() == []
    assert gateway.drops() == {}


def test_a_forged_or_replayed_packet_from_elsewhere_is_told_to_nobody(gateway: Gateway) -> None:
    client = gateway.client()
    packet = client.seal(udp(client.address, TARGET))
    client.send_raw(packet)
    gateway.delivered()
    client.move()
    with gateway.dropping(replayed=1, auth_failed=1):
        client.send_raw(packet)
        client.send_raw(packet[:-1] + bytes([packet[-1] ^ 1]))
    assert gateway.events() == []


def test_floats_are_told_at_most_five_times_a_second(gateway: Gateway) -> None:
    client, other = gateway.client(), gateway.client(2, ("10.100.0.3",))
    for moving in (client, other):
        moving.move()
        moving.send(PING)
        assert gateway.event(FloatSeen).peer_id == moving.peer_id  # each peer by itself
    started = time.monotonic()
    before = gateway.drops()[Drop.FLOAT_REFUSED]
    for _ in range(50):
        client.move()
        client.send(udp(client.address, TARGET))
    assert len(gateway.barrier()) == 50, "what is authentic is delivered, whether or not the peer may move"
    told = len(gateway.events())
    assert told <= 5 * (time.monotonic() - started) + 1
    wait_for(lambda: gateway.drops()[Drop.FLOAT_REFUSED] - before == 50 - told)
    time.sleep(0.21)
    packet = udp(client.address, TARGET)
    client.send(packet)
    assert gateway.event(FloatSeen).source == client.own_address()
    assert gateway.delivered() == packet


def test_an_authentic_packet_on_another_listener_is_a_float(gateway: Gateway) -> None:
    gateway.add_listener(2, 1)
    client = gateway.client()
    client.socket.sendto(client.seal(PING), gateway.ports[2][0])
    seen = gateway.event(FloatSeen)
    assert (seen.listener, seen.source) == (2, client.own_address())
    gateway.plane.set_remote(client.peer_id, 2, seen.source, seen.local)
    gateway.inject(udp(TARGET, client.address))
    _, source = client.receive_raw()
    assert source == gateway.ports[2][0]


def test_a_peer_without_a_remote_is_told_where_it_is(gateway: Gateway) -> None:
    client = gateway.client(connect=False)
    client.send(PING)
    assert gateway.event(FloatSeen).source == client.own_address()
