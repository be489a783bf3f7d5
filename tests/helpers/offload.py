"""The kernel's side of a TUN with virtio headers: what it makes of super-packets, and how it makes them.

Written apart from the code under test: include/linux/virtio_net.h, RFC 9293, 768.
"""

from __future__ import annotations

import struct

from helpers.packets import TCP, UDP, checksum, pseudo_header

HEADER = struct.Struct("=BBHHHH")
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4 = 0, 1, 4, 5
FIN_PSH = 0x09
CHECKSUM_AT = {TCP: 16, UDP: 6}


def bare(packet: bytes) -> bytes:
    """With a header that asks for nothing."""
    return bytes(HEADER.size) + packet


def _layout(packet: bytes) -> tuple[int, int]:
    """The transport protocol, and where its header is."""
    return (packet[9], (packet[0] & 15) * 4) if packet[0] >> 4 == 4 else (packet[6], 40)


def _addresses(packet: bytes) -> tuple[bytes, bytes]:
    return (packet[12:16], packet[16:20]) if packet[0] >> 4 == 4 else (packet[8:24], packet[24:40])


def partial(packet: bytes) -> bytes:
    """A TCP or UDP packet as the kernel hands it out whose checksum is left to the device."""
    protocol, start = _layout(packet)
    at = start + CHECKSUM_AT[protocol]
    pseudo = ~checksum(pseudo_header(*_addresses(packet), protocol, len(packet) - start)) & 0xFFFF
    header = HEADER.pack(NEEDS_CSUM, GSO_NONE, 0, 0, start, CHECKSUM_AT[protocol])
    return header + packet[:at] + pseudo.to_bytes(2, "big") + packet[at + 2 :]


def super_packet(packet: bytes, size: int) -> bytes:
    """A TCP or UDP packet that stands for as many as its payload has pieces of ``size``."""
    protocol, start = _layout(packet)
    v4_or_v6 = GSO_TCPV4 if packet[0] >> 4 == 4 else GSO_TCPV6
    kind = GSO_UDP_L4 if protocol == UDP else v4_or_v6
    whole = partial(packet)[HEADER.size :]
    return HEADER.pack(NEEDS_CSUM, kind, start, size, start, CHECKSUM_AT[protocol]) + whole


def split(frame: bytes) -> list[bytes]:
    """The packets that a frame, virtio header first, stands for."""
    flags, kind, _, size, start, offset = HEADER.unpack_from(frame)
    packet = frame[HEADER.size :]
    if kind == GSO_NONE:
        assert flags == 0, "a checksum was left to the kernel"
        return [packet]
    assert flags == NEEDS_CSUM
    protocol, transport = _layout(packet)
    assert (start, offset) == (transport, CHECKSUM_AT[protocol])
    assert (kind == GSO_UDP_L4) == (protocol == UDP)
    headers = transport + (8 if protocol == UDP else (packet[transport + 12] >> 4) * 4)
    payload = packet[headers:]
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    assert len(pieces) > 1
    return [_segment(packet[:headers], transport, protocol, pieces, index) for index in range(len(pieces))]


def _segment(headers: bytes, transport: int, protocol: int, pieces: list[bytes], index: int) -> bytes:
    piece, made = pieces[index], bytearray(headers)
    length = len(headers) + len(piece)
    if made[0] >> 4 == 4:
        struct.pack_into(">HH", made, 2, length, int.from_bytes(headers[4:6], "big") + index & 0xFFFF)
        made[10:12] = b"\0\0"
        made[10:12] = checksum(bytes(made[:transport])).to_bytes(2, "big")
    else:
        struct.pack_into(">H", made, 4, length - 40)
    if protocol == UDP:
        struct.pack_into(">H", made, transport + 4, length - transport)
    else:
        sequence = int.from_bytes(headers[transport + 4 : transport + 8], "big") + len(pieces[0]) * index
        struct.pack_into(">I", made, transport + 4, sequence & 0xFFFFFFFF)
        if index < len(pieces) - 1:
            made[transport + 13] &= ~FIN_PSH
    at = transport + CHECKSUM_AT[protocol]
    made[at : at + 2] = b"\0\0"
    segment = bytes(made[transport:]) + piece
    value = checksum(pseudo_header(*_addresses(headers), protocol, len(segment)) + segment)
    if protocol == UDP and value == 0:
        value = 0xFFFF
    made[at : at + 2] = value.to_bytes(2, "big")
    return bytes(made) + piece
