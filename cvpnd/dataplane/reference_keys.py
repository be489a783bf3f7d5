"""Keys of the reference data plane: one key slot in each format of the wire (openvpn-wire.md 11.1 to 11.3)."""

from __future__ import annotations

import hmac
import os
import struct
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cvpnd.dataplane.api import DataKeys, Drop

P_DATA_V1, P_DATA_V2 = 6, 9
HEADER, HEADER_V1, PACKET_ID, EPOCH_ID, TAG, IV, NONCE = 4, 1, 4, 8, 16, 8, 12
OVERHEAD = HEADER + PACKET_ID + TAG
OVERHEAD_V1 = HEADER_V1 + PACKET_ID + TAG
EPOCH_OVERHEAD = HEADER + EPOCH_ID + TAG
KEY_SIZES = {"AES-128-GCM": 16, "AES-192-GCM": 24, "AES-256-GCM": 32, "CHACHA20-POLY1305": 32}
CBC_KEY_SIZES = {"AES-128-CBC": 16, "AES-192-CBC": 24, "AES-256-CBC": 32}
CBC_BLOCK = 16
HMAC_SIZES = {"SHA1": 20, "SHA256": 32, "SHA384": 48, "SHA512": 64}
CBC_OVERHEAD_MAX = HEADER + max(HMAC_SIZES.values()) + CBC_BLOCK + PACKET_ID + CBC_BLOCK

