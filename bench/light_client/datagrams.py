"""UDP datagrams of known content inside IPv4, built and read by hand, for an echo server behind the tunnel."""

from __future__ import annotations

import hashlib
import struct
from ipaddress import IPv4Address

from light_client.icmp import checksum

_PROTOCOL_UDP = 17
_PORT = 20_000
_LONGEST = 1200


def content(client: int, sequence: int) -> bytes:
    """The sequence number and what only this client's datagram with that number has; of many lengths."""
    head = struct.pack("!HI", client, sequence)
    length = int.from_bytes(hashlib.sha256(head).digest()[:2], "big") % _LONGEST
    return head + hashlib.shake_128(head).digest(length)


def sequence_of(payload: bytes, client: int) -> int | None:
    """None: nobody sent this, or somebody else."""
    if len(payload) < 6:
        return None
    number: int = struct.unpack_from("!I", payload, 2)[0]
    return number if payload == content(client, number) else None


def datagram(source: IPv4Address, destination: IPv4Address, port: int, payload: bytes) -> bytes:
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", _PORT, port, length, 0) + payload
    pseudo = source.packed + destination.packed + struct.pack("!BBH", 0, _PROTOCOL_UDP, length)
    udp = udp[:6] + (checksum(pseudo + udp) or 0xFFFF).to_bytes(2, "big") + udp[8:]
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, _PROTOCOL_UDP, 0, source.packed, destination.packed
    )
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + udp


def parse_datagram(packet: bytes, port: int) -> bytes | None:
    """What came from that port, if this is a datagram to us whose checksum is right; else None."""
    if len(packet) < 28 or packet[0] != 0x45 or packet[9] != _PROTOCOL_UDP:
        return None
    source_port, own_port, length, _ = struct.unpack_from("!HHHH", packet, 20)
    if (source_port, own_port) != (port, _PORT) or length != len(packet) - 20:
        return None
    pseudo = packet[12:20] + struct.pack("!BBH", 0, _PROTOCOL_UDP, length)
    return packet[28:] if checksum(pseudo + packet[20:]) == 0 else None
