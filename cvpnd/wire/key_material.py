"""From a finished key exchange to the data channel's keys (openvpn-wire.md section 10).

Two ways lead to the same 256 bytes ("key2"): the TLS exporter, for clients that say they can, and the TLS 1.0 PRF
over the random numbers of both key method 2 messages, for the others.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import NamedTuple

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.key_method import KeySource
from cvpnd.wire.tls import TlsConnection

KEY2_BYTES = 256
EXPORTER_LABEL = "EXPORTER-OpenVPN-datakeys"
_MASTER_BYTES = 48
_HALF_BYTES = 128
_HMAC_OFFSET = 64
_IMPLICIT_IV_BYTES = 8
EPOCH_SECRET_BYTES = 32


class AeadCipher(NamedTuple):
    key_bytes: int


AEAD_CIPHERS = {
    "AES-128-GCM": AeadCipher(16),
    "AES-192-GCM": AeadCipher(24),
    "AES-256-GCM": AeadCipher(32),
    "CHACHA20-POLY1305": AeadCipher(32),
}


CBC_CIPHERS = {"AES-128-CBC": 16, "AES-192-CBC": 24, "AES-256-CBC": 32}
"""Key bytes. For old clients, where the operator says so (openvpn-wire.md 11.2)."""
CBC_BLOCK_BYTES = 16
CBC_DIGESTS = {"SHA1": 20, "SHA256": 32, "SHA384": 48, "SHA512": 64}
"""Of the HMAC that goes with them: as many bytes as its result are its key."""


@dataclass(frozen=True, slots=True)
class DataChannelKeys:
    """One key id's data keys as this side uses them: ``open`` what the peer sealed, ``seal`` what we send.

    ``epoch``: the keys are the secrets of epoch 1 (openvpn-wire.md 10.3), and there are no IVs. ``digest``: of the HMAC
    beside a CBC cipher, whose keys then stand in place of the IVs."""

    cipher: str
    open_key: bytes
    open_iv: bytes
    seal_key: bytes
    seal_iv: bytes
    epoch: bool = False
    digest: str = ""

    def __repr__(self) -> str:
        return f"DataChannelKeys({self.cipher}, …)"


def export_key2(tls: TlsConnection) -> bytearray:
    """By the exporter of the TLS connection of the same key id."""
    return bytearray(tls.export(EXPORTER_LABEL, KEY2_BYTES))


def prf_key2(client: KeySource, server: KeySource, client_session_id: bytes, server_session_id: bytes) -> bytearray:
    """By the TLS 1.0 PRF. Written out here because FIPS builds of OpenSSL have no MD5 in their KDF."""
    master = tls1_prf(client.pre_master, b"OpenVPN master secret" + client.random1 + server.random1, _MASTER_BYTES)
    seed = b"OpenVPN key expansion" + client.random2 + server.random2 + client_session_id + server_session_id
    key2 = tls1_prf(master, seed, KEY2_BYTES)
    _wipe(master)
    return key2


def tls1_prf(secret: bytes | bytearray, seed: bytes | bytearray, length: int) -> bytearray:
    """P_MD5 of the secret's first half XOR P_SHA1 of its second (RFC 2246 section 5)."""
    half = (len(secret) + 1) // 2
    md5 = _p_hash("md5", bytes(secret[:half]), bytes(seed), length)
    sha1 = _p_hash("sha1", bytes(secret[len(secret) - half :]), bytes(seed), length)
    return bytearray(a ^ b for a, b in zip(md5, sha1, strict=True))


def _p_hash(digest: str, secret: bytes, seed: bytes, length: int) -> bytes:
    output = b""
    a = seed
    while len(output) < length:
        a = hmac.digest(secret, a, digest)
        output += hmac.digest(secret, a + seed, digest)
    return output[:length]


def data_channel_keys(
    key2: bytearray, cipher: str, *, server: bool, epoch: bool = False, digest: str = ""
) -> DataChannelKeys:
    """Cut the keys out of ``key2`` and wipe it. The client sends with the first half, the server with the second.
    ``digest``: with a CBC cipher, and only then.

    Raises ``PeerError`` for an all-zero key, which only a broken or hostile exchange can yield."""
    if digest:
        key_bytes, iv_bytes = CBC_CIPHERS[cipher], CBC_DIGESTS[digest]
    elif epoch:
        key_bytes, iv_bytes = EPOCH_SECRET_BYTES, 0
    else:
        key_bytes, iv_bytes = AEAD_CIPHERS[cipher].key_bytes, _IMPLICIT_IV_BYTES
    pieces = []
    for half in (0, _HALF_BYTES):
        key = bytes(key2[half : half + key_bytes])
        if not any(key):
            raise PeerError(DropReason.BAD_KEY_METHOD, "the derived key is zero")
        pieces.append((key, bytes(key2[half + _HMAC_OFFSET : half + _HMAC_OFFSET + iv_bytes])))
    _wipe(key2)
    (client_key, client_iv), (server_key, server_iv) = pieces
    if server:
        return DataChannelKeys(cipher, client_key, client_iv, server_key, server_iv, epoch, digest)
    return DataChannelKeys(cipher, server_key, server_iv, client_key, client_iv, epoch, digest)


def _wipe(secret: bytearray) -> None:
    secret[:] = bytes(len(secret))
