"""Windows, acknowledgements and timers of the reliability layer, edge by edge."""

from __future__ import annotations

import random

import pytest

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.packet import ControlPacket, Opcode
from cvpnd.wire.reliable import MAX_QUEUED_ACKS, RECEIVE_WINDOW, SEND_WINDOW, ReliableHabits, ReliableLayer

OURS = b"\x01" * 8
THEIRS = b"\x02" * 8


def layer(first_id: int = 0) -> ReliableLayer:
    return ReliableLayer(0, OURS, THEIRS, payload_limit=100, first_id=first_id)


def packet(packet_id: int | None, payload: bytes = b"", acks: tuple[int, ...] = ()) -> ControlPacket:
    opcode = Opcode.ACK_V1 if packet_id is None else Opcode.CONTROL_V1
    return ControlPacket(opcode, 0, THEIRS, acks, OURS if acks else b"", packet_id, payload)


def acks(*ids: int) -> ControlPacket:
    return packet(None, acks=ids)


def sent_ids(reliable: ReliableLayer, now: float) -> list[int | None]:
    return [packet.packet_id for packet in reliable.packets_to_send(now)]


# -- receiving


@pytest.mark.parametrize("first", [0, 1, 0xFFFFFFF8])
def test_payloads_come_out_in_order(first: int) -> None:
    reliable = layer(first)
    ids = [(first + i) & 0xFFFFFFFF for i in range(RECEIVE_WINDOW)]
    arrived = []
    for packet_id in reversed(ids):
        arrived += reliable.receive_packet(packet(packet_id, packet_id.to_bytes(4, "big")))
    assert arrived == [packet_id.to_bytes(4, "big") for packet_id in ids]


@pytest.mark.parametrize("first", [0, 0xFFFFFFFF])
def test_packet_beyond_the_window_is_neither_stored_nor_acked(first: int) -> None:
    reliable = layer(first)
    with pytest.raises(PeerError) as caught:
        reliable.receive_packet(packet((first + RECEIVE_WINDOW) & 0xFFFFFFFF, b"far"))
    assert caught.value.reason is DropReason.BEYOND_WINDOW
    assert reliable.packets_to_send(0.0) == []
    reliable.receive_packet(packet((first + RECEIVE_WINDOW - 1) & 0xFFFFFFFF, b"last"))
    assert [p.acks for p in reliable.packets_to_send(0.0)] == [((first + RECEIVE_WINDOW - 1) & 0xFFFFFFFF,)]


def test_packet_before_window_is_acked_not_delivered() -> None:
    reliable = layer()
    assert reliable.receive_packet(packet(0, b"once")) == [b"once"]
    reliable.packets_to_send(0.0)
    assert reliable.receive_packet(packet(0, b"once")) == []
    assert reliable.take_duplicates() == 1
    (ack,) = reliable.packets_to_send(0.0)
    assert (ack.opcode, ack.acks) == (Opcode.ACK_V1, (0,))


def test_early_packet_that_comes_twice_is_delivered_once() -> None:
    reliable = layer()
    assert reliable.receive_packet(packet(1, b"b")) == []
    assert reliable.receive_packet(packet(1, b"b")) == []
    assert reliable.receive_packet(packet(0, b"a")) == [b"a", b"b"]


def test_acknowledgement_of_another_session_drops_the_whole_packet() -> None:
    reliable = layer()
    foreign = ControlPacket(Opcode.CONTROL_V1, 0, THEIRS, (0,), b"\x03" * 8, 0, b"payload")
    with pytest.raises(PeerError) as caught:
        reliable.receive_packet(foreign)
    assert caught.value.reason is DropReason.FOREIGN_ACK
    assert reliable.receive_packet(packet(0, b"real")) == [b"real"]


# -- acknowledging


def test_ack_rides_on_control_packets_and_is_repeated_newest_first() -> None:
    reliable = layer()
    for packet_id in range(6):
        reliable.receive_packet(packet(packet_id))
    reliable.queue_payload(Opcode.CONTROL_V1, b"x")
    control, bare = reliable.packets_to_send(0.0)
    assert control.acks == (3, 2, 1, 0)
    assert bare.acks == (5, 4, 3, 2), "the repeated ones fill up to what every peer understands"
    reliable.receive_packet(packet(6))
    assert reliable.packets_to_send(0.0)[0].acks == (6, 5, 4, 3)
    reliable.receive_packet(packet(7))
    reliable.receive_packet(packet(8))
    assert reliable.packets_to_send(0.0)[0].acks == (8, 7, 6, 5)


def test_no_more_acks_are_queued_than_a_window_holds() -> None:
    reliable = layer()
    for packet_id in range(MAX_QUEUED_ACKS + 2):
        reliable.receive_packet(packet(packet_id))
    acks = [ack for sent in reliable.packets_to_send(0.0) for ack in sent.acks]
    assert sorted(acks) == list(range(MAX_QUEUED_ACKS))
    assert reliable.packets_to_send(0.0) == [], "an ACK is not retransmitted"


# -- sending