REPLAY_WINDOW = 1984
"""Wide enough for the reordering of a fast path; upstream's 64 are not."""
EPOCH_SECRET = 32
FUTURE_EPOCHS = 4
"""How far ahead of us a peer may be."""
COUNTER_MAX = 2**48 - 1


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Usage limits of one key, in either direction (11.4)."""

    packet_id_limit: int = 0xFFFFFFFF  # this id is never sent
    block_limit: int = (2**36 - 1) // 8 * 7  # AES-GCM blocks and packets together: a new key is asked for
    failure_limit: int = 2**36  # failed authentications, after which nothing is opened; a new key at half of it
    epoch_limit: int = 2**36 - 1  # AES-GCM blocks and packets in one epoch, then the next one
    last_epoch: int = 0xFFFF

    @property
    def packet_id_rekey(self) -> int:
        """A 256th before the limit, as 0xFF000000 is before 0xFFFFFFFF."""
        return self.packet_id_limit - self.packet_id_limit // 256 - (self.packet_id_limit < 256)

    @property
    def epoch_rekey(self) -> int:
        """A 16th before the last one, as 0xF000 is before 0xFFFF."""
        return self.last_epoch - self.last_epoch // 16


class ReplayWindow:
    """Which packet ids a key still accepts (11.5): above the highest, or close behind it and not seen before."""

    def __init__(self) -> None:
        self.highest = 0
        self._seen: set[int] = set()

    def accept(self, packet_id: int) -> bool:
        """True, and remembered, for a new id. Asked for authentic packets only."""
        if packet_id == 0 or packet_id <= self.highest - REPLAY_WINDOW or packet_id in self._seen:
            return False
        self._seen.add(packet_id)
        self.highest = max(self.highest, packet_id)
        if len(self._seen) > 2 * REPLAY_WINDOW:
            self._seen = {seen for seen in self._seen if seen > self.highest - REPLAY_WINDOW}
        return True


class KeySlot(Protocol):
    """One key id of a peer. ``generation`` rises with each key installed: the larger is the newer."""

    key_id: int
    generation: int
    failures: int
    rekey_reported: bool

    @property
    def replay(self) -> ReplayWindow:
        """Of the current epoch, where there are epochs."""
        ...

    def open(self, packet: bytes) -> bytes | Drop:
        """The payload, or why there is none. What fails leaves no trace."""
        ...

    def seal(self, peer_id: int | None, payload: bytes) -> bytes | Drop:
        """``peer_id`` None: P_DATA_V1."""
        ...

    def limit_near(self) -> bool:
        """In either direction."""
        ...


def key_sizes(keys: DataKeys) -> tuple[int, int] | None:
    """Of each key, and of what stands in place of each IV. None: there is no such cipher."""
    if keys.digest:
        known = keys.cipher in CBC_KEY_SIZES and keys.digest in HMAC_SIZES and not keys.epoch
        return (CBC_KEY_SIZES[keys.cipher], HMAC_SIZES[keys.digest]) if known else None
    if keys.cipher not in KEY_SIZES:
        return None
    return (EPOCH_SECRET, 0) if keys.epoch else (KEY_SIZES[keys.cipher], IV)


def make_key_slot(key_id: int, keys: DataKeys, generation: int, limits: KeyLimits) -> KeySlot:
    kind = EpochKeySlot if keys.epoch else CbcKeySlot if keys.digest else PacketIdKeySlot
    return kind(key_id, keys, generation, limits)


def make_aead(cipher: str, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if cipher == "CHACHA20-POLY1305" else AESGCM(key)


def blocks(packet: bytes) -> int:
    return (len(packet) + 15) // 16


class PacketIdKeySlot:
    """P_DATA_V2 and P_DATA_V1 with packet ids of 32 bits under one key for good (11.1). The tag travels before the
    ciphertext; that of P_DATA_V1 does not cover the opcode."""

    def __init__(self, key_id: int, keys: DataKeys, generation: int, limits: KeyLimits) -> None:
        self.key_id = key_id
        self.generation = generation
        self.failures = 0
        self.rekey_reported = False
        self._limits = limits
        self._counts_blocks = "GCM" in keys.cipher
        self._opener, self._open_iv = make_aead(keys.cipher, keys.open_key), keys.open_iv
        self._sealer, self._seal_iv = make_aead(keys.cipher, keys.seal_key), keys.seal_iv
        self.replay = ReplayWindow()
        self._last_opened = self._last_sealed = 0
        self._blocks_opened = self._blocks_sealed = 0

    def open(self, packet: bytes) -> bytes | Drop:
        v1 = packet[0] >> 3 == P_DATA_V1
        at = HEADER_V1 if v1 else HEADER
        packet_id, tag, text = packet[at : at + 4], packet[at + 4 : at + 20], packet[at + 20 :]
        try:
            payload = self._opener.decrypt(packet_id + self._open_iv, text + tag, packet_id if v1 else packet[: at + 4])
        except InvalidTag:
            return Drop.AUTH_FAILED
        self._last_opened = int.from_bytes(packet_id, "big")
        self._blocks_opened += blocks(packet)
        return payload if self.replay.accept(self._last_opened) else Drop.REPLAYED

    def seal(self, peer_id: int | None, payload: bytes) -> bytes | Drop:
        if self._last_sealed + 1 >= self._limits.packet_id_limit:
            return Drop.KEY_EXHAUSTED
        self._last_sealed += 1
        packet_id = self._last_sealed.to_bytes(PACKET_ID, "big")
        header, ad = bytes([P_DATA_V1 << 3 | self.key_id]), packet_id
        if peer_id is not None:
            header = data_v2_header(self.key_id, peer_id)
            ad = header + packet_id
        sealed = self._sealer.encrypt(packet_id + self._seal_iv, payload, ad)
        packet = header + packet_id + sealed[-TAG:] + sealed[:-TAG]
        self._blocks_sealed += blocks(packet)
        return packet

    def limit_near(self) -> bool:
        limits = self._limits
        opened = self._blocks_opened + self.replay.highest
        sealed = self._blocks_sealed + self._last_sealed
        return (
            self._last_opened >= limits.packet_id_rekey
            or self._last_sealed >= limits.packet_id_rekey
            or (self._counts_blocks and max(opened, sealed) > limits.block_limit)
        )


def data_v2_header(key_id: int, peer_id: int) -> bytes:
    return struct.pack(">I", P_DATA_V2 << 27 | key_id << 24 | peer_id)


class CbcKeySlot:
    """For clients that have no AEAD cipher (11.2): CBC, and an HMAC over IV and ciphertext. The packet id is encrypted
    with the payload. The header is not covered: whose packet it is, only the HMAC tells."""

    def __init__(self, key_id: int, keys: DataKeys, generation: int, limits: KeyLimits) -> None:
        self.key_id = key_id
        self.generation = generation
        self.failures = 0
        self.rekey_reported = False
        self._limits = limits
        self._digest, self._hmac_size = keys.digest, HMAC_SIZES[keys.digest]
        self._opener, self._open_hmac_key = AES(keys.open_key), keys.open_iv
        self._sealer, self._seal_hmac_key = AES(keys.seal_key), keys.seal_iv
        self.replay = ReplayWindow()
        self._last_opened = self._last_sealed = 0

    def open(self, packet: bytes) -> bytes | Drop:
        at = HEADER_V1 if packet[0] >> 3 == P_DATA_V1 else HEADER
        tag, covered = packet[at : at + self._hmac_size], packet[at + self._hmac_size :]
        if len(covered) < 2 * CBC_BLOCK or len(covered) % CBC_BLOCK:
            return Drop.TRUNCATED
        if not hmac.compare_digest(tag, hmac.digest(self._open_hmac_key, covered, self._digest)):
            return Drop.AUTH_FAILED
        decryptor = Cipher(self._opener, CBC(covered[:CBC_BLOCK])).decryptor()
        text = decryptor.update(covered[CBC_BLOCK:])
        padding = text[-1]
        if not 1 <= padding <= CBC_BLOCK or text[-padding:] != bytes([padding]) * padding:
            return Drop.NOT_IP
        if len(text) - padding <= PACKET_ID:
            return Drop.NOT_IP
        self._last_opened = int.from_bytes(text[:PACKET_ID], "big")
        return text[PACKET_ID:-padding] if self.replay.accept(self._last_opened) else Drop.REPLAYED

    def seal(self, peer_id: int | None, payload: bytes) -> bytes | Drop:
        if self._last_sealed + 1 >= self._limits.packet_id_limit:
            return Drop.KEY_EXHAUSTED
        self._last_sealed += 1
        text = self._last_sealed.to_bytes(PACKET_ID, "big") + payload
        padding = CBC_BLOCK - len(text) % CBC_BLOCK
        iv = os.urandom(CBC_BLOCK)
        covered = iv + Cipher(self._sealer, CBC(iv)).encryptor().update(text + bytes([padding]) * padding)
        header = bytes([P_DATA_V1 << 3 | self.key_id]) if peer_id is None else data_v2_header(self.key_id, peer_id)
        return header + hmac.digest(self._seal_hmac_key, covered, self._digest) + covered

    def limit_near(self) -> bool:
        return max(self._last_opened, self._last_sealed) >= self._limits.packet_id_rekey


def epoch_expand(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand-Label with the prefix "ovpn " and no context (10.3)."""
    name = b"ovpn " + label.encode()
    info = struct.pack(">HB", length, len(name)) + name + b"\0"
    return HKDFExpand(SHA256(), length, info).derive(secret)


