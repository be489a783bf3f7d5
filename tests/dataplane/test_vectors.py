"""Real packets and known answers: the test vectors V-7 and V-9 to V-13 of openvpn-wire.md section 22.

V-9 was captured from OpenVPN 2.6.14 with the keys of V-7 (TLS exporter), V-10 from a client with ChaCha20-Poly1305;
V-11 also stands in OpenVPN's own unit tests (test_ssl.c); V-12 was captured from a build of its master."""

from ipaddress import ip_address

import pytest
from helpers.packets import epoch_expand, epoch_secret, header, open_cbc, seal, seal_cbc, seal_epoch
from helpers.plane import Gateway
from helpers.wire_vectors import V13_HMAC_KEY, V13_KEY, V13_PACKET

from cvpnd.dataplane.api import DataKeys, Drop, KeyUsed, PeerSettings
from cvpnd.dataplane.native import NativeDataPlane

V9_PACKET = bytes.fromhex("480000000000000201b13cc0239f3bd6afc6af9d04d0023d88b78916a4124c686b007c69736b45a6")
V9_KEY = bytes.fromhex("f70a3b63522a3d53f3a41fb879154317f542742d933719cd973b01891d49d540")
V9_IV = bytes.fromhex("1b2dd8ec6aa439e1")
V10_PACKET = bytes.fromhex("4800000000000002fe95ac62163d7c666ca051af10758c620164c38a0e237969ff7181bed80ae857")
V10_KEY = bytes.fromhex("5a26d1f28f9d4c7039c89cfc37a11899138f41b21d6a9b5c2ec2afd5a9827cc1")
V10_IV = bytes.fromhex("2bf69205ddc5306c")
V11_KEY2 = bytes(b"abcdefgh01234567ABCDEFGHjkuchenl"[at % 32] ^ at & 0xFF for at in range(256))
V11_PLAINTEXT = b"The quick little fox jumps over the bureaucratic hurdles"
V11_PACKET = bytes.fromhex(
    "07000017000000011fdd908f0e9dc25e79d832020d58e73f2262f977d6bb2118"
    "fa0ea82e6b1706d949aefcb5efcbbacd5c09a9ab45f4d391d3f68794cb0b82c3"
    "d33389b61622b3281598e2ff6d5cc38b"
)
PING = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")


def install(gateway: Gateway, peer_id: int, key_id: int, cipher: str, open_key: bytes, open_iv: bytes) -> None:
    """As the second key: its first authentic packet is told."""
    gateway.plane.add_peer(peer_id, PeerSettings(1, (ip_address("10.100.0.2"),), 1, 0, 0))
    gateway.plane.install_key(peer_id, 6, DataKeys("AES-128-GCM", bytes(16), bytes(8), bytes(16), bytes(8)))
    gateway.plane.install_key(peer_id, key_id, DataKeys(cipher, open_key, open_iv, bytes(len(open_key)), bytes(8)))


@pytest.mark.parametrize(
    ("cipher", "key", "implicit_iv", "packet"),
    [
        pytest.param("AES-256-GCM", V9_KEY, V9_IV, V9_PACKET, id="V-9"),
        pytest.param("CHACHA20-POLY1305", V10_KEY, V10_IV, V10_PACKET, id="V-10"),
    ],
)
def test_a_real_clients_ping_is_opened(
    gateway: Gateway, cipher: str, key: bytes, implicit_iv: bytes, packet: bytes
) -> None:
    install(gateway, 0, 0, cipher, key, implicit_iv)
    sender = gateway.client(5, ("10.100.0.9",))
    sender.send_raw(packet)
    assert gateway.event(KeyUsed) == KeyUsed(0, 0)
    assert gateway.barrier() == []
    assert gateway.drops() == {}
    with gateway.dropping(replayed=1):
        sender.send_raw(packet)


@pytest.mark.parametrize("changed", [2, 5, 8, 30])
def test_a_real_clients_ping_with_one_bit_changed_is_not(gateway: Gateway, changed: int) -> None:
    install(gateway, 0, 0, "AES-256-GCM", V9_KEY, V9_IV)
    sender = gateway.client(5, ("10.100.0.9",))
    damaged = bytearray(V9_PACKET)
    damaged[changed] ^= 0x10
    with gateway.dropping(**{Drop.UNKNOWN_PEER if changed == 2 else Drop.AUTH_FAILED: 1}):
        sender.send_raw(bytes(damaged))
    assert gateway.events() == []


