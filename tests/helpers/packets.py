"""Builders of packets: what travels inside the tunnel, and the client's side of the data channel around it.

Written apart from the code under test, on purpose: openvpn-wire.md 11, RFC 791, 8200, 768, 9293, 792, 4443.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cvpnd.dataplane.api import DataKeys

Address = str | IPv4Address | IPv6Address

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
SYN, ACK = 0x02, 0x10

PING = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")
OCC = bytes.fromhex("287f346bd4ef7a812d56b8d3afc5459c")
OCC_REQUEST, OCC_EXIT = OCC + b"\x00", OCC + b"\x06"

OVERHEAD = 24
"""Header 4, packet id 4, tag 16."""
OVERHEAD_V1 = 21
CBC_OVERHEAD_MAX = 4 + 64 + 16 + 4 + 16
"""Header, the longest HMAC, IV, packet id, padding."""
LINK_PACKET_MAX = 2048 + 2 + CBC_OVERHEAD_MAX
"""The longest inner packet, two bytes of framing, and the longest overhead."""


# -- inside the tunnel -------------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071). Over data that holds a right checksum: 0."""
    data += b"\x00" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: Address | bytes, destination: Address | bytes, protocol: int, length: int) -> bytes:
    source, destination = ip_address(source), ip_address(destination)
    if source.version == 4:
        return source.packed + destination.packed + struct.pack(">BBH", 0, protocol, length)
    return source.packed + destination.packed + struct.pack(">IxxxB", length, protocol)


def _with_checksum(source: Address, destination: Address, protocol: int, segment: bytes, at: int) -> bytes:
    value = checksum(pseudo_header(source, destination, protocol, len(segment)) + segment)
    if protocol == UDP and value == 0:
        value = 0xFFFF  # zero would mean "none"
    return segment[:at] + value.to_bytes(2, "big") + segment[at + 2 :]


