"""Stories for ``World``: what devices, operators and strangers do, in any order, as a list that can be kept and cut.

A story is made from a seed, told in a fresh world, and judged by what the world checks. One that fails is cut down to
the steps it needs; one that made something happen for the first time is worth keeping in ``tests/fuzz/corpus``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from helpers.pair import NoisyLink
from helpers.world import DEVICES, Device, Rival, World
from helpers.wrappings import CASES
from light_client.generations import GENERATIONS

from cvpnd.dataplane.api import SocketAddress
from cvpnd.wire.packet import ControlPacket, Opcode, is_data, serialise_packet

Step = tuple[str, int, int]
"""A verb of ``Teller`` and two numbers that it may use."""

STRANGER = SocketAddress("203.0.113.66", 6666)
TIMES = (0.01, 0.05, 0.3, 1.0, 2.0, 5.0, 12.0, 61.0, 130.0, 310.0)
LOGIN_TIMES = (0.0, 0.0, 0.5, 7.0, 70.0)
LINKS = (
    {},
    {"loss": 0.1},
    {"loss": 0.3, "duplication": 0.1},
    {"loss": 0.05, "duplication": 0.3, "reordering": 0.3},
    {"loss": 0.9},
)
PACKET_ID_LIMITS = (0, 0, 300)
"""0: as it is. With few packet ids, keys are renewed for want of them."""
INVENTED_OPCODES = tuple(o for o in Opcode if o not in (Opcode.DATA_V1, Opcode.DATA_V2))


@dataclass(frozen=True)
class Story:
    protection: str
    generations: tuple[str, ...]
    early_negotiation: bool
    packet_id_limit: int
    seed: int
    """Of the noise on the link."""
    steps: tuple[Step, ...]

    def serialise(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Story:
        data = json.loads(text)
        data["steps"] = tuple((verb, a, b) for verb, a, b in data["steps"])
        return cls(**{**data, "generations": tuple(data["generations"])})


def invent(seed: int) -> Story:
    """The same for the same seed."""
    dice = random.Random(seed)
    verbs, weights = zip(*WEIGHTS.items(), strict=True)
    steps = [
        (verb, dice.randrange(1 << 16), dice.randrange(1 << 16))
        for verb in dice.choices(verbs, weights, k=dice.randint(10, 60))
    ]
    return Story(
        dice.choice(tuple(CASES)),
        tuple(dice.choice(GENERATIONS).name for _ in DEVICES),
        dice.random() < 0.7,
        dice.choice(PACKET_ID_LIMITS),
        seed,
        tuple(steps),
    )


def vary(story: Story, dice: random.Random) -> Story:
    """Some steps out, some repeated, some new."""
    steps = list(story.steps)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(steps) + 1)
        match dice.randrange(3):
            case 0:
                del steps[at : at + dice.randint(1, 4)]
            case 1:
                steps[at:at] = steps[at - dice.randint(0, min(5, at)) : at]
            case _:
                steps[at:at] = dice.sample(invent(dice.randrange(1 << 30)).steps, 3)
    return replace(story, steps=tuple(steps[:90]), seed=dice.randrange(1 << 30))


def tell(story: Story) -> frozenset[str]:
    """Raises ``AssertionError``, or whatever the gateway raised; returns what happened in which step."""
    limits = {"packet_id_limit": story.packet_id_limit} if story.packet_id_limit else {}
    with World(
        CASES[story.protection],
        seed=story.seed,
        early_negotiation=story.early_negotiation,
        generations=story.generations,
        **limits,
    ) as world:
        teller = Teller(world, story)
        features: set[str] = set()
        before = world.happened()
        for verb, a, b in story.steps:
            getattr(teller, verb)(a, b)
            world.check()
            after = world.happened()
            features |= {f"{verb}: {what}" for what in after - before}
            before = after
        world.settle()
        world.check_empty()
        return frozenset(features)


def shorten(story: Story, fails: Callable[[Story], bool], most: int = 300) -> Story:
    """Fewer steps that still fail."""
    size = len(story.steps) // 2
    while size and most > 0:
        at = 0
        while at < len(story.steps) and most > 0:
            shorter = replace(story, steps=story.steps[:at] + story.steps[at + size :])
            most -= 1
            if fails(shorter):
                story = shorter
            else:
                at += size
        size //= 2
    return story


def stories_in(path: Path) -> Iterator[Story]:
    for line in path.read_text().splitlines():
        if line:
            yield Story.parse(line)


WEIGHTS = {
    "pass_time": 24,
    "start": 10,
    "crash": 5,
    "vanish": 2,
    "leave": 3,
    "client_renegotiates": 5,
    "server_renegotiates": 5,
    "both_renegotiate": 3,
    "send": 8,
    "send_late": 3,
    "receive": 5,
    "push_request": 3,
    "tell_client": 1,
    "float_": 4,
    "swap": 2,
    "terminate": 2,
    "restart": 1,
    "revoke": 2,
    "pardon": 2,
    "slow_login": 2,
    "change_link": 4,
    "forged_reset": 5,
    "invented_control": 5,
    "repeated_packet": 8,
    "changed_packet": 8,
    "forged_data": 4,
    "reflected_packet": 2,
    "garbage": 2,
    "rival": 4,
    "settle": 1,
}


class Teller:
    """Every verb takes two numbers and makes of them what it needs, so that any part of a story is one too."""

    def __init__(self, world: World, story: Story) -> None:
        self.world = world
        self._plain = story.protection == "plain"

    def _device(self, a: int) -> Device:
        return self.world.devices[a % len(self.world.devices)]

    # -- devices

    def pass_time(self, a: int, b: int) -> None:
        self.world.pass_time(TIMES[a % len(TIMES)])

    def start(self, a: int, b: int) -> None:
        device = self._device(a)
        if device.client is None:
            device.start()
            self.world.pass_time(TIMES[b % 5])

    def crash(self, a: int, b: int) -> None:
        if self._device(a).running:
            self._device(a).start()

    def vanish(self, a: int, b: int) -> None:
        self._device(a).vanish()

    def leave(self, a: int, b: int) -> None:
        device = self._device(a)
        if device.client is not None:
            device.client.exit()
            device.pump()
            device.running = False
            self.world.pass_time(TIMES[b % 4])
            device.vanish()

    def client_renegotiates(self, a: int, b: int) -> None:
        device = self._device(a)
        if device.client is not None and device.connected:
            device.client.renegotiate(self.world.now)
            device.pump()

    def server_renegotiates(self, a: int, b: int) -> None:
        device = self._device(a)
        connection = self.world.connection_of(device.client.session_id) if device.client is not None else None
        if connection is not None:
            connection.session.renegotiate(self.world.now)
            self.world.control.pump(connection, self.world.now)

    def both_renegotiate(self, a: int, b: int) -> None:
        for verb in (self.client_renegotiates, self.server_renegotiates)[:: 1 if b % 2 else -1]:
            verb(a, b)

    def send(self, a: int, b: int) -> None:
        """Under any key that the client has."""
        device = self._device(a)
        keys = device.data_keys()
        if keys and device.connected:
            self.world.send(device, keys[b % len(keys)])

    def send_late(self, a: int, b: int) -> None:
        self.world.send_former(self._device(a))

    def receive(self, a: int, b: int) -> None:
        leases = [str(c.grant.lease.v4) for c in self.world.connections() if c.grant is not None]
        self.world.inject(leases[a % len(leases)] if leases else "10.100.0.9")

    def push_request(self, a: int, b: int) -> None:
        device = self._device(a)
        client = device.client
        if client is not None and client.failed is None and client._newest.tls.established:
            client.send_message("PUSH_REQUEST")
            device.pump()

    def float_(self, a: int, b: int) -> None:
        device = self._device(a)
        device.address = self.world.new_address(device)
        if b % 2:
            self.send(a, b)

    def swap(self, a: int, b: int) -> None:
        """The NAT gives the first device's address to the second, and another one to the first."""
        first, second = self._device(a), self._device(b)
        if first is not second:
            second.address, first.address = first.address, self.world.new_address(first)
            self.send(b, a)

    # -- operators

    def tell_client(self, a: int, b: int) -> None:
        for connection in self.world.connections():
            if connection.grant is not None and connection.established:
                connection.session.change_options(connection.grant.options, ["ping 7"])
                self.world.control.pump(connection, self.world.now)

    def terminate(self, a: int, b: int) -> None:
        self.world.terminate(self._device(a))

    def restart(self, a: int, b: int) -> None:
        self.world.restart()

    def revoke(self, a: int, b: int) -> None:
        self.world.set_revoked(self._device(a).user, True)

    def pardon(self, a: int, b: int) -> None:
        self.world.set_revoked(self._device(a).user, False)
        for device in self.world.devices:
            if device.client is None and b % 2:
                device.start()

    def slow_login(self, a: int, b: int) -> None:
        self.world.login_s = LOGIN_TIMES[a % len(LOGIN_TIMES)]

    def change_link(self, a: int, b: int) -> None:
        self.world.link = NoisyLink(b, **LINKS[a % len(LINKS)])

    def settle(self, a: int, b: int) -> None:
        self.world.settle()

    # -- strangers: anybody can send from anywhere

    def _source(self, a: int) -> SocketAddress:
        """A device's address, as often as one of their own."""
        places = [STRANGER, *(device.address for device in self.world.devices)]
        return places[a % len(places)]

    def _attack(self, packet: bytes, source: SocketAddress, *, pending_may_change: bool = False) -> None:
        told = len(self.world.told)
        with self.world.undisturbed(pending_may_change=pending_may_change):
            self.world.deliver(packet, source)
        answers = [answer for answer, address in self.world.told[told:] if address == STRANGER]
        assert len(answers) <= 1 and all(len(answer) <= len(packet) + 12 for answer in answers), "amplified"

    def forged_reset(self, a: int, b: int) -> None:
        """Genuine but for the address, as any holder of the shared key can make it."""
        packet = ControlPacket(Opcode.HARD_RESET_CLIENT_V2, 0, b.to_bytes(8, "big") or b"\1" * 8, packet_id=0)
        self._attack(serialise_packet(packet), self._source(a))
        resets = [packet for packet, _ in self.world.seen if packet[0] >> 3 in (7, 10)]
        if resets:
            self._attack(resets[b % len(resets)], self._source(a), pending_may_change=True)

    def invented_control(self, a: int, b: int) -> None:
        """Any opcode and key id, under the session id of a live client where the protection is what keeps it out, or
        under a guessed one."""
        connections = self.world.connections()
        session_id, source = b"stranger", self._source(a)
        if connections and b % 4 and not self._plain:
            victim = connections[b % len(connections)]
            session_id, source = victim.client_session_id, victim.link.remote
        opcode = INVENTED_OPCODES[a % len(INVENTED_OPCODES)]
        packet_id = None if opcode is Opcode.ACK_V1 else b % 16
        packet = ControlPacket(opcode, b % 8 if opcode in (3, 4, 5) else 0, session_id, (), b"", packet_id)
        self._attack(serialise_packet(packet) + bytes(a % 100), source)

    def repeated_packet(self, a: int, b: int) -> None:
        """What the gateway has had already, from where it came or from elsewhere."""
        if self.world.seen:
            packet, source = self.world.seen[b % len(self.world.seen)]
            self._attack(packet, source if a % 3 else self._source(a), pending_may_change=self._plain)

    def changed_packet(self, a: int, b: int) -> None:
        """On the path without the key, so not for control packets that no key protects."""
        if self.world.seen:
            packet, source = self.world.seen[b % len(self.world.seen)]
            if is_data(packet) or not self._plain:
                # behind the clear header, which says whose it is, or in it
                dice = random.Random(a)
                changed = bytearray(packet)
                changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
                cut = len(changed) if a % 4 else dice.randrange(len(changed)) + 1
                resets = packet[0] >> 3 in (7, 10)  # one whose key lies behind the change begins anew
                self._attack(bytes(changed[:cut]), source if a % 3 else self._source(a), pending_may_change=resets)

    def forged_data(self, a: int, b: int) -> None:
        peers = [*self.world.plane.forwarder.peers, a % 7]
        header = (9 << 27 | (b % 8) << 24 | peers[a % len(peers)]).to_bytes(4, "big")
        self._attack(header + random.Random(b).randbytes(b % 90), self._source(a))

    def reflected_packet(self, a: int, b: int) -> None:
        """Ours, back to us."""
        if self.world.told:
            packet, address = self.world.told[b % len(self.world.told)]
            self._attack(packet, address if a % 2 else self._source(a))

    def rival(self, a: int, b: int) -> None:
        """The last three go on for as long as they can."""
        self.world.rivals = [*self.world.rivals[-2:], Rival(self.world, self._device(a).address)]

    def garbage(self, a: int, b: int) -> None:
        self._attack(random.Random(b).randbytes(a % 200), self._source(a))
