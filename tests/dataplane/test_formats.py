"""What differs from client to client around the payload: peer ids (openvpn-wire.md 9.3), P_DATA_V1 (11.1), compression
framing (11.8)."""

from __future__ import annotations

import socket

import pytest
from helpers.packets import LINK_PACKET_MAX, OCC_EXIT, OVERHEAD_V1, PING, header, seal, udp
from helpers.plane import TARGET, TARGET_V6, Client, Gateway, wait_for

from cvpnd.dataplane.api import Framing, PeerExit

# -- peer ids


@pytest.mark.parametrize("epoch", [False, True], ids=["packet ids", "epochs"])
@pytest.mark.parametrize("remote", [0, 77, 0xFFFFFE])
def test_the_id_that_the_client_chose_is_written_to_it_and_ours_is_read(
    gateway: Gateway, epoch: bool, remote: int
) -> None:
    client = gateway.client(5, remote_peer_id=remote, epoch=epoch)
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().peer_id == remote
    packet = udp(client.address, TARGET)
    client.send(packet)
    assert gateway.delivered() == packet


def test_two_clients_may_choose_the_same_id(gateway: Gateway) -> None:
    first = gateway.client(5, ("10.100.0.2",), remote_peer_id=9)
    second = gateway.client(6, ("10.100.0.3",), remote_peer_id=9)
    for client in (first, second):
        gateway.inject(udp(TARGET, client.address))
        assert client.receive().peer_id == 9


# -- P_DATA_V1


@pytest.fixture
def old(gateway: Gateway) -> Client:
    return gateway.client(data_v1=True)


def test_packets_without_a_peer_id_pass_both_ways(gateway: Gateway, old: Client) -> None:
    for counter in range(1, 4):
        packet = udp(old.address, TARGET, bytes(100 * counter))
        old.send(packet)
        assert gateway.delivered() == packet
        back = udp(TARGET, old.address, bytes(counter))
        gateway.inject(back)
        opened = old.receive()
        assert (opened.peer_id, opened.packet_id, opened.payload) == (-1, counter, back)


@pytest.mark.parametrize("cipher", ["AES-128-GCM", "CHACHA20-POLY1305"])
def test_every_cipher_has_a_form_without_peer_id(gateway: Gateway, cipher: str) -> None:
    client = gateway.client(data_v1=True, cipher=cipher)
    packet = udp(client.address, TARGET)
    client.send(packet)
    assert gateway.delivered() == packet
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().packet_id == 1


def test_keys_replays_and_forgeries_are_told_apart_there_too(gateway: Gateway, old: Client) -> None:
    packet = old.seal(udp(old.address, TARGET))
    forged = bytearray(packet)
    forged[-1] ^= 1
    with gateway.dropping(auth_failed=1):
        gateway.plane.inject(old.peer_id, bytes(forged))
    gateway.plane.inject(old.peer_id, packet)
    assert gateway.delivered()
    with gateway.dropping(replayed=1):
        gateway.plane.inject(old.peer_id, packet)
    with gateway.dropping(no_key=1):
        gateway.plane.inject(old.peer_id, bytes([6 << 3 | 5]) + packet[1:])
    old.install_key(1)
    old.send(udp(old.address, TARGET), key_id=1)
    assert gateway.delivered()
    gateway.inject(udp(TARGET, old.address))
    assert old.receive().key_id == 1


@pytest.mark.parametrize("length", [1, 5, OVERHEAD_V1])
def test_what_is_too_short_is_truncated(gateway: Gateway, old: Client, length: int) -> None:
    with gateway.dropping(truncated=1):
        gateway.plane.inject(old.peer_id, old.seal(PING)[:length])


def test_a_peer_id_is_not_for_a_client_that_knows_none(gateway: Gateway, old: Client) -> None:
    new = gateway.client(2, ("10.100.0.3",))
    with gateway.dropping(bad_opcode=1):
        gateway.plane.inject(old.peer_id, new.seal(PING))


