"""The control channel in C and the one in Python, told the same stories: each answer and all that is kept are equal."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from helpers import wire_vectors as v
from helpers.wrappings import CASES

from cvpnd.wire.channel import Channel, ReferenceChannel, native_channel
from cvpnd.wire.packet import ControlPacket, Opcode
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.session_wrap import SessionWrap
from cvpnd.wire.wrap.tls_crypt import TlsCrypt
from cvpnd.wire.wrap.tls_crypt_v2 import TlsCryptV2, TlsCryptV2Client
from cvpnd.wire.wrap.wrapping import ReplayId, Wrapping

SERVER, CLIENT, OTHER = b"server-1", b"client-1", b"somebody"
DYNAMIC = bytes(range(256))
WALL = 1_700_000_000
STEPS = 400
OPCODES = [Opcode.CONTROL_V1] * 8 + [Opcode.ACK_V1] * 4 + list(Opcode)


def server_side(name: str) -> Wrapping:
    client = CASES[name].client
    return TlsCryptV2(client.key2) if isinstance(client, TlsCryptV2Client) else CASES[name].protection.shared or PLAIN


class Story:
    """Both channels, a client that says anything, and dice."""

    def __init__(self, name: str, seed: int) -> None:
        self.dice = random.Random(f"{name} {seed}")
        first_id = self.dice.choice((1, 2))
        wrap = [SessionWrap(server_side(name), lambda: WALL, first_id=first_id) for _ in range(2)]
        self.channels: list[Channel] = [
            native_channel(SERVER, CLIENT, wrap[0]),
            ReferenceChannel(SERVER, CLIENT, wrap[1]),
        ]
        self.wrappings: list[Wrapping] = [CASES[name].client, TlsCrypt(DYNAMIC, server=False)]
        self.now = 0.0
        self.replay = 0
        self.said: list[bytes] = []
        self.both(lambda channel: channel.open_key(0, 100, 0, 2.0))

    def both(self, ask: Callable[[Channel], Any]) -> Any:
        """What both say."""
        answers = []
        for channel in self.channels:
            try:
                answers.append(ask(channel))
            except (KeyError, ValueError) as error:
                answers.append(type(error))
        assert answers[0] == answers[1]
        assert self.channels[0].inspect() == self.channels[1].inspect()
        return answers[0]

    def packet(self) -> bytes:
        dice = self.dice
        key_id = dice.choice((0, 0, 0, 1, 1, 2, 7))
        layers = {layer[0]: layer for layer in self.channels[0].inspect()[2]}
        expected, next_id = layers[key_id][1:3] if key_id in layers else (0, 0)
        opcode = dice.choice(OPCODES)
        acks = tuple((next_id - dice.randint(-1, 9)) & 0xFFFFFFFF for _ in range(dice.choice((0, 0, 1, 2, 8, 9))))
        packet_id = (
            0 if dice.random() < 0.1 else (expected + dice.choice((0, 0, 0, 0, 1, 2, 5, 11, 12, -1, -3))) & 0xFFFFFFFF
        )
        sender, receiver = dice.choice([CLIENT] * 30 + [OTHER]), dice.choice([SERVER] * 20 + [OTHER])
        packet = ControlPacket(
            opcode, key_id, sender, acks, receiver if acks else b"",
            None if opcode is Opcode.ACK_V1 else packet_id, dice.randbytes(dice.choice((0, 1, 90, 1200, 1700))),
        )  # fmt: skip
        self.replay += dice.choice((1, 1, 1, 2, 70, -3)) if self.replay > 3 else 1
        wrapping = self.wrappings[dice.random() < (0.8 if key_id else 0.1)]
        return wrapping.seal(packet, ReplayId(self.replay, WALL + dice.choice([0] * 40 + [-1, 1])))

    def hear(self) -> None:
        packet = self.dice.choice(self.said) if self.said and self.dice.random() < 0.1 else self.packet()
        self.said.append(packet)
        if self.dice.random() < 0.1:
            changed = bytearray(packet[: self.dice.randint(0, len(packet))])
            if changed:
                changed[self.dice.randrange(len(changed))] ^= 1 << self.dice.randrange(8)
            packet = bytes(changed)
        if self.both(lambda channel: channel.receive(packet, self.now)) is None and self.dice.random() < 0.8:
            self.both(lambda channel: channel.take_reset())

    def step(self) -> None:
        dice = self.dice
        key_id = dice.choice((0, 0, 1, 2, 7))
        data = dice.randbytes(dice.choice((0, 1, 100, 101, 2000)))
        opcode = dice.choice((Opcode.CONTROL_V1, Opcode.SOFT_RESET_V1, Opcode.HARD_RESET_SERVER_V2))
        first, limit, on = dice.choice((0, 1, 0xFFFFFFFA)), dice.choice((1, 100, 1150)), dice.random() < 0.7
        deeds: list[tuple[float, Callable[[Channel], Any]]] = [
            (5.0, lambda channel: channel.packets_to_send(self.now)),
            (1.0, lambda channel: channel.packets_to_send(self.now, key_id)),
            (2.0, lambda channel: channel.queue_stream(key_id, data)),
            (1.0, lambda channel: channel.queue(key_id, opcode)),
            (0.7, lambda channel: channel.open_key(key_id, limit, first, 2.0)),
            (0.2, lambda channel: channel.close_key(key_id)),
            (0.1, lambda channel: channel.go_dynamic(DYNAMIC, WALL)),
            (0.3, lambda channel: channel.restart(key_id, self.now)),
            (0.3, lambda channel: channel.set_retransmits(key_id, on)),
            (0.2, lambda channel: channel.stop_sending(key_id)),
            (0.5, lambda channel: channel.take_reset()),
            (1.0, lambda channel: (channel.take_duplicates(), channel.backlog_bytes(), channel.next_timeout())),
            (1.0, lambda channel: (channel.all_acknowledged(key_id), channel.heard(key_id), channel.overhead(key_id))),
        ]
        if dice.random() < 0.5:
            self.hear()
            return
        self.now += dice.choice((0.0, 0.001, 0.5, 3.0, 20.0)) if dice.random() < 0.3 else 0.0
        (_, deed), *_ = dice.choices(deeds, [weight for weight, _ in deeds])
        self.both(deed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_both_say_the_same(name: str, seed: int) -> None:
    story = Story(name, seed)
    for _ in range(STEPS):
        story.step()


def test_sessions_of_an_endpoint_share_keys_and_no_counter() -> None:
    """Contexts are the endpoint's, numbers and windows the session's."""
    wrapping, client = server_side("tls-crypt"), CASES["tls-crypt"].client
    first, second = (native_channel(SERVER, sid, SessionWrap(wrapping, lambda: WALL)) for sid in (CLIENT, OTHER))
    for channel, sid in ((first, CLIENT), (second, OTHER)):
        channel.open_key(0, 100, 0, 2.0)
        packet = client.seal(ControlPacket(Opcode.CONTROL_V1, 0, sid, packet_id=0, payload=b"x"), ReplayId(1, WALL))
        assert channel.receive(packet, 0.0) == b"x"
        assert channel.receive(packet, 0.0) == "replayed"
        (sent,) = channel.packets_to_send(0.0)
        assert sent[9:17] == ReplayId(1, WALL).serialise()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda channel: channel.open_key(8, 100, 0, 2.0),
        lambda channel: channel.open_key(0, 0, 0, 2.0),
        lambda channel: channel.open_key(0, 1601, 0, 2.0),
        lambda channel: channel.open_key(0, 100, -1, 2.0),
        lambda channel: channel.go_dynamic(v.V0_STATIC_KEY[:-1], WALL),
        lambda channel: channel.receive("text", 0.0),
        lambda channel: channel.receive(b"", None),
        lambda channel: channel.receive(b""),
        lambda channel: channel.queue(0, Opcode.CONTROL_V1),
        lambda channel: type(channel)(SERVER[1:], CLIENT, None, 1, WALL),
        lambda channel: type(channel)(SERVER, CLIENT, None, 1, WALL),
    ],
)
def test_c_checks_its_arguments(wrong: Callable[[Any], object]) -> None:
    channel = native_channel(SERVER, CLIENT, SessionWrap(PLAIN, lambda: WALL))
    with pytest.raises((TypeError, ValueError, KeyError)):
        wrong(channel)
    assert channel.inspect()[2] == []


def test_arguments_that_run_python_leave_no_key_behind() -> None:
    """Reading them may close the very key that they are for: it is looked up last."""
    channel = native_channel(SERVER, CLIENT, SessionWrap(PLAIN, lambda: WALL))

    class Closing:
        def __float__(self) -> float:
            channel.close_key(0)
            return 0.0

        def __index__(self) -> int:
            channel.close_key(0)
            return Opcode.CONTROL_V1

        def __bool__(self) -> bool:
            channel.close_key(0)
            return True

    closing: Any = Closing()
    for ask in (channel.restart, channel.queue, channel.set_retransmits):
        channel.open_key(0, 100, 0, 2.0)
        with pytest.raises(KeyError):
            ask(0, closing)
