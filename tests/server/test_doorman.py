"""The doorman on real sockets: who is answered, who comes through, and what changes while it runs."""

from __future__ import annotations

import secrets
import select
import socket
import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from cvpnd.config import StrangersConfig
from cvpnd.dataplane.api import SocketAddress
from cvpnd.server.doorman import ControlDatagram, Doorman
from cvpnd.server.sockets import open_udp_group
from cvpnd.wire.errors import DropReason
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.protection import UNPROTECTED, ControlProtection
from cvpnd.wire.wrap.tls_auth import TlsAuth

HAND_WINDOW_S = 60
GATHER_S = 0.008
"""What ``native/doorman_thread.c`` waits for more where there is much to do."""
PATIENCE_S = 3.0
SOCKETS: list[socket.socket] = []
"""Kept open: a client at a port that another one had is no stranger to the doorman, and gets no cookie."""


class Door:
    """A doorman with one listener, number 7."""

    def __init__(self, host: str, **limits: int) -> None:
        self.doorman = Doorman(secrets.token_bytes(32), StrangersConfig(**limits))
        self.group = open_udp_group(host, 0, 1)
        cookie = self.doorman.cookie(HAND_WINDOW_S)
        self.doorman.add_listener(7, self.group.control, cookie, UNPROTECTED)
        self.port = self.group.control.getsockname()[1]

    def fetch(self, count: int) -> list[ControlDatagram]:
        """``count`` packets, or as many as come in time."""
        came: list[ControlDatagram] = []
        end = time.monotonic() + PATIENCE_S
        while len(came) < count and time.monotonic() < end:
            if select.select([self.doorman.event_fd()], [], [], 0.1)[0]:
                came += self.doorman.fetch()
        return came

    def dropped(self, reason: DropReason, count: int) -> bool:
        end = time.monotonic() + PATIENCE_S
        while self.doorman.drops()[reason] < count and time.monotonic() < end:
            time.sleep(0.005)
        return self.doorman.drops()[reason] == count

    def close(self) -> None:
        self.doorman.close()
        self.group.close()


@pytest.fixture
def open_door() -> Iterator[Callable[..., Door]]:
    opened: list[Door] = []

    def make(host: str = "127.0.0.1", **limits: int) -> Door:
        opened.append(Door(host, **limits))
        return opened[-1]

    yield make
    for door in opened:
        door.close()
    while SOCKETS:
        SOCKETS.pop().close()


class Client:
    def __init__(self, door: Door, to: str = "127.0.0.1", session_id: bytes = b"") -> None:
        self.to = (to, door.port)
        self.session_id = session_id or secrets.token_bytes(8)
        self.socket = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("::1" if ":" in to else "127.0.0.1", 0))
        self.socket.settimeout(PATIENCE_S)
        SOCKETS.append(self.socket)

    @property
    def address(self) -> SocketAddress:
        return SocketAddress(*self.socket.getsockname()[:2])

    def reset(self, session_id: bytes = b"") -> None:
        self.socket.sendto(b"\x38" + (session_id or self.session_id) + bytes(5), self.to)

    def echo(self, cookie: bytes) -> bytes:
        packet = b"\x20" + self.session_id + b"\x01" + bytes(4) + cookie + b"\x00\x00\x00\x01" + b"hello"
        self.socket.sendto(packet, self.to)
        return packet

    def answer(self) -> tuple[bytes, str]:
        reply, source = self.socket.recvfrom(2048)
        assert (reply[0], reply[9:14], reply[14:22]) == (0x40, b"\x01" + bytes(4), self.session_id)
        return reply[1:9], source[0]