@pytest.mark.parametrize(("cipher", "digest"), [("AES-256-GCM", ""), ("AES-256-CBC", "SHA256")], ids=["AEAD", "CBC"])
def test_a_client_that_did_not_take_up_its_peer_id_is_heard(gateway: Gateway, cipher: str, digest: str) -> None:
    """It sends without one and understands what we send with one: so does the stock client told to ignore it."""
    client = gateway.client(2, ("10.100.0.3",), cipher=cipher, digest=digest)
    packet = udp(client.address, TARGET)
    without = client.keys[0].seal(None, packet)
    gateway.plane.inject(client.peer_id, without)
    assert gateway.delivered() == packet
    with gateway.dropping(replayed=1, auth_failed=1):
        gateway.plane.inject(client.peer_id, without)
        gateway.plane.inject(client.peer_id, without[:-1] + bytes([without[-1] ^ 1]))
    with gateway.dropping(bad_opcode=1):
        client.send_raw(without)
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().peer_id == 2


def test_the_epoch_format_needs_a_peer_id(gateway: Gateway) -> None:
    client = gateway.client(2, ("10.100.0.3",), epoch=True)
    with gateway.dropping(bad_opcode=1):
        gateway.plane.inject(client.peer_id, bytes([6 << 3]) + client.seal(PING)[1:])


def test_its_id_means_nothing_in_a_datagram(gateway: Gateway, old: Client) -> None:
    keys = old.keys[0].keys
    packet = seal(keys.cipher, keys.open_key, keys.open_iv, header(old.peer_id), 1, udp(old.address, TARGET))
    with gateway.dropping(unknown_peer=1):
        old.send_raw(packet)


def test_a_data_socket_takes_none(gateway: Gateway, old: Client) -> None:
    with gateway.dropping(bad_opcode=1):
        old.send_raw(old.seal(PING))


def test_an_injected_packet_with_no_peer_id_in_it_is_opened_too(gateway: Gateway) -> None:
    """P_DATA_V2 with the id that means "none" is looked up by its source as well (2.3)."""
    client = gateway.client()
    packet = udp(client.address, TARGET)
    gateway.plane.inject(client.peer_id, client.keys[0].seal(0xFFFFFF, packet))
    assert gateway.delivered() == packet
    assert gateway.events() == []


def test_injection_has_its_bounds(gateway: Gateway, old: Client) -> None:
    for packet in (b"", bytes(LINK_PACKET_MAX + 1)):
        with pytest.raises(ValueError):
            gateway.plane.inject(old.peer_id, packet)
    with pytest.raises(KeyError):
        gateway.plane.inject(4711, b"x")
    stream = gateway.client(2, ("10.100.0.3",), data_v1=True, connect=False)
    ours, theirs = socket.socketpair()
    gateway.plane.attach_tcp(stream.peer_id, theirs.detach(), b"")
    with pytest.raises(ValueError):
        gateway.plane.inject(stream.peer_id, b"x")
    with ours:
        packet = stream.seal(udp(stream.address, TARGET))
        ours.sendall(len(packet).to_bytes(2, "big") + packet)
        assert gateway.delivered()
        gateway.inject(udp(TARGET, stream.address))
        ours.settimeout(5)
        answer = ours.recv(4096)
    assert stream.keys[0].open(answer[2:]).payload == udp(TARGET, stream.address)


def test_a_flood_of_injected_packets_is_dropped_and_the_rest_passes(make_plane) -> None:
    gateway = Gateway(make_plane(1))
    try:
        client = gateway.client(data_v1=True)
        forged = bytes([6 << 3]) + bytes(1400)
        for _ in range(20_000):
            gateway.plane.inject(client.peer_id, forged)
        drops = wait_for(lambda: (d := gateway.drops()).total() >= 20_000 and d)
        assert set(drops) <= {"auth_failed", "inbox_full"}
        client.send(PING)
        gateway.barrier()
        assert gateway.plane.peer_stats(client.peer_id).idle_s < 5
    finally:
        gateway.close()