def test_the_builders_of_these_tests_make_the_known_answers() -> None:
    """So that whatever the planes and the builders agree on is right."""
    for cipher, key, implicit_iv, packet, plaintext in (
        ("AES-256-GCM", V9_KEY, V9_IV, V9_PACKET, PING),
        ("CHACHA20-POLY1305", V10_KEY, V10_IV, V10_PACKET, PING),
        ("AES-256-GCM", V11_KEY2[:32], V11_KEY2[64:72], V11_PACKET, V11_PLAINTEXT),
    ):
        packet_id = int.from_bytes(packet[4:8], "big")
        assert seal(cipher, key, implicit_iv, packet[:4], packet_id, plaintext) == packet


def test_the_known_answer_under_our_header_is_opened(gateway: Gateway) -> None:
    """V-11's own header has no opcode of the data channel; its key, nonce and ciphertext are what counts."""
    install(gateway, 0x17, 7, "AES-256-GCM", V11_KEY2[:32], V11_KEY2[64:72])
    sender = gateway.client(5, ("10.100.0.9",))
    with gateway.dropping(bad_opcode=1):
        sender.send_raw(V11_PACKET)
    packet = seal("AES-256-GCM", V11_KEY2[:32], V11_KEY2[64:72], header(0x17, 7), 1, V11_PLAINTEXT)
    assert packet[24:] == V11_PACKET[24:]
    with gateway.dropping(not_ip=1):  # authentic, but only text
        sender.send_raw(packet)
    assert gateway.event(KeyUsed) == KeyUsed(0x17, 7)


V11_E4 = bytes.fromhex("10f7f2bf8543e6492f6915fa82457fae6144709679d5dfbd219c495f75e717b5")
V11_E4_KEY = bytes.fromhex("137f8871a9f6a8b1688128ac5e82f2d87d611e4b3aab98180bb9fcdd9e2a223b")
V11_E4_IV = bytes.fromhex("b2e7dce36da8d32f22b97da8")
V11_EPOCH_PACKET = bytes.fromhex(
    "0700001700040000000000016eacea349ca836aab4d49ce685399a9bab964526"
    "e9cd11ece8cb7d77bdbc5c6ac4f49f36ea02e9c1f5d97644afa9118ba9f9a892"
    "623f1a130ffff5913d39d75b18573b5748589a7d"
)
V12_E1 = bytes.fromhex("8c7a96cc62909c5d4bb2d2bcce22cccee5003e0baacbd0612c4d1427962f26d8")
V12_E2 = bytes.fromhex("0a4dd21793b89ff8775920cd7cb50a512f9c5cb3ab0cdee05229ec56d7613943")
V12_PACKET = bytes.fromhex("4877f71e00010000000000019a07f4891ccc1afecd0ba4d0ca3e488e97bdae716a2b661d5edde0ec19b17d9f")


def test_the_builders_make_the_known_answers_of_the_epoch_format() -> None:
    assert epoch_secret(V11_KEY2[:32], 4) == V11_E4
    assert epoch_expand(V11_E4, "data_key", 32) == V11_E4_KEY
    assert epoch_expand(V11_E4, "data_iv", 12) == V11_E4_IV
    packet = seal_epoch("AES-256-GCM", V11_KEY2[:32], V11_EPOCH_PACKET[:4], 4, 1, V11_PLAINTEXT)
    assert packet == V11_EPOCH_PACKET
    assert epoch_secret(V12_E1, 2) == V12_E2
    assert seal_epoch("AES-256-GCM", V12_E1, V12_PACKET[:4], 1, 1, PING) == V12_PACKET


