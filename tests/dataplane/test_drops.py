"""Every reason for which a packet goes no further, with its counter. Nothing else happens to such a packet."""

import socket
import time
from collections import Counter

import pytest
from helpers.packets import LINK_PACKET_MAX, OCC, OCC_EXIT, OVERHEAD, PING, data_keys, header, seal, udp
from helpers.plane import TARGET, TARGET_V6, Gateway

from cvpnd.dataplane.api import Drop, FloatSeen, PeerExit, StrayControl

CONTROL = b"\x20" + bytes(20)
"""P_CONTROL_V1."""


@pytest.mark.parametrize("length", [0, *range(2, OVERHEAD + 1)])
def test_a_datagram_shorter_than_its_headers_is_truncated(gateway: Gateway, length: int) -> None:
    client = gateway.client()
    with gateway.dropping(truncated=1):
        client.send_raw(client.seal(udp(client.address, TARGET))[:length])
    assert gateway.barrier() == []


def test_one_byte_of_ciphertext_is_long_enough(gateway: Gateway) -> None:
    client = gateway.client()
    with gateway.dropping(not_ip=1):
        client.send(b"\x45")


@pytest.mark.parametrize("longer", [1, 1000, 40000])
def test_a_datagram_longer_than_any_packet_is_truncated(gateway: Gateway, longer: int) -> None:
    client = gateway.client()
    packet = udp(client.address, TARGET, bytes(LINK_PACKET_MAX - OVERHEAD - 28 + longer))
    with gateway.dropping(truncated=1):
        client.send(packet)
    assert gateway.barrier() == []


@pytest.mark.parametrize("opcode", [0, 1, 2, 6, 8, 12, 31])
def test_what_no_client_sends_is_a_bad_opcode(gateway: Gateway, opcode: int) -> None:
    client = gateway.client()
    with gateway.dropping(bad_opcode=1):
        client.send_raw(bytes([opcode << 3]) + client.seal(udp(client.address, TARGET))[1:])
    assert gateway.barrier() == []
    assert gateway.events() == []


@pytest.mark.parametrize("peer_id", [0, 2, 0x010001, 0xFFFFFE, 0xFFFFFF])
def test_a_peer_id_that_nobody_has_is_an_unknown_peer(gateway: Gateway, peer_id: int) -> None:
    client = gateway.client(peer_id=1)
    with gateway.dropping(unknown_peer=1):
        client.send_raw(header(peer_id) + client.seal(udp(client.address, TARGET))[4:])
    assert gateway.barrier() == []


def test_a_peer_of_another_endpoint_is_unknown_here(gateway: Gateway) -> None:
    gateway.add_endpoint(2)
    gateway.add_listener(2, 2)
    client = gateway.client()
    packet = client.seal(udp(client.address, TARGET))
    with gateway.dropping(unknown_peer=1):
        client.socket.sendto(packet, gateway.ports[2][0])
    client.send_raw(packet)
    assert gateway.delivered() == udp(client.address, TARGET)


def test_a_removed_peer_is_unknown(gateway: Gateway) -> None:
    client = gateway.client()
    gateway.plane.remove_peer(client.peer_id)
    with gateway.dropping(unknown_peer=1):
        client.send(udp(client.address, TARGET))


def test_a_key_id_without_a_key_is_no_key(gateway: Gateway) -> None:
    client = gateway.client()
    packet = client.seal(udp(client.address, TARGET))
    for key_id in range(1, 8):
        with gateway.dropping(no_key=1):
            client.send_raw(header(client.peer_id, key_id) + packet[4:])
    assert gateway.barrier() == []


def test_a_packet_before_any_key_is_no_key(gateway: Gateway) -> None:
    client = gateway.client(key=False)
    keys = data_keys("not installed")
    with gateway.dropping(no_key=1):
        client.send_raw(seal(keys.cipher, keys.open_key, keys.open_iv, header(1), 1, udp(client.address, TARGET)))


@pytest.mark.parametrize("at", [3, 4, 7, 8, 23, 24, -1], ids=lambda at: f"byte {at}")
def test_a_changed_byte_fails_authentication(gateway: Gateway, at: int) -> None:
    client, other = gateway.client(), gateway.client(0, ("10.100.0.3",))
    packet = bytearray(client.seal(udp(client.address, TARGET)))
    packet[at] ^= 1  # in the peer id: the other peer's
    with gateway.dropping(auth_failed=1):
        client.send_raw(bytes(packet))
    assert gateway.barrier() == []
    other.close()