# -- framing

LZO, LZ4, PLAIN, SWAPPED = b"\x66", b"\x69", b"\xfa", b"\xfb"


@pytest.mark.parametrize("epoch", [False, True], ids=["packet ids", "epochs"])
def test_a_byte_in_front_says_not_compressed(gateway: Gateway, epoch: bool) -> None:
    client = gateway.client(framing=Framing.COMP_LZO, epoch=epoch)
    for source, target in ((client.address, TARGET), (client.address_v6, TARGET_V6)):
        packet = udp(source, target, bytes(77))
        client.send(PLAIN + packet)
        assert gateway.delivered() == packet
        client.send(SWAPPED + packet[1:] + packet[:1])
        assert gateway.delivered() == packet
    packets = [udp(TARGET, client.address, bytes([number]) * 200) for number in range(20)]
    for packet in packets:
        gateway.inject(packet)
    assert [client.receive().payload for _ in packets] == [PLAIN + packet for packet in packets]


def test_framing_and_p_data_v1_together(gateway: Gateway) -> None:
    client = gateway.client(framing=Framing.COMP_LZO, data_v1=True)
    packet = udp(client.address, TARGET)
    client.send(PLAIN + packet)
    assert gateway.delivered() == packet
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().payload == PLAIN + udp(TARGET, client.address)


@pytest.mark.parametrize("framing", [Framing.COMP_LZO, Framing.STUB_V2])
def test_compressed_packets_are_dropped_and_named(gateway: Gateway, framing: Framing) -> None:
    client = gateway.client(framing=framing)
    packet = udp(client.address, TARGET)
    compressed = [LZO, LZ4] if framing is Framing.COMP_LZO else [b"\x50\x01", b"\x50\x02"]
    with gateway.dropping(compressed=2):
        for mark in compressed:
            client.send(mark + packet)
    with gateway.dropping(not_ip=2):
        client.send(b"\x50" if framing is Framing.STUB_V2 else b"\x2a")
        client.send(b"\x50\x00" if framing is Framing.STUB_V2 else PLAIN)
    client.send(packet if framing is Framing.STUB_V2 else PLAIN + packet)
    assert gateway.delivered() == packet


def test_an_unframed_packet_in_a_framed_tunnel_is_no_ip(gateway: Gateway) -> None:
    client = gateway.client(framing=Framing.COMP_LZO)
    with gateway.dropping(not_ip=2):
        client.send(udp(client.address, TARGET))
        client.send(SWAPPED)


@pytest.mark.parametrize("algorithm", [b"\x00", b"\x0a"])
def test_stub_v2_marks_only_what_begins_like_its_mark(gateway: Gateway, algorithm: bytes) -> None:
    client = gateway.client(framing=Framing.STUB_V2)
    packet = udp(client.address, TARGET)
    for sent in (packet, b"\x50" + algorithm + packet):
        client.send(sent)
        assert gateway.delivered() == packet
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().payload == udp(TARGET, client.address)


@pytest.mark.parametrize(
    ("framing", "prefix"), [(Framing.NONE, b""), (Framing.STUB_V2, b""), (Framing.COMP_LZO, PLAIN)]
)
def test_pings_and_notices_are_framed_too(gateway: Gateway, framing: Framing, prefix: bytes) -> None:
    client = gateway.client(framing=framing, ping_interval_s=1)
    client.send(prefix + PING)
    client.send(prefix + OCC_EXIT)
    assert gateway.event(PeerExit) == PeerExit(client.peer_id)
    assert gateway.drops() == {}
    assert client.receive().payload == prefix + PING


def test_without_framing_these_bytes_are_ip_like_any_other(gateway: Gateway) -> None:
    """0x66 and 0x69 begin IPv6 packets of some traffic classes."""
    client = gateway.client()
    packet = bytearray(udp(client.address_v6, TARGET_V6))
    for first in (0x66, 0x69):
        packet[0] = first
        client.send(bytes(packet))
        assert gateway.delivered() == bytes(packet)