@pytest.mark.parametrize(("bound", "to"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), ("::", "::1")])
def test_stranger_comes_through_once_it_echoes_the_cookie(open_door, bound, to):
    door = open_door(bound)
    client = Client(door, to)
    client.reset()
    cookie, source = client.answer()
    assert source == to, "from the address it was sent to"
    assert door.doorman.fetch() == []
    packet = client.echo(cookie)
    assert door.fetch(1) == [ControlDatagram(7, client.address, to, packet, proven=True)]
    behind = b"\x20" + client.session_id + b"behind it"
    client.socket.sendto(behind, client.to)
    assert door.fetch(1) == [ControlDatagram(7, client.address, to, behind)], "although nobody has spoken of a session"
    door.doorman.forget(7, client.address, client.session_id)
    client.socket.sendto(b"\x20" + client.session_id + bytes(5), client.to)
    assert door.dropped(DropReason.NO_ACK, 1)


def test_both_halves_of_a_long_hello_come_through(open_door):
    """They are read in one batch, as the doorman waits for what comes with a packet."""
    door = open_door()
    for _ in range(50):
        client = Client(door)
        client.reset()
        cookie, _ = client.answer()
        second = b"\x20" + client.session_id + b"\x00" + b"\x00\x00\x00\x02" + b"more"
        first = client.echo(cookie)
        client.socket.sendto(second, client.to)
        assert [datagram.packet for datagram in door.fetch(2)] == [first, second]
    assert door.doorman.drops()[DropReason.LATE_PACKET] == 0


def test_known_sessions_come_through_and_the_established_first(open_door):
    door = open_door()
    clients = [Client(door) for _ in range(3)]
    stranger, handshake, established = clients
    stranger.reset()
    cookie, _ = stranger.answer()
    door.doorman.know(7, handshake.address, handshake.session_id, established=False)
    door.doorman.know(7, established.address, established.session_id, established=True)
    expected = [stranger.echo(cookie), handshake.echo(cookie), established.echo(cookie)]
    time.sleep(0.1)
    came = door.fetch(3)
    assert [datagram.packet for datagram in came] == expected[::-1]
    assert [datagram.proven for datagram in came] == [False, False, True], "of sessions it knows it looks at no cookie"
    assert door.doorman.totals()["known_packets"] == 2


def test_who_is_known_is_no_stranger_beside_strangers(open_door):
    """Some of them are read in one batch, and served one after the other."""
    door = open_door()
    known, stranger = Client(door), Client(door)
    door.doorman.know(7, known.address, known.session_id, established=True)
    said = [b"\x20" + known.session_id + b"\x00" + number.to_bytes(4, "big") + b"more" for number in range(2, 42)]
    for packet in said:
        stranger.reset(secrets.token_bytes(8))
        known.socket.sendto(packet, known.to)
    assert [datagram.packet for datagram in door.fetch(len(said))] == said
    assert sum(door.doorman.drops().values()) == 0


def test_reset_from_where_an_established_session_is_is_not_answered_here(open_door):
    door = open_door()
    client = Client(door)
    door.doorman.know(7, client.address, b"another!", established=False)
    client.reset()
    client.answer()
    door.doorman.know(7, client.address, b"another!", established=True)
    for _ in range(20):
        client.reset()
    assert len(door.fetch(20)) < 10, "and asked about a few times a second at most"
    client.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.answer()
    client.socket.sendto(b"\x30data without a number", client.to)
    assert door.fetch(1)[0].packet == b"\x30data without a number"


def test_reset_from_where_a_handshake_is_under_way_is_not_answered(open_door):
    """Whoever is there takes any answer for its server's, and starts over. It is another client once that is silent."""
    door = open_door()
    client = Client(door)
    client.reset()
    cookie, _ = client.answer()
    packet = client.echo(cookie)
    assert [datagram.packet for datagram in door.fetch(1)] == [packet]
    door.doorman.know(7, client.address, client.session_id, established=False)
    for _ in range(20):
        client.reset(secrets.token_bytes(8))
    assert door.dropped(DropReason.LIVE_CLIENT, 20)
    assert door.doorman.totals()["answered_resets"] == 1
    other = Client(door)
    other.reset()
    other.answer()
    time.sleep(1.6)
    client.session_id = secrets.token_bytes(8)
    client.reset()
    client.answer()