def ip(source: Address, destination: Address, protocol: int, payload: bytes, *, fragment: int = 0) -> bytes:
    """An IP packet of the addresses' version. ``fragment``: IPv4's flags and offset field."""
    source, destination = ip_address(source), ip_address(destination)
    if source.version == 6:
        return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + source.packed + destination.packed + payload
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0x1234, fragment, 64, protocol, 0)
    header += source.packed + destination.packed
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def fragment(
    source: Address, destination: Address, protocol: int, carried: bytes, offset: int, more: bool, identification: int
) -> bytes:
    """One of a packet's. ``offset``: in bytes."""
    if ip_address(source).version == 6:
        header = struct.pack(">BBHI", protocol, 0, offset | more, identification)
        return ip(source, destination, FRAGMENT, header + carried)
    packet = ip(source, destination, protocol, carried, fragment=more << 13 | offset // 8)
    head = packet[:4] + identification.to_bytes(2, "big") + packet[6:10] + b"\0\0" + packet[12:20]
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + carried


def udp(
    source: Address,
    destination: Address,
    payload: bytes = b"",
    *,
    source_port: int = 4000,
    port: int = 9,
    fragment: int = 0,
) -> bytes:
    segment = struct.pack(">HHHH", source_port, port, 8 + len(payload), 0) + payload
    return ip(source, destination, UDP, _with_checksum(source, destination, UDP, segment, 6), fragment=fragment)


def tcp(
    source: Address,
    destination: Address,
    payload: bytes = b"",
    *,
    flags: int = ACK,
    options: bytes = b"",
    fragment: int = 0,
    sequence: int = 7,
    acknowledgement: int = 11,
) -> bytes:
    """``options`` are padded with end-of-options to a multiple of four."""
    options += b"\x00" * (-len(options) % 4)
    offset = (20 + len(options)) // 4
    segment = struct.pack(">HHIIBBHHH", 40000, 443, sequence, acknowledgement, offset << 4, flags, 0xFFFF, 0, 0)
    segment += options + payload
    segment = _with_checksum(source, destination, TCP, segment, 16)
    return ip(source, destination, TCP, segment, fragment=fragment)


def icmp_echo(source: Address, destination: Address, payload: bytes = b"echo", *, sequence: int = 1) -> bytes:
    if ip_address(source).version == 4:
        message = struct.pack(">BBHHH", 8, 0, 0, 77, sequence) + payload
        value = checksum(message)
        return ip(source, destination, ICMP, message[:2] + value.to_bytes(2, "big") + message[4:])
    message = struct.pack(">BBHHH", 128, 0, 0, 77, sequence) + payload
    return ip(source, destination, ICMPV6, _with_checksum(source, destination, ICMPV6, message, 2))


def icmp(source: Address, destination: Address, kind: int, code: int, body: bytes) -> bytes:
    """Of either version; ``body`` is what follows the checksum."""
    message = bytes([kind, code, 0, 0]) + body
    if ip_address(source).version == 6:
        return ip(source, destination, ICMPV6, _with_checksum(source, destination, ICMPV6, message, 2))
    return ip(source, destination, ICMP, message[:2] + checksum(message).to_bytes(2, "big") + message[4:])


def checksums_are_right(packet: bytes) -> bool:
    """Of the IPv4 header and of the TCP, UDP or ICMPv6 segment behind it (no extension headers)."""
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        if checksum(packet[:header]) != 0:
            return False
        source, destination, protocol = ip_address(packet[12:16]), ip_address(packet[16:20]), packet[9]
    else:
        header = 40
        source, destination, protocol = ip_address(packet[8:24]), ip_address(packet[24:40]), packet[6]
    segment = packet[header:]
    if protocol == ICMP:
        return checksum(segment) == 0
    return checksum(pseudo_header(source, destination, protocol, len(segment)) + segment) == 0


# -- the data channel, client side -------------------------------------------------------------------------------


HMAC_BYTES = {"SHA1": 20, "SHA256": 32, "SHA384": 48, "SHA512": 64}


def data_keys(seed: str, cipher: str = "AES-256-GCM", *, epoch: bool = False, digest: str = "") -> DataKeys:
    """Keys that differ with the seed, server side: ``open`` is what the client seals with."""
    if digest:
        size, hmac_size = {"AES-128-CBC": 16, "AES-192-CBC": 24}.get(cipher, 32), HMAC_BYTES[digest]
        material = hashlib.shake_256(seed.encode()).digest(2 * (size + hmac_size))
        cut = [size, size + hmac_size, 2 * size + hmac_size]
        keys = [material[start:end] for start, end in zip([0, *cut], [*cut, None], strict=True)]
        return DataKeys(cipher, *keys, digest=digest)
    if epoch:
        material = hashlib.shake_256(seed.encode()).digest(64)
        return DataKeys(cipher, material[:32], b"", material[32:], b"", epoch=True)
    size = {"AES-128-GCM": 16, "AES-192-GCM": 24}.get(cipher, 32)
    material = hashlib.shake_256(seed.encode()).digest(2 * (size + 8))
    return DataKeys(
        cipher,
        open_key=material[:size],
        open_iv=material[size : size + 8],
        seal_key=material[size + 8 : 2 * size + 8],
        seal_iv=material[2 * size + 8 :],
    )


def _aead(cipher: str, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if cipher == "CHACHA20-POLY1305" else AESGCM(key)


def seal(cipher: str, key: bytes, implicit_iv: bytes, header: bytes, packet_id: int, payload: bytes) -> bytes:
    """``header``: the four bytes of opcode, key id and peer id."""
    ad = header + packet_id.to_bytes(4, "big")
    sealed = _aead(cipher, key).encrypt(ad[4:] + implicit_iv, payload, ad)
    return ad + sealed[-16:] + sealed[:-16]


def header(peer_id: int, key_id: int = 0, opcode: int = 9) -> bytes:
    return (opcode << 27 | key_id << 24 | peer_id).to_bytes(4, "big")


def seal_v1(cipher: str, key: bytes, implicit_iv: bytes, key_id: int, packet_id: int, payload: bytes) -> bytes:
    """P_DATA_V1: the tag covers the packet id only."""
    ad = packet_id.to_bytes(4, "big")
    sealed = _aead(cipher, key).encrypt(ad + implicit_iv, payload, ad)
    return bytes([6 << 3 | key_id]) + ad + sealed[-16:] + sealed[:-16]


def hmac_and_cbc(
    keys: tuple[bytes, bytes], digest: str, header: bytes, blocks: bytes, iv: bytes | None = None
) -> bytes:
    """``blocks`` encrypted as they are, whether they are padded or not, and signed. ``keys``: cipher's and HMAC's."""
    iv = os.urandom(16) if iv is None else iv
    covered = iv + Cipher(AES(keys[0]), CBC(iv)).encryptor().update(blocks)
    return header + hmac.digest(keys[1], covered, digest) + covered


def seal_cbc(
    keys: tuple[bytes, bytes], digest: str, header: bytes, packet_id: int, payload: bytes, iv: bytes | None = None
) -> bytes:
    """``header``: of one byte or of four."""
    text = packet_id.to_bytes(4, "big") + payload
    padding = 16 - len(text) % 16
    return hmac_and_cbc(keys, digest, header, text + bytes([padding]) * padding, iv)


def open_cbc(keys: tuple[bytes, bytes], digest: str, header_bytes: int, packet: bytes) -> tuple[int, bytes]:
    """Packet id and payload. Raises ``InvalidTag``."""
    at = header_bytes + HMAC_BYTES[digest]
    tag, covered = packet[header_bytes:at], packet[at:]
    if tag != hmac.digest(keys[1], covered, digest):
        raise InvalidTag
    text = Cipher(AES(keys[0]), CBC(covered[:16])).decryptor().update(covered[16:])
    assert 1 <= text[-1] <= 16
    assert text.endswith(text[-1:] * text[-1])
    return int.from_bytes(text[:4], "big"), text[4 : -text[-1]]


def epoch_expand(secret: bytes, label: str, length: int) -> bytes:
    info = struct.pack(">HB", length, 5 + len(label)) + b"ovpn " + label.encode() + b"\0"
    return HKDFExpand(SHA256(), length, info).derive(secret)


def epoch_secret(first: bytes, epoch: int) -> bytes:
    """E_n from E_1 (10.3)."""
    for _ in range(epoch - 1):
        first = epoch_expand(first, "datakey upd", 32)
    return first


def _epoch_nonce(secret: bytes, epoch: int, counter: int) -> bytes:
    iv = int.from_bytes(epoch_expand(secret, "data_iv", 12), "big")
    return (iv ^ (epoch << 48 | counter) << 32).to_bytes(12, "big")


def _epoch_aead(cipher: str, secret: bytes) -> AESGCM | ChaCha20Poly1305:
    size = {"AES-128-GCM": 16, "AES-192-GCM": 24}.get(cipher, 32)
    return _aead(cipher, epoch_expand(secret, "data_key", size))


def seal_epoch(cipher: str, first: bytes, header: bytes, epoch: int, counter: int, payload: bytes) -> bytes:
    """``first``: the secret of epoch 1."""
    secret = epoch_secret(first, epoch)
    ad = header + struct.pack(">Q", epoch << 48 | counter)
    return ad + _epoch_aead(cipher, secret).encrypt(_epoch_nonce(secret, epoch, counter), payload, ad)


@dataclass(frozen=True, slots=True)
class Opened:
    peer_id: int
    key_id: int
    packet_id: int
    payload: bytes
    epoch: int = 0
    """Then ``packet_id`` is its counter."""


class ClientKey:
    """One key as the client holds it; counts its packet ids. Over epoch keys, it stays in ``epoch`` until told."""

    def __init__(self, key_id: int, keys: DataKeys) -> None:
        self.key_id = key_id
        self.keys = keys
        self.last_packet_id = 0
        self.epoch = 1

    def seal(self, peer_id: int | None, payload: bytes, *, packet_id: int | None = None) -> bytes:
        """``peer_id`` None: P_DATA_V1."""
        if packet_id is None:
            self.last_packet_id += 1
            packet_id = self.last_packet_id
        keys = self.keys
        if keys.digest:
            first = bytes([6 << 3 | self.key_id]) if peer_id is None else header(peer_id, self.key_id)
            return seal_cbc((keys.open_key, keys.open_iv), keys.digest, first, packet_id, payload)
        if peer_id is None:
            return seal_v1(keys.cipher, keys.open_key, keys.open_iv, self.key_id, packet_id, payload)
        if keys.epoch:
            return seal_epoch(keys.cipher, keys.open_key, header(peer_id, self.key_id), self.epoch, packet_id, payload)
        return seal(keys.cipher, keys.open_key, keys.open_iv, header(peer_id, self.key_id), packet_id, payload)

    def open(self, packet: bytes) -> Opened:
        """Raises ``InvalidTag``. The peer id of P_DATA_V1 is shown as -1."""
        assert packet[0] & 7 == self.key_id
        keys = self.keys
        if keys.digest:
            v1 = packet[0] >> 3 == 6
            packet_id, payload = open_cbc((keys.seal_key, keys.seal_iv), keys.digest, 1 if v1 else 4, packet)
            assert v1 or packet[0] >> 3 == 9
            return Opened(-1 if v1 else int.from_bytes(packet[1:4], "big"), self.key_id, packet_id, payload)
        if packet[0] >> 3 == 6:
            payload = _aead(keys.cipher, keys.seal_key).decrypt(
                packet[1:5] + keys.seal_iv, packet[21:] + packet[5:21], packet[1:5]
            )
            return Opened(-1, self.key_id, int.from_bytes(packet[1:5], "big"), payload)
        assert packet[0] >> 3 == 9
        if keys.epoch:
            epoch, counter = int.from_bytes(packet[4:6], "big"), int.from_bytes(packet[6:12], "big")
            secret = epoch_secret(keys.seal_key, epoch)
            payload = _epoch_aead(keys.cipher, secret).decrypt(
                _epoch_nonce(secret, epoch, counter), packet[12:], packet[:12]
            )
            return Opened(int.from_bytes(packet[1:4], "big"), self.key_id, counter, payload, epoch)
        nonce = packet[4:8] + keys.seal_iv
        payload = _aead(keys.cipher, keys.seal_key).decrypt(nonce, packet[24:] + packet[8:24], packet[:8])
        return Opened(int.from_bytes(packet[1:4], "big"), self.key_id, int.from_bytes(packet[4:8], "big"), payload)
