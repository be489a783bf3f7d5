"""Clients over TCP: framing (openvpn-wire.md 2.1), the hand-over, bounded queues, and ends of all kinds."""

import errno
import os
import socket
import struct
import time
from collections.abc import Callable

import pytest
from helpers.packets import LINK_PACKET_MAX, OVERHEAD, PING, Opened, header, udp
from helpers.plane import TARGET, Client, Gateway, readable, wait_for

from cvpnd.dataplane.api import KeyUsed, PeerTimeout, TcpClosed, TcpControl

CONTROL = bytes([4 << 3]) + b"session id, acks, TLS"


def frame(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """A TCP connection over loopback: the client's end and the gateway's. Small kernel buffers that stay so."""
    client = socket.socket()
    with socket.create_server(("127.0.0.1", 0)) as server:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        client.connect(server.getsockname())
        accepted, _ = server.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
    accepted.setblocking(False)
    return client, accepted


class TcpClient(Client):
    """The far end of one peer over TCP."""

    def __init__(self, gateway: Gateway, peer_id: int, addresses: tuple[str, ...], **settings: int) -> None:
        received = settings.pop("received", b"")
        super().__init__(gateway, peer_id, addresses, connect=False, **settings)
        self.socket.close()
        self.socket, accepted = connected_pair()
        self.stream = b""
        self.plane.attach_tcp(peer_id, accepted.detach(), received)

    def send_raw(self, datagram: bytes, *, worker: int | None = None) -> None:
        self.socket.sendall(frame(datagram))

    def receive_packet(self) -> bytes:
        """The next packet of the stream, without its length."""
        while len(self.stream) < 2 or len(self.stream) < 2 + int.from_bytes(self.stream[:2], "big"):
            assert readable(self.socket), f"nothing reached the client; drops: {self.gateway.drops()}"
            received = self.socket.recv(65536)
            assert received, "the gateway closed the connection"
            self.stream += received
        length = int.from_bytes(self.stream[:2], "big")
        packet, self.stream = self.stream[2 : 2 + length], self.stream[2 + length :]
        return packet

    def receive(self) -> Opened:
        packet = self.receive_packet()
        return self.keys[packet[0] & 7].open(packet)

    def at_end(self) -> bool:
        """The gateway has closed the connection, and all it sent before has been read."""
        assert readable(self.socket), "the connection is still open"
        try:
            return self.socket.recv(65536) == b""
        except ConnectionResetError:
            return True


Attach = Callable[..., TcpClient]


@pytest.fixture
def attach(gateway: Gateway) -> Attach:
    def attach(peer_id: int = 1, addresses: tuple[str, ...] = ("10.100.0.2", "fd64::2"), **settings: int) -> TcpClient:
        return TcpClient(gateway, peer_id, addresses, **settings)

    return attach


def test_packets_pass_both_ways(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    there, back = udp(client.address, TARGET, b"there"), udp(TARGET, client.address, b"back")
    client.send(there)
    assert gateway.delivered() == there
    gateway.inject(back)
    opened = client.receive()
    assert (opened.payload, opened.packet_id) == (back, 1)
    stats = gateway.plane.peer_stats(client.peer_id)
    assert (stats.packets_in, stats.packets_out) == (1, 1)


def test_the_connection_is_the_peer_whatever_id_a_packet_claims(gateway: Gateway, attach: Attach) -> None:
    client = attach(peer_id=1)
    attach(peer_id=2, addresses=("10.100.0.3",))
    packet = udp(client.address, TARGET)
    client.send_raw(client.keys[0].seal(0xFFFFFF, packet))
    assert gateway.delivered() == packet


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 10_000])
def test_frames_may_be_cut_anywhere(gateway: Gateway, attach: Attach, size: int) -> None:
    client = attach()
    packets = [udp(client.address, TARGET, bytes([number]) * (number * 13 % 90)) for number in range(40)]
    stream = b"".join(frame(client.seal(packet)) for packet in packets)
    if size < 4:
        stream, packets = b"".join(frame(client.seal(packet)) for packet in packets[:3]), packets[:3]
    for at in range(0, len(stream), size):
        client.socket.sendall(stream[at : at + size])
        if size < 100:
            time.sleep(0)  # another chance for the plane to see a part
    assert [gateway.delivered() for _ in packets] == packets