def test_a_real_epoch_packet_is_opened_and_made(gateway: Gateway) -> None:
    """V-12, a server's packet, taken as a client's; and the same bytes again as ours."""
    peer_id = int.from_bytes(V12_PACKET[1:4], "big")
    gateway.plane.add_peer(peer_id, PeerSettings(1, (ip_address("10.100.0.2"),), 1, 1, 0))
    gateway.plane.install_key(peer_id, 6, DataKeys("AES-128-GCM", bytes(16), bytes(8), bytes(16), bytes(8)))
    gateway.plane.install_key(peer_id, 0, DataKeys("AES-256-GCM", V12_E1, b"", V12_E1, b"", epoch=True))
    sender = gateway.client(5, ("10.100.0.9",))
    gateway.plane.set_remote(peer_id, 1, sender.own_address(), "")
    sender.send_raw(V12_PACKET)
    assert gateway.event(KeyUsed) == KeyUsed(peer_id, 0)
    assert gateway.barrier() == []
    assert gateway.drops() == {}
    with gateway.dropping(replayed=1):
        sender.send_raw(V12_PACKET)
    datagram, _ = sender.receive_raw()  # the first ping to an idle peer is that very packet
    assert datagram == V12_PACKET


def test_the_known_answer_of_epoch_four_is_opened_under_our_header(gateway: Gateway) -> None:
    peer_id, key_id = 0x17, 7
    gateway.plane.add_peer(peer_id, PeerSettings(1, (ip_address("10.100.0.2"),), 1, 0, 0))
    keys = DataKeys("AES-256-GCM", V11_KEY2[:32], b"", bytes(32), b"", epoch=True)
    gateway.plane.install_key(peer_id, key_id, keys)
    packet = seal_epoch("AES-256-GCM", V11_KEY2[:32], header(peer_id, key_id), 4, 1, V11_PLAINTEXT)
    assert packet[12:-16] == V11_EPOCH_PACKET[12:-16]
    with gateway.dropping(not_ip=1):
        gateway.client(5, ("10.100.0.9",)).send_raw(packet)


V13_KEYS = DataKeys("AES-256-CBC", V13_KEY, V13_HMAC_KEY, V13_KEY, V13_HMAC_KEY, digest="SHA256")


def test_a_real_cbc_packet_is_opened_and_made(gateway: Gateway) -> None:
    """V-13, a server's ping: what the builders make, what the planes open as a client's and, with another IV, make."""
    keys = (V13_KEY, V13_HMAC_KEY)
    assert seal_cbc(keys, "SHA256", V13_PACKET[:4], 1, PING, iv=V13_PACKET[36:52]) == V13_PACKET
    gateway.plane.add_peer(0, PeerSettings(1, (ip_address("10.100.0.2"),), 1, 1, 0))
    gateway.plane.install_key(0, 6, DataKeys("AES-128-GCM", bytes(16), bytes(8), bytes(16), bytes(8)))
    gateway.plane.install_key(0, 0, V13_KEYS)
    sender = gateway.client(5, ("10.100.0.9",))
    gateway.plane.set_remote(0, 1, sender.own_address(), "")
    sender.send_raw(V13_PACKET)
    assert gateway.event(KeyUsed) == KeyUsed(0, 0)
    assert gateway.barrier() == []
    assert gateway.drops() == {}
    with gateway.dropping(replayed=1):
        sender.send_raw(V13_PACKET)
    ours, _ = sender.receive_raw()  # the first ping to an idle peer
    assert (len(ours), ours[:4]) == (len(V13_PACKET), V13_PACKET[:4])
    assert open_cbc(keys, "SHA256", 4, ours) == (1, PING)


@pytest.mark.parametrize("changed", [4, 35, 36, 51, 52, 67, 68, 83])
def test_a_real_cbc_packet_with_one_bit_changed_is_not(gateway: Gateway, changed: int) -> None:
    gateway.plane.add_peer(0, PeerSettings(1, (ip_address("10.100.0.2"),), 1, 0, 0))
    gateway.plane.install_key(0, 0, V13_KEYS)
    damaged = bytearray(V13_PACKET)
    damaged[changed] ^= 0x10
    with gateway.dropping(auth_failed=1):
        gateway.client(5, ("10.100.0.9",)).send_raw(bytes(damaged))
    assert gateway.events() == []


def test_crypto_can_be_chosen_and_says_what_it_is() -> None:
    for crypto in ("auto", "openssl"):
        plane = NativeDataPlane(1, crypto=crypto)
        assert "OpenSSL" in plane.crypto_backend or crypto == "auto"
        plane.close()
    with pytest.raises(ValueError, match="rot13"):
        NativeDataPlane(1, crypto="rot13")
