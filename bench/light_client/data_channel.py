"""Data packets in plain Python, as a client makes and reads them: P_DATA_V2, P_DATA_V1, CBC and the epoch format, with
and without compression framing (openvpn-wire.md 11.1 to 11.3, 11.8)."""

from __future__ import annotations

import hmac
import os
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.padding import PKCS7

from cvpnd.wire.key_material import AEAD_CIPHERS, CBC_BLOCK_BYTES, CBC_DIGESTS, DataChannelKeys
from cvpnd.wire.packet import Opcode, is_data

__all__ = ["OCC_EXIT", "OCC_MAGIC", "PING", "UNCOMPRESSED", "DataKey", "is_data"]

PING = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")
OCC_MAGIC = bytes.fromhex("287f346bd4ef7a812d56b8d3afc5459c")
OCC_EXIT = OCC_MAGIC + b"\x06"
UNCOMPRESSED = b"\xfa"
"""In front of every payload, under ``comp-lzo no``."""
_TAG_BYTES = 16
_EPOCH_ID_BYTES = 8


def _aead(cipher: str, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if cipher == "CHACHA20-POLY1305" else AESGCM(key)


class _Channel(Protocol):
    """One direction's keys: header in, packet out, and back. ``open`` raises ``InvalidTag``."""

    def seal(self, header: bytes, plaintext: bytes) -> bytes: ...

    def open(self, packet: bytes, header_bytes: int) -> bytes: ...


class _PacketIds:
    """One key in each direction. P_DATA_V1 authenticates no header."""

    def __init__(self, keys: DataChannelKeys) -> None:
        self._open, self._open_iv = _aead(keys.cipher, keys.open_key), keys.open_iv
        self._seal, self._seal_iv = _aead(keys.cipher, keys.seal_key), keys.seal_iv
        self.last = 0

    def seal(self, header: bytes, plaintext: bytes) -> bytes:
        self.last += 1
        packet_id = self.last.to_bytes(4, "big")
        ad = header + packet_id if len(header) > 1 else packet_id
        sealed = self._seal.encrypt(packet_id + self._seal_iv, plaintext, ad)
        return header + packet_id + sealed[-_TAG_BYTES:] + sealed[:-_TAG_BYTES]

    def open(self, packet: bytes, header_bytes: int) -> bytes:
        body = packet[header_bytes:]
        if len(body) < 4 + _TAG_BYTES + 1:
            raise InvalidTag
        ad = packet[: header_bytes + 4] if header_bytes > 1 else body[:4]
        return self._open.decrypt(body[:4] + self._open_iv, body[4 + _TAG_BYTES :] + body[4 : 4 + _TAG_BYTES], ad)


class _Cbc:
    """Encrypted, then authenticated, with an IV of its own in each packet; the packet id is inside."""

    def __init__(self, keys: DataChannelKeys) -> None:
        self._keys = keys
        self._hmac_bytes = CBC_DIGESTS[keys.digest]
        self._padding = PKCS7(8 * CBC_BLOCK_BYTES)
        self.last = 0

    def seal(self, header: bytes, plaintext: bytes) -> bytes:
        self.last += 1
        padder, iv = self._padding.padder(), os.urandom(CBC_BLOCK_BYTES)
        text = padder.update(self.last.to_bytes(4, "big") + plaintext) + padder.finalize()
        covered = iv + Cipher(AES(self._keys.seal_key), CBC(iv)).encryptor().update(text)
        return header + hmac.digest(self._keys.seal_iv, covered, self._keys.digest) + covered

    def open(self, packet: bytes, header_bytes: int) -> bytes:
        covered = packet[header_bytes + self._hmac_bytes :]
        right = hmac.digest(self._keys.open_iv, covered, self._keys.digest)
        if not hmac.compare_digest(packet[header_bytes : header_bytes + self._hmac_bytes], right):
            raise InvalidTag
        iv, text = covered[:CBC_BLOCK_BYTES], covered[CBC_BLOCK_BYTES:]
        unpadder = self._padding.unpadder()
        decrypted = Cipher(AES(self._keys.open_key), CBC(iv)).decryptor().update(text)
        return (unpadder.update(decrypted) + unpadder.finalize())[4:]


class _Epochs:
    """A key for each epoch, from 1 on. It moves on after so many packets, if told, and follows the peer in any case."""

    def __init__(self, keys: DataChannelKeys, packets_per_epoch: int) -> None:
        self._cipher = keys.cipher
        self._packets_per_epoch = packets_per_epoch
        self._open_secrets = {1: keys.open_key}
        self._seal_secrets = {1: keys.seal_key}
        self.sending = 1
        self._counter = 0

    @staticmethod
    def _expand(secret: bytes, label: str, length: int) -> bytes:
        name = b"ovpn " + label.encode()
        info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
        return HKDFExpand(SHA256(), length, info).derive(secret)

    def _key(self, secrets: dict[int, bytes], epoch_id: bytes) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
        """The epoch's key and this packet's nonce."""
        epoch = int.from_bytes(epoch_id[:2], "big")
        for at in range(max(secrets) + 1, epoch + 1):
            secrets[at] = self._expand(secrets[at - 1], "datakey upd", 32)
        if epoch not in secrets:
            raise InvalidTag
        key = self._expand(secrets[epoch], "data_key", AEAD_CIPHERS[self._cipher].key_bytes)
        iv = self._expand(secrets[epoch], "data_iv", 12)
        return _aead(self._cipher, key), bytes(a ^ b for a, b in zip(iv, epoch_id + bytes(4), strict=True))

    def _move_to(self, epoch: int) -> None:
        if epoch > self.sending:
            self.sending, self._counter = epoch, 0

    def seal(self, header: bytes, plaintext: bytes) -> bytes:
        if self._packets_per_epoch and self._counter >= self._packets_per_epoch:
            self._move_to(self.sending + 1)
        self._counter += 1
        ad = header + self.sending.to_bytes(2, "big") + self._counter.to_bytes(6, "big")
        aead, nonce = self._key(self._seal_secrets, ad[len(header) :])
        return ad + aead.encrypt(nonce, plaintext, ad)

    def open(self, packet: bytes, header_bytes: int) -> bytes:
        ad = packet[: header_bytes + _EPOCH_ID_BYTES]
        if len(packet) < len(ad) + _TAG_BYTES + 1:
            raise InvalidTag
        aead, nonce = self._key(self._open_secrets, ad[header_bytes:])
        plaintext = aead.decrypt(nonce, packet[len(ad) :], ad)
        self._move_to(int.from_bytes(ad[header_bytes : header_bytes + 2], "big"))
        return plaintext


class DataKey:
    """One key slot. It checks authenticity but keeps no replay window: it measures, it guards nothing."""

    __slots__ = ("_channel", "_framing", "_header", "_own_peer_id", "key_id")

    def __init__(
        self,
        key_id: int,
        peer_id: int | None,
        keys: DataChannelKeys,
        *,
        own_peer_id: int | None = None,
        framing: bytes = b"",
        packets_per_epoch: int = 0,
    ) -> None:
        """``peer_id``: what the server wants to see; None: P_DATA_V1. ``own_peer_id``: what packets to us must have;
        None: not looked at. ``framing``: in front of every payload. ``packets_per_epoch`` 0: as many as the server."""
        self.key_id = key_id
        self._own_peer_id = own_peer_id
        self._framing = framing
        self._channel: _Channel
        if keys.epoch:
            self._channel = _Epochs(keys, packets_per_epoch)
        else:
            self._channel = _Cbc(keys) if keys.digest else _PacketIds(keys)
        self._header = bytes([Opcode.DATA_V1 << 3 | key_id])
        if peer_id is not None:
            self._header = (Opcode.DATA_V2 << 27 | key_id << 24 | peer_id).to_bytes(4, "big")

    @property
    def epoch(self) -> int:
        """The one it sends in; 0 if there are none."""
        return self._channel.sending if isinstance(self._channel, _Epochs) else 0

    def skip_to(self, packet_id: int) -> None:
        """The next packet has the id behind this one: for tests of what happens when ids run out."""
        assert isinstance(self._channel, _PacketIds | _Cbc)
        self._channel.last = packet_id

    def seal(self, plaintext: bytes) -> bytes:
        return self._channel.seal(self._header, self._framing + plaintext)

    def open(self, packet: bytes) -> bytes | None:
        """The plaintext, or None for what is not authentic, not for us, or not framed as it should be."""
        header_bytes = len(self._header)
        if packet[0] >> 3 != self._header[0] >> 3:
            return None
        if self._own_peer_id is not None and packet[1:header_bytes] != self._own_peer_id.to_bytes(3, "big"):
            return None
        try:
            plaintext = self._channel.open(packet, header_bytes)
        except InvalidTag:
            return None
        return plaintext[len(self._framing) :] if plaintext.startswith(self._framing) else None
