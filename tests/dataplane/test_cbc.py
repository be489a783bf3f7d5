"""CBC with an HMAC, for clients that have no AEAD cipher (openvpn-wire.md 11.2)."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from helpers.packets import HMAC_BYTES, LINK_PACKET_MAX, OCC_EXIT, PING, data_keys, header, hmac_and_cbc, seal_cbc, udp
from helpers.plane import TARGET, TARGET_V6, Client, Gateway, wait_for

from cvpnd.dataplane.api import DataKeys, Framing, KeyUsed, PeerExit, RekeyNeeded

SUITES = [
    pytest.param("AES-128-CBC", "SHA1", id="AES-128-CBC SHA1"),
    pytest.param("AES-192-CBC", "SHA384", id="AES-192-CBC SHA384"),
    pytest.param("AES-256-CBC", "SHA256", id="AES-256-CBC SHA256"),
    pytest.param("AES-256-CBC", "SHA512", id="AES-256-CBC SHA512"),
]


@pytest.fixture
def client(gateway: Gateway) -> Client:
    return gateway.client(cipher="AES-256-CBC", digest="SHA256")


def keys_of(client: Client) -> tuple[bytes, bytes]:
    keys = client.keys[0].keys
    return keys.open_key, keys.open_iv


@pytest.mark.parametrize("data_v1", [False, True], ids=["P_DATA_V2", "P_DATA_V1"])
@pytest.mark.parametrize(("cipher", "digest"), SUITES)
def test_packets_of_every_length_pass_both_ways(gateway: Gateway, cipher: str, digest: str, data_v1: bool) -> None:
    client = gateway.client(cipher=cipher, digest=digest, data_v1=data_v1)
    for length in [*range(18), 1300, 1472, 2000]:
        packet = udp(client.address, TARGET, bytes(length + 20))
        client.send(packet)
        assert gateway.delivered() == packet
        back = udp(TARGET_V6, client.address_v6, bytes(length))
        gateway.inject(back)
        datagram, _ = client.receive_raw()
        opened = client.keys[0].open(datagram)
        assert opened.payload == back
        assert (opened.peer_id, opened.key_id) == (-1 if data_v1 else 1, 0)
        assert (len(datagram) - (1 if data_v1 else 4) - HMAC_BYTES[digest]) % 16 == 0
    assert gateway.drops() == {}


def test_a_run_of_packets_passes_and_no_two_look_alike(gateway: Gateway, client: Client) -> None:
    """Segments of one flow, of one length, next to each other in the workers' buffer."""
    packet = udp(TARGET, client.address, bytes(1200))
    for _ in range(200):
        gateway.inject(packet)
    datagrams = [client.receive_raw()[0] for _ in range(200)]
    opened = [client.keys[0].open(datagram) for datagram in datagrams]
    assert [each.packet_id for each in opened] == list(range(1, 201))
    assert {each.payload for each in opened} == {packet}
    assert len({datagram[36:52] for datagram in datagrams}) == 200, "an IV came twice"
    assert len({datagram[52:68] for datagram in datagrams}) == 200


def test_a_new_key_and_a_new_plane_have_ivs_of_their_own(make_gateway: Callable[..., Gateway]) -> None:
    """Two workers, two planes, the same keys and packets."""
    keys, seen = data_keys("the same", "AES-256-CBC", digest="SHA256"), []
    for _ in range(2):
        gateway = make_gateway(2)
        client = gateway.client(cipher="AES-256-CBC", digest="SHA256")
        for _ in range(2):
            client.plane.install_key(client.peer_id, 1, keys)
            client.plane.use_key(client.peer_id, 1)
            for worker in (0, 1) * 5:
                gateway.inject(udp(TARGET, client.address), worker=worker)
                seen.append(client.receive_raw()[0][36:52])
    assert len(set(seen)) == len(seen) == 40


@pytest.mark.parametrize("data_v1", [False, True], ids=["P_DATA_V2", "P_DATA_V1"])
def test_what_is_not_authentic_does_nothing(gateway: Gateway, data_v1: bool) -> None:
    client = gateway.client(cipher="AES-256-CBC", digest="SHA256", data_v1=data_v1)
    at = 1 if data_v1 else 4
    packet = client.seal(udp(client.address, TARGET))
    for changed in (at, at + 31, at + 32, at + 47, at + 48, len(packet) - 17, len(packet) - 1):
        damaged = bytearray(packet)
        damaged[changed] ^= 1
        with gateway.dropping(auth_failed=1):
            gateway.plane.inject(client.peer_id, bytes(damaged))
    for shortened in (packet[:-16], packet + bytes(16)):
        with gateway.dropping(auth_failed=1):
            gateway.plane.inject(client.peer_id, shortened)
    gateway.plane.inject(client.peer_id, packet)
    assert gateway.delivered() == udp(client.address, TARGET)
    with gateway.dropping(replayed=1):
        gateway.plane.inject(client.peer_id, packet)