def test_answers_are_limited_by_source_and_in_all(open_door):
    for limits in ({"resets_per_source_per_s": 10}, {"resets_per_s": 10}):
        door = open_door(**limits)
        client = Client(door)
        for _ in range(200):
            client.reset(secrets.token_bytes(8))
        deadline = time.monotonic() + PATIENCE_S
        while door.doorman.totals()["stranger_packets"] < 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 10 <= door.doorman.totals()["answered_resets"] <= 20, limits
        assert door.doorman.drops()[DropReason.RATE_LIMITED] >= 180
        door.doorman.set_limits(StrangersConfig())
        time.sleep(0.05)
        later = Client(door)
        later.reset()
        later.answer()


def test_new_sessions_are_limited_and_known_ones_are_not(open_door):
    door = open_door(sessions_per_s=10)
    for _ in range(100):
        client = Client(door)
        client.reset()
        client.echo(client.answer()[0])
    assert 10 <= len(door.fetch(100)) <= 20
    door.doorman.know(7, client.address, client.session_id, established=False)
    client.echo(bytes(8))
    assert len(door.fetch(1)) == 1


def test_nobody_new_when_it_no_longer_accepts(open_door):
    door = open_door()
    client = Client(door)
    door.doorman.know(7, client.address, client.session_id, established=False)
    door.doorman.stop_accepting(7)
    stranger = Client(door)
    stranger.reset()
    assert door.dropped(DropReason.CLOSED, 1)
    client.echo(bytes(8))
    assert len(door.fetch(1)) == 1


def test_protection_is_replaced_while_it_runs(open_door):
    door = open_door()
    client = Client(door)
    door.doorman.set_protection(7, ControlProtection(TlsAuth(bytes(256), 0)))
    client.reset()
    assert door.dropped(DropReason.NOT_AUTHENTIC, 1)
    door.doorman.set_protection(7, ControlProtection(PLAIN))
    client.reset()
    client.answer()


def test_listeners_come_and_go(open_door):
    door = open_door()
    client = Client(door)
    with pytest.raises(ValueError, match="7"):
        door.doorman.add_listener(7, door.group.control, door.doorman.cookie(60), UNPROTECTED)
    door.doorman.know(7, client.address, client.session_id, established=True)
    door.doorman.remove_listener(7)
    with pytest.raises(KeyError):
        door.doorman.remove_listener(7)
    door.doorman.add_listener(7, door.group.control, door.doorman.cookie(60), UNPROTECTED)
    client.reset()
    client.answer()  # its session went with the listener
    door.doorman.close()
    door.doorman.close()
    with pytest.raises(ValueError, match="gone"):
        door.doorman.remove_listener(7)


def test_datagram_longer_than_any_control_packet_is_not_cut(open_door):
    door = open_door()
    client = Client(door)
    door.doorman.know(7, client.address, client.session_id, established=True)
    for length in (2048, 2049):
        client.socket.sendto((b"\x20" + client.session_id).ljust(length, b"x"), client.to)
    assert door.dropped(DropReason.TOO_LONG, 1)
    assert [len(datagram.packet) for datagram in door.fetch(1)] == [2048]


def test_who_comes_alone_is_answered_at_once_and_packets_gather_where_there_are_many(open_door):
    door = open_door()
    client = Client(door)

    def answered_after_s() -> float:
        began = time.monotonic()
        client.reset()
        client.answer()
        return time.monotonic() - began

    first = [answered_after_s() for _ in range(40)]
    then = [answered_after_s() for _ in range(9)]
    assert min(first[:10]) < GATHER_S, "no wait"
    assert statistics.median(then) >= GATHER_S, "after so many"
    time.sleep(1.0)
    assert min(answered_after_s() for _ in range(10)) < GATHER_S, "alone again"