def test_six_packets_are_in_flight_at_most() -> None:
    reliable = layer()
    reliable.queue_stream(bytes(100 * (SEND_WINDOW + 2)))
    assert sent_ids(reliable, 0.0) == list(range(SEND_WINDOW))
    reliable.receive_packet(acks(1, 2))
    assert sent_ids(reliable, 0.0) == [], "the lowest unacknowledged one holds the window"
    reliable.receive_packet(acks(0))
    assert sent_ids(reliable, 0.0) == [6, 7]
    assert not reliable.all_acknowledged
    reliable.receive_packet(acks(3, 4, 5, 6, 7))
    assert reliable.all_acknowledged


def test_ids_wrap_around() -> None:
    reliable = layer(0xFFFFFFFE)
    reliable.queue_stream(bytes(400))
    assert sent_ids(reliable, 0.0) == [0xFFFFFFFE, 0xFFFFFFFF, 0, 1]
    reliable.receive_packet(acks(0xFFFFFFFE, 0xFFFFFFFF, 0))
    reliable.receive_packet(acks(1))
    assert reliable.all_acknowledged


def test_timeouts_double_from_two_seconds_to_a_minute() -> None:
    reliable = layer()
    reliable.queue_payload(Opcode.SOFT_RESET_V1)
    times = []
    now: float = 0.0
    for _ in range(8):
        assert sent_ids(reliable, now) == [0]
        times.append(now)
        deadline = reliable.next_timeout()
        assert deadline is not None
        assert sent_ids(reliable, deadline - 0.001) == []
        now = deadline
    assert times == [0, 2, 6, 14, 30, 62, 122, 182]


def test_three_higher_acks_resend_at_once() -> None:
    reliable = layer()
    reliable.queue_stream(bytes(500))
    sent_ids(reliable, 0.0)
    reliable.receive_packet(acks(1, 2))
    assert sent_ids(reliable, 0.1) == []
    reliable.receive_packet(acks(3))
    assert sent_ids(reliable, 0.1) == [0]
    assert sent_ids(reliable, 0.1) == [], "the count starts again"
    deadline = reliable.next_timeout()
    assert deadline == 2.0, "packet 4 is still waiting for its first timeout"


@pytest.mark.parametrize("invented", [1, 5, 1000, 0x7FFFFFFF, 0x80000001])
def test_acks_of_what_was_never_sent_change_nothing(invented: int) -> None:
    reliable = layer()
    reliable.queue_stream(bytes(100))
    sent_ids(reliable, 0.0)
    for _ in range(5):
        reliable.receive_packet(acks(invented))
    assert sent_ids(reliable, 0.1) == []
    assert not reliable.all_acknowledged


def test_reset_of_the_peer_makes_all_due_with_the_first_timeout() -> None:
    reliable = layer()
    reliable.queue_stream(bytes(300))
    for now in (0.0, 2.0, 6.0):
        assert sent_ids(reliable, now) == [0, 1, 2]
    reliable.restart(7.0)
    assert sent_ids(reliable, 7.0) == [0, 1, 2]
    assert reliable.next_timeout() == 9.0


def test_retransmission_carries_new_acknowledgements() -> None:
    reliable = layer()
    reliable.queue_stream(b"x")
    (first,) = reliable.packets_to_send(0.0)
    reliable.receive_packet(packet(0, b"y"))
    reliable.packets_to_send(0.0)
    (again,) = reliable.packets_to_send(2.0)
    assert (first.acks, again.acks) == ((), (0,))
    assert (first.packet_id, first.payload) == (again.packet_id, again.payload)


def test_stopped_layer_only_acknowledges() -> None:
    reliable = layer()
    reliable.queue_stream(bytes(1000))
    sent_ids(reliable, 0.0)
    reliable.stop_sending()
    reliable.receive_packet(packet(0, b"late"))
    assert [p.opcode for p in reliable.packets_to_send(100.0)] == [Opcode.ACK_V1]
    assert reliable.next_timeout() is None


@pytest.mark.parametrize("seed", range(20))
def test_stream_arrives_whole_over_a_bad_link(seed: int) -> None:
    """Half of everything is lost and the rest shuffled; it takes its time and loses nothing."""
    chance = random.Random(seed)
    left, right = ReliableLayer(0, OURS, THEIRS, payload_limit=100), ReliableLayer(0, THEIRS, OURS, payload_limit=100)
    data = chance.randbytes(5000)
    left.queue_stream(data)
    received = b""
    now = 0.0
    while not left.all_acknowledged:
        now += 1.0
        assert now < 100_000
        for sender, receiver in ((left, right), (right, left)):
            batch = [packet for packet in sender.packets_to_send(now) if chance.random() < 0.5]
            chance.shuffle(batch)
            for lost_or_not in batch:
                received += b"".join(receiver.receive_packet(lost_or_not))
    assert received == data


def test_older_implementations_acknowledge_each_packet_once() -> None:
    reliable = ReliableLayer(
        0, OURS, THEIRS, payload_limit=100, habits=ReliableHabits(send_window=4, receive_window=8, repeats_acks=False)
    )
    for packet_id in range(3):
        reliable.receive_packet(packet(packet_id))
        assert [p.acks for p in reliable.packets_to_send(0.0)] == [(packet_id,)]
    reliable.queue_stream(bytes(100 * 6))
    assert [p.acks for p in reliable.packets_to_send(0.0)] == [(), (), (), ()]
    with pytest.raises(PeerError):
        reliable.receive_packet(packet(3 + 8))
