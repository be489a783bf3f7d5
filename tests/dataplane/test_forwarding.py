"""Packets that may pass do so, unchanged, in both directions."""

import pytest
from helpers.packets import OVERHEAD, icmp_echo, tcp, udp
from helpers.plane import TARGET, TARGET_V6, Gateway, wait_for

from cvpnd.dataplane.api import FloatSeen


def test_an_allowed_ipv4_packet_reaches_the_target_network(gateway: Gateway) -> None:
    client = gateway.client()
    packet = icmp_echo(client.address, TARGET)
    client.send(packet)
    assert gateway.delivered() == packet


def test_an_allowed_ipv6_packet_reaches_the_target_network(gateway: Gateway) -> None:
    client = gateway.client()
    packet = icmp_echo(client.address_v6, TARGET_V6)
    client.send(packet)
    assert gateway.delivered() == packet


def test_a_packet_for_a_lease_reaches_its_client(gateway: Gateway) -> None:
    client = gateway.client(peer_id=0x123456)
    for packet in (icmp_echo(TARGET, client.address), icmp_echo(TARGET_V6, client.address_v6)):
        gateway.inject(packet)
        opened = client.receive()
        assert (opened.payload, opened.peer_id, opened.key_id) == (packet, 0x123456, 0)


def test_packet_ids_of_a_key_start_at_one_and_count_up(gateway: Gateway) -> None:
    client = gateway.client()
    for _ in range(5):
        gateway.inject(udp(TARGET, client.address))
    assert [client.receive().packet_id for _ in range(5)] == [1, 2, 3, 4, 5]


def test_each_client_gets_its_own_packets(gateway: Gateway) -> None:
    clients = [gateway.client(peer, (f"10.100.0.{peer}", f"fd64::{peer}")) for peer in range(2, 8)]
    for client in clients:
        gateway.inject(udp(TARGET, client.address, client.address.encode()))
        gateway.inject(udp(TARGET_V6, client.address_v6, client.address_v6.encode()))
    for client in clients:
        assert client.receive().payload.endswith(client.address.encode())
        assert client.receive().payload.endswith(client.address_v6.encode())
        assert client.received_nothing()


@pytest.mark.parametrize("cipher", ["AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305"])
def test_every_cipher_carries_packets_both_ways(gateway: Gateway, cipher: str) -> None:
    client = gateway.client(cipher=cipher)
    there, back = udp(client.address, TARGET, b"there"), udp(TARGET, client.address, b"back")
    client.send(there)
    assert gateway.delivered() == there
    gateway.inject(back)
    assert client.receive().payload == back


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1372, 1472, 2020])
def test_packets_of_every_size_pass_both_ways(gateway: Gateway, size: int) -> None:
    client = gateway.client()
    there, back = udp(client.address, TARGET, bytes(size)), udp(TARGET, client.address, bytes(size))
    client.send(there)
    assert gateway.delivered() == there
    gateway.inject(back)
    datagram, _ = client.receive_raw()
    assert len(datagram) == len(back) + OVERHEAD
    assert client.keys[0].open(datagram).payload == back


def test_what_follows_the_packet_by_its_own_length_is_cut_off(gateway: Gateway) -> None:
    client = gateway.client()
    for packet in (udp(client.address, TARGET, b"x"), udp(client.address_v6, TARGET_V6, b"x")):
        client.send(packet + b"padding")
        assert gateway.delivered() == packet
    back = udp(TARGET, client.address, b"x")
    gateway.inject(back + b"padding")
    assert client.receive().payload == back


def test_a_burst_keeps_its_order_both_ways(gateway: Gateway) -> None:
    client = gateway.client()
    burst = [number.to_bytes(4, "big") for number in range(300)]
    for mark in burst:
        client.send(tcp(client.address, TARGET, mark))
    assert [gateway.delivered()[-4:] for _ in burst] == burst
    for mark in burst:
        gateway.inject(tcp(TARGET, client.address, mark))
    assert [client.receive().payload[-4:] for _ in burst] == burst


def test_inner_packets_are_counted_for_the_peer(gateway: Gateway) -> None:
    client = gateway.client()
    there, back = udp(client.address, TARGET, bytes(100)), udp(TARGET, client.address, bytes(200))
    for _ in range(3):
        client.send(there)
        gateway.delivered()
    for _ in range(2):
        gateway.inject(back)
        client.receive()
    stats = gateway.plane.peer_stats(client.peer_id)
    assert (stats.packets_in, stats.bytes_in) == (3, 3 * len(there))
    assert (stats.packets_out, stats.bytes_out) == (2, 2 * len(back))
    assert 0 <= stats.idle_s < 5


def test_refused_packets_are_not_counted_for_the_peer(gateway: Gateway) -> None:
    client = gateway.client()
    with gateway.dropping(denied=1):
        client.send(udp(client.address, "192.0.2.1"))
    stats = gateway.plane.peer_stats(client.peer_id)
    assert (stats.packets_in, stats.bytes_in) == (0, 0)


def test_totals_count_what_went_where(gateway: Gateway) -> None:
    client = gateway.client()
    for _ in range(4):
        client.send(udp(client.address, TARGET))
        gateway.delivered()
    client.send(udp(client.address, "192.0.2.1"))
    for _ in range(3):
        gateway.inject(udp(TARGET, client.address))
        client.receive()

    def counted() -> bool:
        totals = gateway.plane.totals()
        ways = "link_packets_in", "tun_packets_in", "tun_packets_out", "link_packets_out"
        return [totals[way] for way in ways] == [5, 4, 3, 3]

    wait_for(counted, f"totals: {gateway.plane.totals()}")
    totals = gateway.plane.totals()
    assert 1 <= totals["receive_calls"] <= 5 + totals["wakeups"]
    assert 1 <= totals["send_calls"] <= 3


def test_a_dual_stack_listener_serves_ipv4_clients_by_their_ipv4_address(make_gateway) -> None:
    gateway = make_gateway(host="::")
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    client = gateway.client()
    client.use_host("127.0.0.1")
    client.send(udp(client.address, TARGET))
    seen = gateway.event(FloatSeen)
    assert (seen.source.host, seen.local) == ("127.0.0.1", "127.0.0.1")
    gateway.plane.set_remote(client.peer_id, 1, seen.source, seen.local)
    gateway.inject(udp(TARGET, client.address, b"back"))
    assert client.receive().payload.endswith(b"back")


def test_replies_leave_from_the_address_the_client_spoke_to(make_gateway) -> None:
    gateway = make_gateway(host="0.0.0.0")
    client = gateway.client(connect=False)
    client.use_host("127.0.0.1")
    for local in ("127.0.0.5", "127.0.0.9"):
        gateway.plane.set_remote(client.peer_id, 1, client.own_address(), local)
        gateway.inject(udp(TARGET, client.address))
        _, (source, _) = client.receive_raw()
        assert source == local


def test_ipv6_replies_leave_from_the_address_the_client_spoke_to(make_gateway) -> None:
    gateway = make_gateway(host="::")
    client = gateway.client(connect=False)
    client.use_host("::1")
    gateway.plane.set_remote(client.peer_id, 1, client.own_address(), "::1")
    gateway.inject(udp(TARGET, client.address, b"six"))
    assert client.receive().payload.endswith(b"six")