class EpochKey:
    """The data key of one epoch."""

    def __init__(self, cipher: str, secret: bytes) -> None:
        self.aead = make_aead(cipher, epoch_expand(secret, "data_key", KEY_SIZES[cipher]))
        self._iv = epoch_expand(secret, "data_iv", NONCE)
        self.replay = ReplayWindow()

    def nonce(self, epoch_and_counter: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(self._iv, epoch_and_counter + bytes(4), strict=True))


def next_secret(secret: bytes) -> bytes:
    return epoch_expand(secret, "datakey upd", EPOCH_SECRET)


class EpochKeySlot:
    """The epoch format (11.3): the tag at the end, and a new key for each epoch."""

    def __init__(self, key_id: int, keys: DataKeys, generation: int, limits: KeyLimits) -> None:
        self.key_id = key_id
        self.generation = generation
        self.failures = 0
        self.rekey_reported = False
        self._limits = limits
        self._cipher = keys.cipher
        self._counts_blocks = "GCM" in keys.cipher
        self._openers: dict[int, EpochKey] = {}
        """The previous epoch's, the current one's and the future ones'."""
        self._open_secret = keys.open_key  # of the epoch behind the last opener
        self._opening = 1
        self._expect_until(1 + FUTURE_EPOCHS)
        self._blocks_opened = 0
        self._sealing = 1
        self._seal_secret = keys.seal_key
        self._sealer = EpochKey(self._cipher, self._seal_secret)
        self._last_counter = 0
        self._used = 0
        self._rotate_at = limits.epoch_limit

    def _expect_until(self, epoch: int) -> None:
        for added in range(max(self._openers, default=0) + 1, epoch + 1):
            self._openers[added] = EpochKey(self._cipher, self._open_secret)
            self._open_secret = next_secret(self._open_secret)

    @property
    def replay(self) -> ReplayWindow:
        return self._openers[self._opening].replay

    def _may_be_current(self, epoch: int) -> bool:
        """Of the last epochs none can become current: there would be too few behind it to expect."""
        return epoch <= self._opening or epoch + FUTURE_EPOCHS + 1 <= self._limits.last_epoch

    def open(self, packet: bytes) -> bytes | Drop:
        if packet[0] >> 3 != P_DATA_V2:  # the format has no other form
            return Drop.BAD_OPCODE
        if len(packet) <= EPOCH_OVERHEAD:
            return Drop.TRUNCATED
        ad, text = packet[: HEADER + EPOCH_ID], packet[HEADER + EPOCH_ID :]
        epoch, counter = int.from_bytes(ad[4:6], "big"), int.from_bytes(ad[6:12], "big")
        key = self._openers.get(epoch)
        if key is None or not self._may_be_current(epoch):
            return Drop.NO_KEY
        try:
            payload = key.aead.decrypt(key.nonce(ad[HEADER:]), text, ad)
        except InvalidTag:
            return Drop.AUTH_FAILED
        if counter == 0:
            return Drop.REPLAYED
        if epoch > self._opening:
            self._enter(epoch)
        if not key.replay.accept(counter):
            return Drop.REPLAYED
        if epoch == self._opening:
            self._blocks_opened += blocks(packet)
            overused = self._counts_blocks and self._blocks_opened + key.replay.highest >= self._limits.epoch_limit
            if overused and self._sealing == epoch and epoch < self._limits.last_epoch:
                self._move_on(epoch + 1)  # the peer, who does not count, follows us
        return payload

    def _enter(self, epoch: int) -> None:
        """A future epoch has proven itself: it is the current one, the one before it the previous one."""
        previous, self._opening = self._opening, epoch
        self._openers = {at: key for at, key in self._openers.items() if at == previous or at >= epoch}
        self._expect_until(epoch + FUTURE_EPOCHS)
        self._blocks_opened = 0
        self._move_on(epoch)

    def _move_on(self, epoch: int) -> None:
        """Seal in this epoch or a later one, never an earlier one."""
        if epoch <= self._sealing:
            return
        while self._sealing < epoch:
            self._sealing += 1
            self._seal_secret = next_secret(self._seal_secret)
        self._sealer = EpochKey(self._cipher, self._seal_secret)
        self._last_counter = 0

    def seal(self, peer_id: int | None, payload: bytes) -> bytes | Drop:
        if self._last_counter == COUNTER_MAX:
            self._move_on(self._sealing + 1)
        if self._sealing > self._limits.last_epoch or peer_id is None:
            return Drop.KEY_EXHAUSTED
        self._last_counter += 1
        epoch_and_counter = struct.pack(">Q", self._sealing << 48 | self._last_counter)
        ad = data_v2_header(self.key_id, peer_id) + epoch_and_counter
        packet = ad + self._sealer.aead.encrypt(self._sealer.nonce(epoch_and_counter), payload, ad)
        self._used += blocks(packet) + 1
        if self._counts_blocks and self._used >= self._rotate_at:
            self._rotate_at = self._used + self._limits.epoch_limit
            self._move_on(self._sealing + 1)
        return packet

    def limit_near(self) -> bool:
        return self._sealing >= self._limits.epoch_rekey