def test_lengths_that_cannot_be_are_truncated(gateway: Gateway, client: Client) -> None:
    packet = client.seal(udp(client.address, TARGET))
    lengths = [*range(1, 4 + 32 + 32), len(packet) - 1, len(packet) - 15]
    for length in lengths:
        with gateway.dropping(truncated=1):
            gateway.plane.inject(client.peer_id, packet[:length])
    with gateway.dropping(truncated=1):
        gateway.plane.inject(client.peer_id, packet + b"x")
    signed = hmac_and_cbc(keys_of(client), "SHA256", header(1), b"")  # an HMAC over an IV and nothing
    with gateway.dropping(truncated=1):
        gateway.plane.inject(client.peer_id, signed)


@pytest.mark.parametrize("last", [0, 17, 28, 32, 128, 255])
def test_authentic_blocks_with_impossible_padding_are_no_ip(gateway: Gateway, client: Client, last: int) -> None:
    blocks = bytearray((1).to_bytes(4, "big") + udp(client.address, TARGET))
    blocks[-1] = last
    with gateway.dropping(not_ip=1):
        client.send_raw(hmac_and_cbc(keys_of(client), "SHA256", header(1), bytes(blocks)))
    client.send(udp(client.address, TARGET))  # and its packet id was not used up by that
    assert gateway.delivered()


@pytest.mark.parametrize("wrong", [2, 9, 12])
def test_each_byte_of_the_padding_counts(gateway: Gateway, client: Client, wrong: int) -> None:
    text = (1).to_bytes(4, "big") + PING
    blocks = bytearray(text + bytes([12]) * 12)
    blocks[-wrong] ^= 0x40
    with gateway.dropping(not_ip=1):
        client.send_raw(hmac_and_cbc(keys_of(client), "SHA256", header(1), bytes(blocks)))


@pytest.mark.parametrize(
    "text", [bytes([16]) * 16, bytes(3) + bytes([13]) * 13, bytes([0, 0, 0, 1]) + bytes([12]) * 12]
)
def test_nothing_but_padding_or_a_packet_id_is_no_ip(gateway: Gateway, client: Client, text: bytes) -> None:
    with gateway.dropping(not_ip=1):
        client.send_raw(hmac_and_cbc(keys_of(client), "SHA256", header(1), text))
    assert gateway.events() == []


def test_an_id_is_taken_once_and_late_ones_within_the_window(gateway: Gateway, client: Client) -> None:
    packet = udp(client.address, TARGET)
    for packet_id, drops in (
        (5, {}),
        (3, {}),
        (5, {"replayed": 1}),
        (0, {"replayed": 1}),
        (4000, {}),
        (6, {"replayed": 1}),
    ):
        with gateway.dropping(**drops):
            client.send(packet, packet_id=packet_id)
            if not drops:
                assert gateway.delivered() == packet


def test_the_header_is_not_covered_so_the_key_found_by_it_decides(gateway: Gateway, client: Client) -> None:
    other = gateway.client(2, ("10.100.0.3",), cipher="AES-256-CBC", digest="SHA256")
    packet = client.seal(udp(client.address, TARGET))
    client.install_key(1)
    for claimed in (header(2), header(1, 1)):
        with gateway.dropping(auth_failed=1):
            client.send_raw(claimed + packet[4:])
    with gateway.dropping(no_key=1):
        client.send_raw(header(1, 2) + packet[4:])
    gateway.plane.inject(client.peer_id, bytes([6 << 3]) + packet[4:])  # whose it is, its source has told
    assert gateway.delivered()
    with gateway.dropping(replayed=1):
        client.send_raw(packet)
    assert gateway.plane.peer_stats(other.peer_id).packets_in == 0


def test_what_the_gateway_sent_does_not_come_back(gateway: Gateway, client: Client) -> None:
    gateway.inject(udp(TARGET, client.address))
    reflected, _ = client.receive_raw()
    with gateway.dropping(auth_failed=1):
        client.send_raw(reflected)


def test_keys_follow_each_other_as_ever(gateway: Gateway, client: Client) -> None:
    client.install_key(1)
    client.send(udp(client.address, TARGET), key_id=1)
    assert gateway.delivered()
    assert gateway.event(KeyUsed) == KeyUsed(1, 1)
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().key_id == 1
    client.send(udp(client.address, TARGET), key_id=0)
    assert gateway.delivered()


