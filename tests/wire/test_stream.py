"""The length prefix on TCP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.stream import MAX_FRAME_BYTES, FrameReader, frame


@given(packets=st.lists(st.binary(min_size=1, max_size=300), max_size=8), data=st.data())
def test_any_segmentation_yields_the_same_packets(packets: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, packets))
    reader, received, position = FrameReader(), [], 0
    while position < len(stream):
        step = data.draw(st.integers(1, len(stream) - position))
        received += reader.feed(stream[position : position + step])
        position += step
    assert received == packets
    assert reader.rest() == b""


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, 0xFFFF])
def test_impossible_length_ends_the_stream(length: int) -> None:
    with pytest.raises(PeerError) as caught:
        FrameReader().feed(frame(b"ok") + length.to_bytes(2, "big"))
    assert caught.value.reason is DropReason.BAD_FRAME


def test_largest_frame_passes() -> None:
    assert FrameReader().feed(frame(bytes(MAX_FRAME_BYTES))) == [bytes(MAX_FRAME_BYTES)]


def test_rest_is_the_incomplete_frame_once() -> None:
    reader = FrameReader()
    assert reader.feed(frame(b"whole") + frame(b"cut")[:4]) == [b"whole"]
    assert reader.rest() == frame(b"cut")[:4]
    assert reader.rest() == b""
