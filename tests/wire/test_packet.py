"""Control packets: captured bytes both ways, every prefix, every limit."""

from __future__ import annotations

import pytest
from helpers.wire_vectors import (
    V16,
    V16_ACK,
    V16_CLIENT_SID,
    V16_CONTROL,
    V16_RESET_CLIENT,
    V16_RESET_SERVER,
    V16_SERVER_SID,
)
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.packet import MAX_PAYLOAD_BYTES, ControlPacket, Opcode, Reader, parse_packet, serialise_packet

SESSION_IDS = st.binary(min_size=8, max_size=8).filter(any)
IDS = st.integers(0, 0xFFFFFFFF)


def refused(packet: bytes) -> DropReason:
    with pytest.raises(PeerError) as caught:
        parse_packet(packet)
    return caught.value.reason


@pytest.mark.parametrize(
    ("raw", "packet"),
    [
        (V16_RESET_CLIENT, ControlPacket(Opcode.HARD_RESET_CLIENT_V2, 0, V16_CLIENT_SID, packet_id=0)),
        (
            V16_RESET_SERVER,
            ControlPacket(Opcode.HARD_RESET_SERVER_V2, 0, V16_SERVER_SID, (0,), V16_CLIENT_SID, packet_id=0),
        ),
        (
            V16_CONTROL,
            ControlPacket(Opcode.CONTROL_V1, 0, V16_CLIENT_SID, (0,), V16_SERVER_SID, 1, V16_CONTROL[26:]),
        ),
        (V16_ACK, ControlPacket(Opcode.ACK_V1, 0, V16_CLIENT_SID, (1, 0), V16_SERVER_SID)),
    ],
)
def test_captured_packets_parse_and_serialise_back(raw: bytes, packet: ControlPacket) -> None:
    assert parse_packet(raw) == packet
    assert serialise_packet(packet) == raw


@pytest.mark.parametrize("raw", V16)
def test_every_prefix_parses_or_is_refused(raw: bytes) -> None:
    complete = 26 if raw[0] >> 3 == Opcode.CONTROL_V1 else len(raw)  # where the free-form payload begins
    for length in range(complete):
        assert refused(raw[:length]) is DropReason.TRUNCATED
    for length in range(complete, len(raw) + 1):
        assert parse_packet(raw[:length]).session_id == raw[1:9]


@pytest.mark.parametrize("opcode", [0, 1, 2, 6, 9, *range(12, 32)])
def test_obsolete_and_unknown_and_data_opcodes_are_refused(opcode: int) -> None:
    assert refused(bytes((opcode << 3,)) + V16_RESET_CLIENT[1:]) is DropReason.BAD_OPCODE


def test_zero_session_id_is_refused() -> None:
    assert refused(V16_RESET_CLIENT[:1] + bytes(8) + V16_RESET_CLIENT[9:]) is DropReason.BAD_SESSION_ID


@pytest.mark.parametrize("key_id", range(1, 8))
def test_hard_reset_is_for_key_id_0_only(key_id: int) -> None:
    assert refused(bytes((V16_RESET_CLIENT[0] | key_id,)) + V16_RESET_CLIENT[1:]) is DropReason.BAD_KEY_ID


def test_eight_acks_are_the_most() -> None:
    head = V16_ACK[:9]
    tail = bytes(4 * 9) + V16_SERVER_SID
    assert parse_packet(head + b"\x08" + tail[4:]).acks == (0,) * 8
    assert refused(head + b"\x09" + tail) is DropReason.TOO_MANY_ACKS


def test_payload_beyond_any_receive_buffer_is_refused() -> None:
    assert len(parse_packet(V16_CONTROL[:26] + bytes(MAX_PAYLOAD_BYTES)).payload) == MAX_PAYLOAD_BYTES
    assert refused(V16_CONTROL[:26] + bytes(MAX_PAYLOAD_BYTES + 1)) is DropReason.TOO_LONG


def test_bytes_behind_the_acks_of_a_bare_ack_are_ignored() -> None:
    assert parse_packet(V16_ACK + b"anything") == parse_packet(V16_ACK)


@given(
    opcode=st.sampled_from([Opcode.CONTROL_V1, Opcode.SOFT_RESET_V1]),
    key_id=st.integers(0, 7),
    session_id=SESSION_IDS,
    acks=st.lists(IDS, max_size=8),
    remote=SESSION_IDS,
    packet_id=IDS,
    payload=st.binary(max_size=64),
)
def test_what_is_serialised_parses_back(
    opcode: Opcode, key_id: int, session_id: bytes, acks: list[int], remote: bytes, packet_id: int, payload: bytes
) -> None:
    packet = ControlPacket(opcode, key_id, session_id, tuple(acks), remote if acks else b"", packet_id, payload)
    assert parse_packet(serialise_packet(packet)) == packet


def test_reader_never_reads_past_its_end() -> None:
    reader = Reader(b"\x01\x02\x03")
    assert reader.u16() == 0x0102
    with pytest.raises(PeerError):
        reader.u16()
    assert reader.rest() == b"\x03", "a failed read takes nothing"