def test_the_clients_last_ids_ask_for_a_new_key(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(packet_id_limit=0x1000)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    client = gateway.client(cipher="AES-256-CBC", digest="SHA1")
    client.send(udp(client.address, TARGET), packet_id=0xFEF)
    assert gateway.delivered()
    assert gateway.events() == []
    client.send(udp(client.address, TARGET), packet_id=0xFF0)
    assert gateway.event(RekeyNeeded) == RekeyNeeded(1, 0)


@pytest.mark.parametrize("data_v1", [False, True], ids=["P_DATA_V2", "P_DATA_V1"])
def test_framing_pings_and_notices_are_inside(gateway: Gateway, data_v1: bool) -> None:
    client = gateway.client(
        cipher="AES-128-CBC", digest="SHA512", data_v1=data_v1, framing=Framing.COMP_LZO, ping_interval_s=1
    )
    packet = udp(client.address, TARGET, bytes(1400))
    client.send(b"\xfa" + packet)
    assert gateway.delivered() == packet
    with gateway.dropping(compressed=1):
        client.send(b"\x66" + packet)
    client.send(b"\xfa" + PING)
    client.send(b"\xfa" + OCC_EXIT)
    assert gateway.event(PeerExit) == PeerExit(client.peer_id)
    assert client.receive().payload == b"\xfa" + PING
    gateway.inject(udp(TARGET, client.address, bytes(1400)))
    assert client.receive().payload == b"\xfa" + udp(TARGET, client.address, bytes(1400))


def test_a_stream_carries_the_longest_packet_and_ends_with_a_forged_one(gateway: Gateway) -> None:
    client = gateway.client(cipher="AES-256-CBC", digest="SHA512", connect=False)
    ours, theirs = socket.socketpair()
    gateway.plane.attach_tcp(client.peer_id, theirs.detach(), b"")
    with ours:
        ours.settimeout(5)
        packet = udp(client.address, TARGET, bytes(2048 - 28))
        sealed = client.seal(packet)
        assert len(sealed) <= LINK_PACKET_MAX
        ours.sendall(len(sealed).to_bytes(2, "big") + sealed)
        assert gateway.delivered() == packet
        gateway.inject(udp(TARGET, client.address, bytes(1400)))
        answer = ours.recv(4096)
        assert int.from_bytes(answer[:2], "big") == len(answer) - 2
        assert client.keys[0].open(answer[2:]).payload == udp(TARGET, client.address, bytes(1400))
        forged = client.seal(packet)
        forged = forged[:-1] + bytes([forged[-1] ^ 1])
        with gateway.dropping(auth_failed=1):
            ours.sendall(len(forged).to_bytes(2, "big") + forged)
        assert ours.recv(10) == b""


def test_other_clients_keep_their_formats_beside_it(gateway: Gateway, client: Client) -> None:
    aead = gateway.client(2, ("10.100.0.3",))
    epoch = gateway.client(3, ("10.100.0.4",), epoch=True)
    everybody = (client, aead, epoch)
    for number in range(60):
        for each in everybody:
            gateway.inject(udp(TARGET, each.address, bytes([number]) * 700))
    for each in everybody:
        assert [each.receive().payload[-1] for _ in range(60)] == list(range(60))
        each.send(udp(each.address, TARGET))
        assert gateway.delivered() == udp(each.address, TARGET)


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "MD5"},
        {"digest": "sha256"},
        {"cipher": "BF-CBC"},
        {"cipher": "AES-256-GCM"},
        {"epoch": True},
        {"open_key": bytes(16)},
        {"seal_key": bytes(33)},
        {"open_iv": bytes(8)},
        {"seal_iv": bytes(64)},
        {"digest": "SHA512"},
        {"digest": ""},
    ],
    ids=str,
)
def test_keys_that_cannot_be_are_refused(gateway: Gateway, client: Client, changes: dict[str, object]) -> None:
    key, hmac_key = bytes(range(32)), bytes(range(32, 64))
    right = {
        "cipher": "AES-256-CBC", "open_key": key, "open_iv": hmac_key, "seal_key": key, "seal_iv": hmac_key,
        "digest": "SHA256",
    }  # fmt: skip
    with pytest.raises(ValueError):
        gateway.plane.install_key(client.peer_id, 2, DataKeys(**{**right, **changes}))  # type: ignore[arg-type]
    gateway.plane.install_key(client.peer_id, 2, DataKeys(**right))  # type: ignore[arg-type]
    packet = udp(client.address, TARGET)
    client.send_raw(seal_cbc((key, hmac_key), "SHA256", header(1, 2), 1, packet))
    assert gateway.delivered() == packet


def test_a_flood_of_forgeries_is_dropped_and_the_rest_passes(gateway: Gateway, client: Client) -> None:
    forged = client.seal(udp(client.address, TARGET, bytes(1300)))
    forged = forged[:4] + bytes(32) + forged[36:]
    for _ in range(300):
        client.send_raw(forged)
    packet = udp(client.address, TARGET)
    client.send(packet)
    assert gateway.delivered() == packet
    assert wait_for(lambda: gateway.drops().total() == 300)
    assert set(gateway.drops()) == {"auth_failed"}
