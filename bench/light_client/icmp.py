"""ICMP echo inside IPv4, built and read by hand: what a light client sends through its tunnel."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

_ECHO_REQUEST, _ECHO_REPLY, _PROTOCOL_ICMP = 8, 0, 1


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(
    source: IPv4Address, destination: IPv4Address, identifier: int, sequence: int, payload: bytes
) -> bytes:
    icmp = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identifier, sequence) + payload
    icmp = icmp[:2] + checksum(icmp).to_bytes(2, "big") + icmp[4:]
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 0, 0, 64, _PROTOCOL_ICMP, 0, source.packed, destination.packed
    )
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + icmp


def parse_echo_reply(packet: bytes) -> tuple[IPv4Address, int, int] | None:
    """(source, identifier, sequence), or None for anything else."""
    if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != _PROTOCOL_ICMP:
        return None
    header_bytes = (packet[0] & 0x0F) * 4
    if len(packet) < header_bytes + 8 or packet[header_bytes] != _ECHO_REPLY:
        return None
    identifier, sequence = struct.unpack_from("!HH", packet, header_bytes + 4)
    return IPv4Address(packet[12:16]), identifier, sequence