def test_a_packet_sealed_with_the_sending_direction_fails_authentication(gateway: Gateway) -> None:
    client = gateway.client()
    gateway.inject(udp(TARGET, client.address))
    reflected, _ = client.receive_raw()
    with gateway.dropping(auth_failed=1):
        client.send_raw(reflected)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\x00", id="one byte"),
        pytest.param(PING[:15], id="part of a ping"),
        pytest.param(PING + b"\x00", id="more than a ping"),
        pytest.param(OCC, id="notice without a type"),
        pytest.param(b"\x55" + udp("10.100.0.2", TARGET)[1:], id="IP version 5"),
        pytest.param(b"\x44" + udp("10.100.0.2", TARGET)[1:], id="IPv4 header of 16 bytes"),
        pytest.param(b"\x4f" + udp("10.100.0.2", TARGET)[1:], id="IPv4 header longer than the packet"),
        pytest.param(udp("10.100.0.2", TARGET)[:19], id="IPv4 header cut"),
        pytest.param(udp("10.100.0.2", TARGET, b"12345678")[:-1], id="IPv4 packet cut"),
        pytest.param(b"\x45\x00\x00\x13" + udp("10.100.0.2", TARGET)[4:], id="IPv4 shorter than its header"),
        pytest.param(udp("fd64::2", TARGET_V6)[:39], id="IPv6 header cut"),
        pytest.param(udp("fd64::2", TARGET_V6, b"12345678")[:-1], id="IPv6 packet cut"),
    ],
)
def test_an_authentic_payload_that_is_no_ip_packet_is_not_ip(gateway: Gateway, payload: bytes) -> None:
    client = gateway.client()
    with gateway.dropping(not_ip=1):
        client.send(payload)
    assert gateway.barrier() == []


@pytest.mark.parametrize("source", ["10.100.0.3", "10.20.0.1", "0.0.0.0", "127.0.0.1", "255.255.255.255"])
def test_an_ipv4_source_that_is_not_the_lease_is_a_bad_source(gateway: Gateway, source: str) -> None:
    client, _ = gateway.client(), gateway.client(2, ("10.100.0.3",))
    with gateway.dropping(bad_source=1):
        client.send(udp(source, TARGET))
    assert gateway.barrier() == []


@pytest.mark.parametrize("source", ["fd64::3", "fe80::1", "::", "::1", "::ffff:10.100.0.2", "::10.100.0.2"])
def test_an_ipv6_source_that_is_not_the_lease_is_a_bad_source(gateway: Gateway, source: str) -> None:
    client = gateway.client()
    with gateway.dropping(bad_source=1):
        client.send(udp(source, TARGET_V6))
    assert gateway.barrier() == []


def test_a_destination_without_a_rule_is_denied(gateway: Gateway) -> None:
    client = gateway.client()
    with gateway.dropping(denied=4):
        for source, destination in ((client.address, "10.21.0.1"), (client.address, "8.8.8.8")):
            client.send(udp(source, destination))
        client.send(udp(client.address_v6, "fd21::1"))
        client.send(udp(client.address_v6, "::ffff:10.20.0.7"))
    assert gateway.barrier() == []


def test_a_packet_for_nobodys_lease_has_no_route(gateway: Gateway) -> None:
    client = gateway.client()
    with gateway.dropping(no_route=3):
        gateway.inject(udp(TARGET, "10.100.0.9"))
        gateway.inject(udp(TARGET_V6, "fd64::9"))
        gateway.inject(udp(TARGET_V6, f"::ffff:{client.address}"))
    gateway.inject(udp(TARGET, client.address, b"mine"))
    assert client.receive().packet_id == 1


def test_a_lease_of_another_endpoint_has_no_route_here(gateway: Gateway) -> None:
    gateway.add_endpoint(2)
    client = gateway.client()
    with gateway.dropping(no_route=1):
        gateway.inject(udp(TARGET, client.address), endpoint=2)


@pytest.mark.parametrize("packet", [b"\x45", bytes(40), udp(TARGET, "10.100.0.2", b"12345678")[:-1]])
def test_from_the_tun_only_ip_goes_on(gateway: Gateway, packet: bytes) -> None:
    client = gateway.client()
    with gateway.dropping(not_ip=1):
        gateway.inject(packet)
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().packet_id == 1


def test_a_peer_without_a_key_is_not_ready(gateway: Gateway) -> None:
    client = gateway.client(key=False)
    with gateway.dropping(not_ready=1):
        gateway.inject(udp(TARGET, client.address))


def test_a_peer_without_a_remote_is_not_ready(gateway: Gateway) -> None:
    client = gateway.client(connect=False)
    with gateway.dropping(not_ready=1):
        gateway.inject(udp(TARGET, client.address))


def test_a_tun_that_takes_no_more_is_tun_full(gateway: Gateway) -> None:
    client = gateway.client()
    gateway.tuns[1][0].close()
    with gateway.dropping(tun_full=3):
        for _ in range(3):
            client.send(udp(client.address, TARGET))


