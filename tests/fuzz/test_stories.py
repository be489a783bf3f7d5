"""The stateful fuzzer: random stories of devices, operators and strangers against the model in ``helpers.world``.

``FUZZ_SECONDS`` makes it go on for that long, with the kept stories as its beginning (``make fuzz``). A failure prints
the seed and the shortened story; put the story into ``corpus/stories.jsonl`` with the fix.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from unittest import mock

import pytest
from helpers.story import Story, invent, shorten, stories_in, tell, vary
from helpers.world import World

from cvpnd.dataplane.api import SocketAddress
from cvpnd.dataplane.reference import ReferenceDataPlane
from cvpnd.dataplane.reference_keys import PacketIdKeySlot, ReplayWindow
from cvpnd.policy.leases import LeasePool
from cvpnd.server.control import ControlPlane
from cvpnd.server.doorman import ControlDatagram
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.listener import UdpListener
from cvpnd.server.session_table import SessionTable
from cvpnd.wire.outbox import PushExchange
from cvpnd.wire.reader import Reader

CORPUS = Path(__file__).parent / "corpus" / "stories.jsonl"
KEPT = tuple(stories_in(CORPUS))
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
SHORT_STORIES = 60


def failure(story: Story) -> Exception | None:
    try:
        tell(story)
    except Exception as error:
        return error
    return None


def check(story: Story, origin: str) -> None:
    error = failure(story)
    if error is not None:
        short = shorten(story, lambda shorter: failure(shorter) is not None, most=100)
        pytest.fail(f"{origin}: {type(error).__name__}: {error}\n{short.serialise()}\n")


@pytest.mark.parametrize("number", range(len(KEPT)))
def test_kept_story(number: int) -> None:
    check(KEPT[number], f"{CORPUS.name} line {number + 1}")


@pytest.mark.parametrize("seed", range(SHORT_STORIES))
def test_new_story(seed: int) -> None:
    """The same ones each time: what a build is judged by must not be a matter of luck."""
    check(invent(seed), f"seed {seed}")


@pytest.mark.skipif(not FUZZ_SECONDS, reason="make fuzz")
@pytest.mark.timeout(FUZZ_SECONDS + 300)
def test_stories_until_time_is_up() -> None:
    """Stories in which something happened in a step where it never did before are begun with again; those that do it
    in the fewest words are written to ``build/corpus/stories.jsonl``."""
    start = random.SystemRandom().randrange(1 << 30)
    dice = random.Random(start)
    known: set[str] = set()
    kept: list[Story] = []
    told = 0
    end = time.monotonic() + FUZZ_SECONDS
    for story in KEPT:
        known |= tell(story)
        kept.append(story)
    while time.monotonic() < end:
        told += 1
        fresh = not kept or dice.random() < 0.5
        seed = dice.randrange(1 << 30)
        story = invent(seed) if fresh else vary(dice.choice(kept), dice)
        try:
            features = tell(story)
        except Exception:
            check(story, f"seed {seed}" if fresh else f"varied, run {start}")
            raise  # it did not fail again: the traceback is all there is
        if not features <= known:
            known |= features
            kept.append(story)
    directory = Path("build/corpus")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "stories.jsonl").write_text("".join(story.serialise() + "\n" for story in kept))
    print(f"{told} stories, {len(kept)} kept, {len(known)} features")


def test_story_is_the_same_when_it_was_written_down() -> None:
    story = invent(7)
    assert Story.parse(story.serialise()) == story
    assert tell(story) == tell(story)


# -- what the model would notice ----------------------------------------------------------------------------


def _end_keeps_the_peer(self: ReferenceDataPlane, peer_id: int) -> None:
    pass


def _give_nothing_back(self: ServedEndpoint, lease: object) -> None:
    pass


def _close_whoever_is_there(original: Callable[..., object]) -> Callable[..., object]:
    def begin(self: UdpListener, datagram: ControlDatagram) -> object:
        for other in self._control.table.at_source(self.index, datagram.source):
            self._control.close(other, "forged")  # type: ignore[arg-type]
        return original(self, datagram)

    return begin


def _reset_ends_the_session(original: Callable[..., object]) -> Callable[..., object]:
    def deliver(self: World, packet: bytes, source: SocketAddress) -> object:
        if packet and packet[0] >> 3 == 7:
            for other in self.control.table.at_source(self.listener.index, source):
                self.control.close(other, "client-reconnected")  # type: ignore[arg-type]
        return original(self, packet, source)

    return deliver


def _forget_the_address(self: SessionTable, connection: object, source: object, local: str) -> None:
    pass


def _push_at_once(original: Callable[..., object]) -> Callable[..., object]:
    """PUSH_REPLY to whoever asks, logged in or not."""

    def read_text(self: Reader, text: str, now: float) -> object:
        if text == "PUSH_REQUEST" and self._keys.primary is None:
            self._outbox.add("PUSH_REPLY,ifconfig 10.100.0.2 255.255.252.0,peer-id 0")
        return original(self, text, now)

    return read_text


def _swapped_directions(original: Callable[..., object]) -> Callable[..., object]:
    def make(self: PacketIdKeySlot, key_id: int, *rest: object) -> object:
        result = original(self, key_id, *rest)
        if key_id == 2:
            self._opener, self._sealer = self._sealer, self._opener
        return result

    return make


def _same_address_for_all(original: Callable[..., object]) -> Callable[..., object]:
    def acquire(self: LeasePool, user: str) -> object:
        return original(self, user) if self.free == self.capacity else self._first

    return acquire


def _kept_timer(self: SessionTable, connection: object) -> None:
    """A connection that has closed is never forgotten."""


PLANTED: dict[str, tuple[object, str, object]] = {
    "the peer outlives its connection": (ReferenceDataPlane, "remove_peer", _end_keeps_the_peer),
    "the lease is not given back": (ServedEndpoint, "give_back", _give_nothing_back),
    "one lease for all": (LeasePool, "acquire", _same_address_for_all(LeasePool.acquire)),
    "an echo ends the live session": (UdpListener, "_begin", _close_whoever_is_there(UdpListener._begin)),
    "a reset ends the live session": (World, "deliver", _reset_ends_the_session(World.deliver)),
    "roaming is not followed by control packets": (SessionTable, "move", _forget_the_address),
    "forgotten connections stay": (ControlPlane, "_forget", _kept_timer),
    "push before login": (Reader, "_read_text", _push_at_once(Reader._read_text)),
    "no replay window for data": (ReplayWindow, "accept", lambda self, packet_id: True),
    "one key in the wrong direction": (
        PacketIdKeySlot,
        "__init__",
        _swapped_directions(PacketIdKeySlot.__init__),
    ),
    "no PUSH_REPLY": (PushExchange, "take_reply", lambda self, now: []),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bug_is_found(bug: str) -> None:
    owner, name, replacement = PLANTED[bug]
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(owner, name, replacement))
        assert any(map(failure, chain(KEPT, map(invent, range(60))))), "the model does not notice"