def test_a_frame_may_be_cut_at_every_byte(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    packet = udp(client.address, TARGET)
    stream_length = len(frame(client.seal(packet)))
    calls = gateway.plane.totals()["receive_calls"]
    for cut in range(1, stream_length):
        stream = frame(client.seal(packet))
        client.socket.sendall(stream[:cut])
        calls += 1
        wait_for(lambda seen=calls: gateway.plane.totals()["receive_calls"] >= seen)
        client.socket.sendall(stream[cut:])
        assert gateway.delivered() == packet
        calls = gateway.plane.totals()["receive_calls"]


@pytest.mark.parametrize("cut", [0, 1, 2, 5, 60, 61, 62, 63, 64, 125, 170])
def test_what_was_read_before_the_hand_over_comes_first(gateway: Gateway, cut: int) -> None:
    client = gateway.client(connect=False)
    packets = [udp(client.address, TARGET, bytes([number]) * 8) for number in range(4)]
    stream = b"".join(frame(client.seal(packet)) for packet in packets)
    near, far = connected_pair()
    near.sendall(stream[cut:])
    gateway.plane.attach_tcp(client.peer_id, far.detach(), stream[:cut])
    assert [gateway.delivered() for _ in packets] == packets
    near.close()


def test_much_that_was_read_before_the_hand_over(gateway: Gateway) -> None:
    client = gateway.client(connect=False)
    packets = [udp(client.address, TARGET, number.to_bytes(4, "big") * 250) for number in range(200)]
    stream = b"".join(frame(client.seal(packet)) for packet in packets)
    assert len(stream) > 200_000
    near, far = connected_pair()
    gateway.plane.attach_tcp(client.peer_id, far.detach(), stream)
    assert [gateway.delivered() for _ in packets] == packets
    near.close()


def test_control_and_data_of_one_stream_go_their_ways_in_order(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    stream = b""
    for number in range(30):
        stream += frame(client.seal(udp(client.address, TARGET, bytes([number]))))
        stream += frame(CONTROL + bytes([number]))
    client.socket.sendall(stream)
    assert [gateway.delivered()[-1] for _ in range(30)] == list(range(30))
    for number in range(30):
        assert gateway.event(TcpControl) == TcpControl(client.peer_id, CONTROL + bytes([number]))


@pytest.mark.parametrize("opcode", [3, 4, 5, 7, 10, 11])
def test_every_control_opcode_comes_up(gateway: Gateway, attach: Attach, opcode: int) -> None:
    client = attach()
    packet = bytes([opcode << 3]) + b"x"
    client.send_raw(packet)
    assert gateway.event(TcpControl) == TcpControl(client.peer_id, packet)


def test_control_packets_go_out_between_data(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    for number in range(20):
        gateway.plane.send_control(client.peer_id, CONTROL + bytes([number]))
        gateway.inject(udp(TARGET, client.address, bytes([number])))
    received = [client.receive_packet() for _ in range(40)]
    control = [packet[-1] for packet in received if packet[0] >> 3 == 4]
    data = [client.keys[0].open(packet).payload[-1] for packet in received if packet[0] >> 3 == 9]
    assert (control, data) == (list(range(20)), list(range(20)))


def test_the_largest_frame_passes(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    packet = udp(client.address, TARGET, bytes(2048 - 28))
    client.send(packet)
    assert gateway.delivered() == packet
    gateway.plane.send_control(client.peer_id, bytes(2048))
    assert client.receive_packet() == bytes(2048)


def test_pings_are_sent_and_absorbed(gateway: Gateway, attach: Attach) -> None:
    client = attach(ping_interval_s=1)
    client.send(PING)
    assert client.receive().payload == PING
    assert gateway.barrier() == []
    assert gateway.drops() == {}


def test_silence_on_tcp_is_told(gateway: Gateway, attach: Attach) -> None:
    client = attach(timeout_s=1)
    assert gateway.event(PeerTimeout) == PeerTimeout(client.peer_id)


def test_keys_change_over_tcp_too(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    client.install_key(1)
    client.send(PING, key_id=1)
    assert gateway.event(KeyUsed) == KeyUsed(client.peer_id, 1)
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().key_id == 1


def test_drops_on_tcp_are_counted_and_the_connection_stays(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    sealed = client.seal(udp(client.address, TARGET))
    with gateway.dropping(truncated=1, no_key=1, not_ip=1, bad_source=1, denied=1, replayed=1):
        client.send_raw(sealed[:OVERHEAD])
        client.send_raw(header(1, 5) + sealed[4:])
        client.send(b"E")
        client.send(udp("10.100.0.77", TARGET))
        client.send(udp(client.address, "192.0.2.1"))
        client.send(PING, packet_id=40)
        client.send(PING, packet_id=40)
    client.send_raw(sealed)
    assert gateway.delivered()
    assert gateway.events() == []


# -- ends


@pytest.mark.parametrize("length", [0, LINK_PACKET_MAX + 1, 65535])
def test_a_length_that_cannot_be_closes_the_connection(gateway: Gateway, attach: Attach, length: int) -> None:
    client = attach()
    packet = udp(client.address, TARGET)
    client.socket.sendall(frame(client.seal(packet)) + length.to_bytes(2, "big"))
    assert gateway.delivered() == packet
    closed = gateway.event(TcpClosed)
    assert closed.peer_id == client.peer_id
    assert "frame" in closed.detail
    assert client.at_end()


def test_a_packet_that_does_not_authenticate_closes_the_connection(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    before, behind = client.seal(udp(client.address, TARGET, b"before")), client.seal(udp(client.address, TARGET))
    with gateway.dropping(auth_failed=1):
        client.socket.sendall(frame(before) + frame(before[:-1] + bytes([before[-1] ^ 1])) + frame(behind))
    assert gateway.delivered().endswith(b"before")
    assert "authenticate" in gateway.event(TcpClosed).detail
    assert client.at_end()
    assert gateway.barrier() == []


def test_the_clients_end_of_file_is_told_behind_its_last_packet(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    packet = udp(client.address, TARGET)
    client.socket.sendall(frame(client.seal(packet)) + frame(CONTROL) + b"\x00")
    client.socket.shutdown(socket.SHUT_WR)
    assert gateway.delivered() == packet
    closed = gateway.event(TcpClosed)
    assert closed == TcpClosed(client.peer_id, "end of file")
    assert gateway.event(TcpControl).packet == CONTROL


def test_a_reset_is_told(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()
    assert gateway.event(TcpClosed).detail == os.strerror(errno.ECONNRESET)


def test_after_the_end_the_peer_is_still_there_but_not_ready(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    client.socket.shutdown(socket.SHUT_WR)
    gateway.event(TcpClosed)
    with gateway.dropping(not_ready=2):
        gateway.inject(udp(TARGET, client.address))
        gateway.inject(udp(TARGET, client.address))
    gateway.plane.send_control(client.peer_id, CONTROL)
    stats = gateway.plane.peer_stats(client.peer_id)
    assert stats.packets_out == 0
    gateway.plane.remove_peer(client.peer_id)
    with pytest.raises(KeyError):
        gateway.plane.send_control(client.peer_id, CONTROL)


def test_the_end_is_told_once(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    client.socket.sendall(b"\x00\x00")
    client.socket.shutdown(socket.SHUT_WR)
    gateway.event(TcpClosed)
    gateway.barrier()
    assert gateway.events() == []


def test_removing_a_peer_flushes_and_closes_its_connection(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    gateway.plane.send_control(client.peer_id, b"\x20last words")
    gateway.plane.remove_peer(client.peer_id)
    assert client.receive_packet() == b"\x20last words"
    assert client.at_end()
    gateway.barrier()
    assert gateway.events() == []


def test_last_words_arrive_though_the_client_was_speaking(gateway: Gateway, attach: Attach) -> None:
    client = attach()
    for _ in range(30):
        client.send(udp(client.address, TARGET, bytes(1000)))
    gateway.plane.send_control(client.peer_id, b"\x20last words")
    gateway.plane.remove_peer(client.peer_id)
    assert client.receive_packet() == b"\x20last words"
    assert readable(client.socket)
    assert client.socket.recv(1) == b""


def test_a_peer_id_may_be_used_again_at_once(gateway: Gateway, attach: Attach) -> None:
    for turn in range(20):
        client = attach()
        client.send_raw(CONTROL)
        client.socket.sendall(b"\x00\x00")
        if turn % 2:  # what it left behind waits already
            assert readable(gateway.plane.event_fd())
        gateway.plane.remove_peer(client.peer_id)
        assert gateway.events() == []
        client.close()


# -- slow clients


def stuff(gateway: Gateway, client: TcpClient, packets: int) -> None:
    for number in range(packets):
        gateway.inject(udp(TARGET, client.address, number.to_bytes(4, "big") + bytes(1300)))


def test_a_client_that_does_not_read_delays_nobody(gateway: Gateway, attach: Attach) -> None:
    stuck, swift = attach(), attach(peer_id=2, addresses=("10.100.0.3",))
    bystander = gateway.client(3, ("10.100.0.4",))
    sent = 0
    while not gateway.drops():
        stuff(gateway, stuck, 100)
        sent += 100
        assert sent < 20_000, "the queue has no bound"
        for client in (swift, bystander):
            gateway.inject(udp(TARGET, client.address, b"still here"))
            assert client.receive().payload.endswith(b"still here")
        swift.send(udp(swift.address, TARGET))
        stuck.send(udp(stuck.address, TARGET))  # its other direction flows too
        assert gateway.delivered()
        assert gateway.delivered()
    gateway.inject(udp(TARGET, bystander.address))
    bystander.receive()
    lost = gateway.drops()["tcp_queue_full"]
    assert gateway.drops() == {"tcp_queue_full": lost}

    # It reads again: everything that was not counted as lost arrives, whole and in order.
    received = [stuck.receive() for _ in range(sent - lost)]
    numbers = [int.from_bytes(opened.payload[28:32], "big") for opened in received]
    assert [opened.packet_id for opened in received] == sorted({opened.packet_id for opened in received})
    assert len(numbers) == sent - lost
    gateway.inject(udp(TARGET, stuck.address, b"caught up"))
    assert stuck.receive().payload.endswith(b"caught up")


def test_control_finds_room_where_data_does_not_and_has_a_bound_too(gateway: Gateway, attach: Attach) -> None:
    stuck = attach()
    sent = 0
    while not gateway.drops():
        stuff(gateway, stuck, 100)
        sent += 100
        assert sent < 20_000, "the queue has no bound"
        gateway.barrier()
    lost = gateway.drops()
    for _ in range(40):
        gateway.plane.send_control(stuck.peer_id, bytes(1250))
    assert gateway.drops() == lost == {"tcp_queue_full": lost.total()}
    assert gateway.events() == []
    for _ in range(200):
        gateway.plane.send_control(stuck.peer_id, bytes(1250))
    assert "queue" in gateway.event(TcpClosed).detail
    gateway.plane.send_control(stuck.peer_id, CONTROL)  # in silence


# -- arguments


def test_a_peer_comes_by_one_way_only(gateway: Gateway, attach: Attach) -> None:
    over_udp, over_tcp = gateway.client(2, ("10.100.0.3",)), attach()
    with gateway.dropping(unknown_peer=1):
        over_udp.socket.sendto(over_tcp.seal(PING), gateway.ports[1][0])
    with pytest.raises(ValueError):
        gateway.plane.set_remote(over_tcp.peer_id, 1, over_udp.own_address(), "")
    with pytest.raises(ValueError):
        gateway.plane.send_control(over_udp.peer_id, CONTROL)
    for peer_id, error in ((over_udp.peer_id, ValueError), (over_tcp.peer_id, ValueError), (77, KeyError)):
        near, far = connected_pair()
        with pytest.raises(error):
            gateway.plane.attach_tcp(peer_id, far.detach(), b"")
        near.settimeout(5)
        assert near.recv(1) == b"", "the descriptor was not closed"
        near.close()
    gateway.inject(udp(TARGET, over_tcp.address))
    over_tcp.receive()
    gateway.inject(udp(TARGET, over_udp.address))
    over_udp.receive()


@pytest.mark.parametrize("length", [0, LINK_PACKET_MAX + 1, 70_000])
def test_a_control_packet_of_impossible_length_is_refused(gateway: Gateway, attach: Attach, length: int) -> None:
    client = attach()
    with pytest.raises(ValueError):
        gateway.plane.send_control(client.peer_id, bytes(length))
    gateway.plane.send_control(client.peer_id, CONTROL)
    assert client.receive_packet() == CONTROL