def test_a_datagram_that_the_kernel_refuses_is_link_full(make_gateway) -> None:
    gateway = make_gateway(host="127.0.0.1")
    client = gateway.client()
    # A loopback socket cannot send to the world: EINVAL, for this peer alone.
    gateway.plane.set_remote(client.peer_id, 1, client.own_address()._replace(host="192.0.2.1"), "")
    with gateway.dropping(link_full=2):
        gateway.inject(udp(TARGET, client.address))
        gateway.inject(udp(TARGET, client.address))
    gateway.plane.set_remote(client.peer_id, 1, client.own_address(), "")
    gateway.inject(udp(TARGET, client.address, b"again"))
    assert client.receive().payload.endswith(b"again")


def test_a_control_packet_on_a_data_socket_goes_to_the_listener(gateway: Gateway) -> None:
    client = gateway.client()
    client.send(PING)
    for opcode in (3, 4, 5, 7, 10, 11):
        packet = bytes([opcode << 3]) + b"session id and more"
        client.send_raw(packet)
        assert gateway.event(StrayControl) == StrayControl(1, client.own_address(), "127.0.0.1", packet)
    assert gateway.drops() == {}


def test_strangers_control_packets_on_a_data_socket_reach_nobody(gateway: Gateway) -> None:
    """The kernel glues whatever one source sends behind data that it makes up, and hands all of it to a data socket."""
    client = gateway.client()
    client.send(PING)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger, gateway.dropping(stray_control=50):
        for _ in range(50):
            stranger.sendto(CONTROL, gateway.ports[1][0])
    assert gateway.events() == []
    client.send_raw(CONTROL)
    gateway.barrier()
    client.send_raw(CONTROL)  # the last authentic datagram is the bystander's now
    gateway.barrier()
    assert len(gateway.events()) == 1


def test_events_are_bounded_but_an_exit_is_told_all_the_same(gateway: Gateway) -> None:
    client = gateway.client()
    client.send(PING)
    for _ in range(250):
        client.send_raw(CONTROL)
    gateway.barrier()
    client.send(OCC_EXIT)
    gateway.barrier()
    assert gateway.drops() == {Drop.EVENTS_FULL: 250 - 64}
    told = gateway.events()
    assert sum(isinstance(event, StrayControl) for event in told) == 64
    if PeerExit(client.peer_id) not in told:
        assert gateway.event(PeerExit) == PeerExit(client.peer_id)


def test_one_client_leaves_the_others_their_room_in_the_events(gateway: Gateway) -> None:
    noisy = [gateway.client(n, (f"10.100.0.{n}",)) for n in range(2, 32)]
    for client in noisy:
        client.send(PING)
        for _ in range(100):
            client.send_raw(CONTROL)
    quiet = gateway.client(99, ("10.100.0.99",))
    quiet.send(PING)
    quiet.send_raw(CONTROL)
    quiet.move()
    quiet.send(PING)
    gateway.barrier()
    told = gateway.events()
    waiting = Counter(event.source for event in told if isinstance(event, StrayControl))
    assert [waiting[client.own_address()] for client in noisy] == [64] * 24 + [8] * 6
    assert waiting.total() == 24 * 64 + 6 * 8 + 1
    assert [event.peer_id for event in told if isinstance(event, FloatSeen)] == [quiet.peer_id]
    noisy[0].send(PING)
    noisy[0].send_raw(CONTROL)
    assert gateway.event(StrayControl).source == noisy[0].own_address(), "its share is its own again"


def test_a_clients_control_packets_are_bounded_in_time_too(gateway: Gateway) -> None:
    client = gateway.client()
    client.send(PING)
    begun = time.monotonic()
    told = 0
    for _ in range(60):
        for _ in range(50):
            client.send_raw(CONTROL)
        gateway.barrier()
        told += sum(isinstance(event, StrayControl) for event in gateway.events())
        client.send(PING)
    assert 250 <= told <= 251 + 250 * (time.monotonic() - begun)
    assert gateway.drops() == ({Drop.CONTROL_LIMIT: 3000 - told} if told < 3000 else {})


def test_every_reason_is_there_from_the_start(gateway: Gateway) -> None:
    assert gateway.plane.drops() == dict.fromkeys(Drop, 0)


def test_a_packet_that_is_dropped_leaves_no_trace(gateway: Gateway) -> None:
    client = gateway.client()
    before = gateway.plane.peer_stats(client.peer_id)
    stranger = data_keys("stranger")
    forged = seal(stranger.cipher, stranger.open_key, stranger.open_iv, header(1), 9, udp(client.address, TARGET))
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with other, gateway.dropping(auth_failed=1, no_key=1, unknown_peer=1):
        for datagram in (forged, header(1, 5) + forged[4:], header(77) + forged[4:]):
            other.sendto(datagram, gateway.ports[1][0])
    after = gateway.plane.peer_stats(client.peer_id)
    assert (after.packets_in, after.bytes_in) == (before.packets_in, before.bytes_in)
    assert after.idle_s >= before.idle_s
    assert gateway.events() == []
    client.send(udp(client.address, TARGET), packet_id=9)
    assert gateway.delivered() == udp(client.address, TARGET)
