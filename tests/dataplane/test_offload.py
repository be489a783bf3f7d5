"""Super-packets through the C plane: from and to a TUN that speaks virtio headers, and UDP that the kernel segments."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import offload
from helpers.netns import Namespace, unique_prefix
from helpers.packets import OVERHEAD, checksums_are_right, tcp, udp
from helpers.plane import TARGET, TARGET_V6, Gateway, PlaneMaker, wait_for

from cvpnd.dataplane.api import Drop, StrayControl, TunOffload

UDP_SEGMENT = 103
CONTROL = b"\x20" + bytes(13)
"""P_CONTROL_V1."""


@pytest.fixture(params=["offload"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def send_segments(client, packets: list[bytes]) -> None:
    """As one datagram in the kernel, which on loopback stays one up to the receiver."""
    _, port = client.gateway.ports[client.listener][client.worker]
    size = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(packets[0])))]
    client.socket.sendmsg([b"".join(packets)], size, 0, (client.host, port))


def wait_for_totals(gateway: Gateway, **expected: int) -> None:
    """What the plane has counted by now. It counts a moment after the packets have left."""
    with contextlib.suppress(AssertionError):  # the comparison below says more
        wait_for(lambda: expected.items() <= gateway.plane.totals().items())
    totals = gateway.plane.totals()
    assert {word: totals[word] for word in expected} == expected


def payload_of(size: int) -> bytes:
    return bytes(at * 7 & 0xFF for at in range(size))


@pytest.mark.parametrize("make", [tcp, udp])
@pytest.mark.parametrize("family", [4, 6])
def test_a_super_packet_reaches_the_client_as_the_packets_it_stands_for(gateway: Gateway, make, family: int) -> None:
    client = gateway.client()
    ends = (TARGET, client.address) if family == 4 else (TARGET_V6, client.address_v6)
    frame = offload.super_packet(make(*ends, payload_of(60_000)), 1400)
    gateway.inject_frame(frame)
    expected = offload.split(frame)
    received = [client.receive() for _ in expected]
    assert [opened.payload for opened in received] == expected
    assert [opened.packet_id for opened in received] == list(range(1, len(expected) + 1))
    assert all(checksums_are_right(packet) for packet in expected)
    wait_for_totals(gateway, tun_packets_out=len(expected), link_packets_out=len(expected), send_messages=1)
    stats = gateway.plane.peer_stats(client.peer_id)
    assert (stats.packets_out, stats.bytes_out) == (len(expected), sum(map(len, expected)))


def test_segments_beyond_what_one_datagram_holds_go_into_the_next(gateway: Gateway) -> None:
    client = gateway.client()
    frame = offload.super_packet(tcp(TARGET, client.address, payload_of(65_000)), 500)
    expected = offload.split(frame)
    gateway.inject_frame(frame)
    assert [client.receive().payload for _ in expected] == expected
    wait_for_totals(gateway, send_messages=3)  # of 64, 64 and 2


def test_super_packets_of_two_peers_do_not_mix(gateway: Gateway) -> None:
    clients = [gateway.client(peer, (f"10.100.0.{peer}",)) for peer in (2, 3)]
    frames = [offload.super_packet(tcp(TARGET, c.address, payload_of(9_000 + c.peer_id)), 1000) for c in clients]
    for frame in frames:
        gateway.inject_frame(frame)
    for client, frame in zip(clients, frames, strict=True):
        expected = offload.split(frame)
        assert [client.receive().payload for _ in expected] == expected


def test_a_super_packet_for_nobody_counts_each_of_its_packets(gateway: Gateway) -> None:
    frame = offload.super_packet(tcp(TARGET, "10.100.0.99", payload_of(5_000)), 1000)
    with gateway.dropping(no_route=5):
        gateway.inject_frame(frame)


@pytest.mark.parametrize("make", [tcp, udp])
def test_a_checksum_left_to_the_device_is_completed(gateway: Gateway, make) -> None:
    client = gateway.client()
    for ends in ((TARGET, client.address), (TARGET_V6, client.address_v6)):
        packet = make(*ends, b"odd length")
        gateway.inject_frame(offload.partial(packet))
        assert client.receive().payload == packet


def test_frames_that_make_no_sense_are_not_ip(gateway: Gateway) -> None:
    client = gateway.client()
    good = offload.super_packet(tcp(TARGET, client.address, payload_of(5_000)), 1000)
    frames = [good[:5], good[:10], good[:60], b"\0\x05" + good[2:], good[:4] + b"\0\0" + good[6:], b"\0" + good[1:]]
    with gateway.dropping(not_ip=len(frames)):
        for frame in frames:
            gateway.inject_frame(frame)
    gateway.inject_frame(good)
    assert client.receive().payload == offload.split(good)[0]


def test_segments_that_do_not_fit_the_path_go_one_by_one_and_are_remembered(small_path: Gateway) -> None:
    gateway, client = small_path, small_path.client()
    for size, messages in ((1200, 3), (1200, 6), (800, 7)):
        frame = offload.super_packet(udp(TARGET, client.address, payload_of(3 * size)), size)
        gateway.inject_frame(frame)
        assert [client.receive().payload for _ in range(3)] == offload.split(frame)
        wait_for_totals(gateway, send_messages=messages)


@pytest.fixture
def small_path(make_gateway: Callable[..., Gateway], tmp_path: Path) -> Iterator[Gateway]:
    """In a network namespace whose loopback carries 1000 bytes at once."""
    namespace = Namespace(f"{unique_prefix()}-path", tmp_path)
    try:
        with namespace.entered():
            namespace.run("ip", "link", "set", "lo", "up", "mtu", "1000")
            yield make_gateway()
    finally:
        namespace.close()


@pytest.mark.parametrize("make", [tcp, udp])
@pytest.mark.parametrize("family", [4, 6])
def test_packets_that_came_together_are_written_as_one(gateway: Gateway, make, family: int) -> None:
    client = gateway.client()
    ends = (client.address, TARGET) if family == 4 else (client.address_v6, TARGET_V6)
    packets = offload.split(offload.super_packet(make(*ends, payload_of(40 * 1400)), 1400))
    send_segments(client, [client.seal(packet) for packet in packets])
    frame = gateway.delivered_frame()
    assert offload.split(frame) == packets
    wait_for_totals(gateway, receive_messages=1, link_packets_in=40, tun_write_calls=1, tun_packets_in=40)
    stats = gateway.plane.peer_stats(client.peer_id)
    assert (stats.packets_in, stats.bytes_in) == (40, sum(map(len, packets)))


@pytest.mark.parametrize("family", [4, 6])
def test_of_acknowledgements_that_came_together_the_last_of_eight_is_written(gateway: Gateway, family: int) -> None:
    client = gateway.client()
    ends = (client.address, TARGET) if family == 4 else (client.address_v6, TARGET_V6)
    packets = [tcp(*ends, acknowledgement=1000 + 2800 * number) for number in range(20)]
    send_segments(client, [client.seal(packet) for packet in packets])
    assert [gateway.delivered() for _ in range(3)] == [packets[7], packets[15], packets[19]]
    wait_for_totals(gateway, link_packets_in=20, tun_packets_in=3, tun_write_calls=3, acks_superseded=17)
    assert gateway.plane.peer_stats(client.peer_id).packets_in == 20


def test_a_denied_packet_in_the_middle_is_left_out(gateway: Gateway) -> None:
    client = gateway.client()
    packets = offload.split(offload.super_packet(tcp(client.address, TARGET, payload_of(3_000)), 1000))
    denied = offload.split(offload.super_packet(tcp(client.address, "192.0.2.9", payload_of(2_000)), 1000))[0]
    with gateway.dropping(denied=1):
        send_segments(client, [client.seal(p) for p in (packets[0], denied, packets[1], packets[2])])
    assert [gateway.delivered() for _ in packets] == packets


def test_a_replayed_or_damaged_packet_among_segments_is_dropped_alone(gateway: Gateway) -> None:
    client = gateway.client()
    packets = offload.split(offload.super_packet(udp(client.address, TARGET, payload_of(2_000)), 1000))
    first, second = (client.seal(packet) for packet in packets)
    with gateway.dropping(replayed=1, auth_failed=1):
        send_segments(client, [first, first, second[:-1] + bytes([second[-1] ^ 1]), second])
    assert [gateway.delivered() for _ in packets] == packets


def test_a_control_packet_glued_behind_data_belongs_to_the_listener(gateway: Gateway) -> None:
    client = gateway.client()
    packets = offload.split(offload.super_packet(udp(client.address, TARGET, payload_of(2_000)), 1000))
    send_segments(client, [*(client.seal(packet) for packet in packets), CONTROL])
    assert [gateway.delivered() for _ in packets] == packets
    stray = gateway.event(StrayControl)
    assert (stray.packet, stray.source) == (CONTROL, client.own_address())


def test_a_bad_inner_checksum_is_not_made_good(gateway: Gateway) -> None:
    client = gateway.client()
    packets = offload.split(offload.super_packet(tcp(client.address, TARGET, payload_of(3_000)), 1000))
    packets[1] = packets[1][:-1] + bytes([packets[1][-1] ^ 1])
    send_segments(client, [client.seal(packet) for packet in packets])
    assert [gateway.delivered() for _ in packets] == packets
    assert not checksums_are_right(packets[1])


def test_a_tun_that_splits_tcp_only_gets_datagrams_one_by_one(make_plane: PlaneMaker) -> None:
    gateway = Gateway(make_plane(1), speaks=TunOffload.TCP)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    client = gateway.client()
    for make, writes in ((tcp, 1), (udp, 5)):
        packets = offload.split(offload.super_packet(make(client.address, TARGET, payload_of(4_000)), 1000))
        send_segments(client, [client.seal(packet) for packet in packets])
        assert [gateway.delivered() for _ in packets] == packets
        wait_for_totals(gateway, tun_write_calls=writes)
    gateway.close()


def test_two_workers_split_and_coalesce_for_their_own_peers(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(2)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    for peer in (2, 3):
        client = gateway.client(peer, (f"10.100.0.{peer}",))
        packets = offload.split(offload.super_packet(tcp(client.address, TARGET, payload_of(20_000)), 1000))
        send_segments(client, [client.seal(packet) for packet in packets])
        assert offload.split(gateway.delivered_frame(worker=client.worker)) == packets
        frame = offload.super_packet(tcp(TARGET, client.address, payload_of(20_000)), 1000)
        gateway.inject_frame(frame, worker=1 - client.worker)  # any queue
        datagrams = [client.receive_raw()[0] for _ in range(20)]
        assert {len(datagram) for datagram in datagrams} == {1040 + OVERHEAD}
        assert [client.keys[0].open(datagram).payload for datagram in datagrams] == offload.split(frame)
    assert gateway.drops()[Drop.UNKNOWN_PEER] == 0
