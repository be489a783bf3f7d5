"""Data keys, against captured sessions of real programs."""

from __future__ import annotations

import hmac

import pytest
from helpers import wire_vectors as v
from helpers.key_schedule import tls13_exporter
from light_client.data_channel import PING, DataKey

from cvpnd.wire.errors import PeerError
from cvpnd.wire.key_material import (
    AEAD_CIPHERS,
    CBC_CIPHERS,
    CBC_DIGESTS,
    DataChannelKeys,
    data_channel_keys,
    prf_key2,
    tls1_prf,
)
from cvpnd.wire.key_method import KeySource


def test_prf_master_and_key2_of_a_real_session() -> None:
    """V-6, step by step; the server's log showed the same keys."""
    seed = b"OpenVPN master secret" + v.V6_CLIENT_RANDOM1 + v.V6_SERVER_RANDOM1
    assert tls1_prf(v.V6_PRE_MASTER, seed, 48) == v.V6_MASTER
    client = KeySource(v.V6_PRE_MASTER, v.V6_CLIENT_RANDOM1, v.V6_CLIENT_RANDOM2)
    server = KeySource(b"", v.V6_SERVER_RANDOM1, v.V6_SERVER_RANDOM2)
    assert prf_key2(client, server, v.V6_CLIENT_SID, v.V6_SERVER_SID) == v.V6_KEY2


def test_server_and_client_cut_the_same_key2_into_opposite_directions() -> None:
    server = data_channel_keys(bytearray(v.V6_KEY2), "AES-256-GCM", server=True)
    client = data_channel_keys(bytearray(v.V6_KEY2), "AES-256-GCM", server=False)
    assert server.open_key.hex() == "29ec6cc93f8fa5553de078701cecee674188e1db7724b70e7775d0ad45491a70"
    assert server.open_iv.hex() == "403b6da8db365a39"
    assert server.seal_key.hex() == "c70deaa5d8238e5cf924670fa8dab5946927d477492338d73a61e7c2554f1b10"
    assert server.seal_iv.hex() == "2905858d8d2421f2"
    assert (client.seal_key, client.seal_iv, client.open_key, client.open_iv) == (
        server.open_key, server.open_iv, server.seal_key, server.seal_iv,
    )  # fmt: skip


def test_exporter_keys_of_tls_1_3_open_a_real_clients_ping() -> None:
    """V-7 rebuilt from the exporter secret (RFC 8446 section 7.5), then V-9 with it."""
    key2 = tls13_exporter(v.V7_EXPORTER_SECRET, "EXPORTER-OpenVPN-datakeys", 256)
    assert key2 == v.V7_KEY2
    keys = data_channel_keys(bytearray(key2), "AES-256-GCM", server=True)
    assert DataKey(0, 0, keys).open(v.V9_PACKET) == PING


def test_exporter_keys_of_tls_1_2() -> None:
    """V-8: P_SHA384 over the master secret (RFC 5705 without a context)."""
    seed = b"EXPORTER-OpenVPN-datakeys" + v.V8_CLIENT_RANDOM + v.V8_SERVER_RANDOM
    output, a = b"", seed
    while len(output) < 256:
        a = hmac.digest(v.V8_MASTER, a, "sha384")
        output += hmac.digest(v.V8_MASTER, a + seed, "sha384")
    assert output[:256] == v.V8_KEY2


def test_chacha20_ping_of_a_real_client_opens() -> None:
    keys = DataChannelKeys("CHACHA20-POLY1305", v.V10_KEY, v.V10_IV, bytes(32), bytes(8))
    assert DataKey(0, 0, keys).open(v.V10_PACKET) == PING
    damaged = v.V10_PACKET[:-1] + bytes((v.V10_PACKET[-1] ^ 1,))
    assert DataKey(0, 0, keys).open(damaged) is None


def test_cbc_ping_of_a_real_server_opens() -> None:
    keys = DataChannelKeys("AES-256-CBC", v.V13_KEY, v.V13_HMAC_KEY, bytes(32), bytes(32), digest="SHA256")
    assert DataKey(0, 0, keys).open(v.V13_PACKET) == PING
    damaged = v.V13_PACKET[:-1] + bytes((v.V13_PACKET[-1] ^ 1,))
    assert DataKey(0, 0, keys).open(damaged) is None


@pytest.mark.parametrize("digest", CBC_DIGESTS)
@pytest.mark.parametrize("cipher", CBC_CIPHERS)
def test_cbc_takes_the_hmacs_key_from_behind_the_ciphers(cipher: str, digest: str) -> None:
    server = data_channel_keys(bytearray(v.V6_KEY2), cipher, server=True, digest=digest)
    client = data_channel_keys(bytearray(v.V6_KEY2), cipher, server=False, digest=digest)
    key, hmac_key = CBC_CIPHERS[cipher], CBC_DIGESTS[digest]
    assert (server.open_key, server.open_iv) == (v.V6_KEY2[:key], v.V6_KEY2[64 : 64 + hmac_key])
    assert (server.seal_key, server.seal_iv) == (v.V6_KEY2[128 : 128 + key], v.V6_KEY2[192 : 192 + hmac_key])
    assert (client.seal_key, client.seal_iv) == (server.open_key, server.open_iv)
    packet = DataKey(3, 7, server).seal(b"payload")
    assert DataKey(3, 7, client).open(packet) == b"payload"
    assert DataKey(3, 7, server).open(packet) is None, "not reflected"
    zero = bytearray(v.V6_KEY2)
    zero[128:160] = bytes(32)
    with pytest.raises(PeerError):
        data_channel_keys(zero, cipher, server=True, digest=digest)


@pytest.mark.parametrize("cipher", AEAD_CIPHERS)
def test_epochs_begin_with_secrets_of_one_length_whatever_the_cipher_and_without_an_iv(cipher: str) -> None:
    keys = data_channel_keys(bytearray(v.V6_KEY2), cipher, server=True, epoch=True)
    assert (keys.open_key, keys.seal_key) == (v.V6_KEY2[:32], v.V6_KEY2[128:160])
    assert keys.open_iv == keys.seal_iv == b""


@pytest.mark.parametrize("cipher", AEAD_CIPHERS)
def test_what_one_side_seals_the_other_opens(cipher: str) -> None:
    server = DataKey(3, 7, data_channel_keys(bytearray(v.V6_KEY2), cipher, server=True))
    client = DataKey(3, 7, data_channel_keys(bytearray(v.V6_KEY2), cipher, server=False))
    for number in range(1, 4):
        packet = server.seal(b"payload")
        assert packet[:8] == b"\x4b\x00\x00\x07" + number.to_bytes(4, "big")
        assert client.open(packet) == b"payload"
        assert server.open(packet) is None, "not reflected"


def test_key2_is_wiped_and_keys_do_not_show() -> None:
    key2 = bytearray(v.V6_KEY2)
    keys = data_channel_keys(key2, "AES-128-GCM", server=True)
    assert not any(key2)
    assert keys.open_key.hex() not in repr(keys)
    assert repr(keys) == "DataChannelKeys(AES-128-GCM, …)"


@pytest.mark.parametrize("half", [0, 128])
def test_zero_key_is_refused(half: int) -> None:
    key2 = bytearray(v.V6_KEY2)
    key2[half : half + 32] = bytes(32)
    with pytest.raises(PeerError):
        data_channel_keys(key2, "AES-256-GCM", server=True)
