"""Data packets in plain Python: P_DATA_V2 with an AEAD cipher (openvpn-wire.md section 11.1)."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from cvpnd.wire.key_material import DataChannelKeys
from cvpnd.wire.packet import Opcode

PING = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")
OCC_EXIT = bytes.fromhex("287f346bd4ef7a812d56b8d3afc5459c") + b"\x06"
_HEADER_BYTES = 8
_TAG_BYTES = 16


def is_data(packet: bytes) -> bool:
    return len(packet) > 0 and packet[0] >> 3 in (Opcode.DATA_V1, Opcode.DATA_V2)


class DataKey:
    """One key slot. It checks authenticity but keeps no replay window: it measures, it guards nothing."""

    __slots__ = ("_open", "_open_iv", "_packet_id", "_prefix", "_seal", "_seal_iv", "key_id")

    def __init__(self, key_id: int, peer_id: int, keys: DataChannelKeys) -> None:
        make = ChaCha20Poly1305 if keys.cipher == "CHACHA20-POLY1305" else AESGCM
        self.key_id = key_id
        self._open = make(keys.open_key)
        self._open_iv = keys.open_iv
        self._seal = make(keys.seal_key)
        self._seal_iv = keys.seal_iv
        self._prefix = (Opcode.DATA_V2 << 27 | key_id << 24 | peer_id).to_bytes(4, "big")
        self._packet_id = 0

    def seal(self, plaintext: bytes) -> bytes:
        self._packet_id += 1
        packet_id = self._packet_id.to_bytes(4, "big")
        header = self._prefix + packet_id
        sealed = self._seal.encrypt(packet_id + self._seal_iv, plaintext, header)
        return header + sealed[-_TAG_BYTES:] + sealed[:-_TAG_BYTES]

    def open(self, packet: bytes) -> bytes | None:
        """The plaintext, or None for what is not authentic."""
        if len(packet) < _HEADER_BYTES + _TAG_BYTES + 1:
            return None
        header, rest = packet[:_HEADER_BYTES], packet[_HEADER_BYTES:]
        try:
            return self._open.decrypt(header[4:] + self._open_iv, rest[_TAG_BYTES:] + rest[:_TAG_BYTES], header)
        except InvalidTag:
            return None
