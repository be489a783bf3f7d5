"""Finding connections, counting strangers, and one heap of timers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cvpnd.dataplane.api import SocketAddress
from cvpnd.server.admission import prefixes
from cvpnd.server.connection import Connection, DeviceKey, Phase
from cvpnd.server.link import UdpLink
from cvpnd.server.session_table import SUPERSEDED_TIMERS, SessionTable

HERE = SocketAddress("192.0.2.7", 40000)
THERE = SocketAddress("198.51.100.9", 50000)


@dataclass
class Client:
    """A connection needs neither endpoint nor session to be found."""

    session_id: bytes = b"client-1"
    source: SocketAddress = HERE
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        link = UdpLink(None, 0, self.source, "")  # type: ignore[arg-type]
        self.connection = Connection(None, None, link, self.session_id, 0.0, 0.0)  # type: ignore[arg-type]


class RecordedDoor:
    """Whom the doorman would let through, and whether first."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, SocketAddress, bytes], bool] = {}

    def know(self, listener: int, source: SocketAddress, client_session_id: bytes, *, established: bool) -> None:
        self.known[listener, source, client_session_id] = established

    def forget(self, listener: int, source: SocketAddress, client_session_id: bytes) -> None:
        self.known.pop((listener, source, client_session_id), None)


def added(table: SessionTable, **kwargs: object) -> Connection:
    connection = Client(**kwargs).connection  # type: ignore[arg-type]
    table.add(connection)
    return connection


def test_connection_is_found_by_listener_source_and_session_id_together():
    table = SessionTable(RecordedDoor())
    connection = added(table)
    assert table.find(0, HERE, b"client-1") is connection
    assert table.find(1, HERE, b"client-1") is None
    assert table.find(0, THERE, b"client-1") is None
    assert table.find(0, HERE, b"client-2") is None


def test_two_clients_share_an_address_until_one_is_removed():
    table = SessionTable(RecordedDoor())
    old, new = added(table), added(table, session_id=b"client-2")
    assert table.at_source(0, HERE) == [old, new]
    table.remove(old)
    table.remove(old)
    assert table.at_source(0, HERE) == [new]
    assert len(table) == 1


def test_moved_connection_is_found_at_its_new_address_only():
    table = SessionTable(RecordedDoor())
    connection = added(table)
    table.move(connection, THERE, "192.0.2.1")
    assert table.find(0, HERE, b"client-1") is None
    assert table.find(0, THERE, b"client-1") is connection
    table.remove(connection)
    assert table.at_source(0, THERE) == []


def test_open_handshakes_are_counted_by_source_until_they_leave_that_phase():
    table = SessionTable(RecordedDoor())
    first, second = added(table), added(table, session_id=b"client-2")
    added(table, session_id=b"client-3", source=THERE)
    assert (table.handshakes, table.handshakes_from("192.0.2.7"), table.handshakes_from("192.0.2.8")) == (3, 2, 0)
    table.set_phase(first, Phase.ESTABLISHED)
    table.remove(first)
    table.remove(second)
    assert (table.handshakes, table.handshakes_from("192.0.2.7")) == (1, 0)


def begun(table: SessionTable, host: str, number: int = 1) -> list[Connection]:
    sources = [SocketAddress(host, 40_000 + each) for each in range(number)]
    return [added(table, session_id=secrets.token_bytes(8), source=source) for source in sources]


def test_the_oldest_of_the_largest_source_in_the_largest_network_gives_way():
    table = SessionTable(RecordedDoor())
    office = begun(table, "203.0.113.9", 50)
    waiting = begun(table, "192.0.2.1", 300)
    begun(table, "192.0.2.2", 200)
    site = [each for part in range(450) for each in begun(table, f"2001:db8:0:{part:x}::1")]

    def giving_way(host: str) -> Connection | None:
        return table.strangers.giving_way(*prefixes(host), 1000)

    assert table.handshakes == 1000
    assert giving_way("198.51.100.1") is giving_way("203.0.113.10") is giving_way("192.0.2.3") is waiting[0]
    assert giving_way("2001:db8:0:9999::1") is waiting[0]
    assert giving_way("192.0.2.1") is None, "it is the largest itself"
    for each in waiting[:100]:
        table.set_phase(each, Phase.LOGIN)
    assert giving_way("198.51.100.1") is site[0], "who waits for an answer to credentials gives no place"
    for each in site:
        table.remove(each)
    for each in waiting[100:280]:
        table.remove(each)
    assert giving_way("192.0.2.3") is not None
    for host in ("192.0.2.1", "192.0.2.2"):
        for each in [each for each in table if each.link.remote.host == host]:
            table.remove(each)
    assert giving_way("198.51.100.1") is None, "an office of fifty keeps its places"
    for each in office:
        table.remove(each)
    assert len(table.strangers) == len(table.strangers._networks._having) == len(table.strangers._sources) == 0


def test_peer_ids_go_round_and_skip_those_in_use():
    table = SessionTable(RecordedDoor())
    connections = [added(table, session_id=bytes([n]) * 8) for n in range(3)]
    assert [table.assign_peer_id(c) for c in connections] == [0, 1, 2]
    table.free_peer_id(connections[0])
    assert table.by_peer(0) is None
    late = added(table, session_id=b"client-9")
    assert table.assign_peer_id(late) == 3, "the id that was just freed must not be given out at once"
    table._next_peer_id = 1
    assert table.assign_peer_id(connections[0]) == 4


def test_timers_wake_in_order_and_not_after_removal():
    table = SessionTable(RecordedDoor())
    first, second, gone = (added(table, session_id=bytes([n]) * 8) for n in range(3))
    table.set_timer(second, 5.0)
    table.set_timer(first, 3.0)
    table.set_timer(gone, 1.0)
    table.remove(gone)
    assert table.next_deadline() == 3.0
    assert table.pop_due(4.0) == [first]
    assert table.pop_due(10.0) == [second]
    assert table.next_deadline() is None


def test_a_busy_connection_does_not_fill_the_heap():
    table = SessionTable(RecordedDoor())
    connection = added(table)
    for step in range(1000):
        table.set_timer(connection, 60.0 + step / 100)
    assert len(table._timers) == 1
    for step in range(1000):
        table.set_timer(connection, 60.0 + 100 * (step % 2))
    assert len(table._timers) <= 2 * len(table) + SUPERSEDED_TIMERS
    table.set_timer(connection, 10.0)
    assert table.pop_due(11.0) == [connection]
    assert table.pop_due(60.0) == [], "the superseded deadline is not a second wake-up"
    table.set_timer(connection, 100.0)
    table.set_timer(connection, 3600.0)
    assert table.next_deadline() == 3600.0, "nothing is due before"


def test_device_is_found_until_its_latest_connection_ends():
    table = SessionTable(RecordedDoor())
    device = DeviceKey(0, "fingerprint", "", "laptop")
    first, second = added(table), added(table, source=THERE)
    assert table.identify_device(first, device) is None
    assert table.identify_device(second, device) is first
    table.set_phase(first, Phase.ENDED)
    assert table.identify_device(added(table), device) is second, "the end of an older one hides nothing"
    other = added(table)
    assert table.identify_device(other, device._replace(certificate_fingerprint="another")) is None
    table.set_phase(other, Phase.ENDED)
    assert table.identify_device(added(table), device._replace(certificate_fingerprint="another")) is None


def test_who_failed_counts_as_a_stranger_until_forgotten():
    table = SessionTable(RecordedDoor())
    connection = added(table)
    table.set_phase(connection, Phase.ENDED)
    assert (table.handshakes, table.handshakes_from("192.0.2.7")) == (1, 1)
    table.remove(connection)
    assert (table.handshakes, table.handshakes_from("192.0.2.7")) == (0, 0)


def test_forgotten_connections_are_not_held_by_deadlines_that_were_superseded():
    table = SessionTable(RecordedDoor())
    stays = added(table)
    table.set_timer(stays, 3600.0)
    for number in range(1000):
        connection = added(table, session_id=number.to_bytes(8, "big"))
        table.set_timer(connection, 3600.0)  # its renegotiation, an hour away
        table.set_timer(connection, 2.0)
        assert table.pop_due(2.0) == [connection]
        table.remove(connection)
    assert len(table._timers) < 100
    assert table.pop_due(3600.0) == [stays]


def test_the_door_knows_who_can_be_found_here_and_nobody_else():
    door = RecordedDoor()
    table = SessionTable(door)
    connection = added(table)
    assert door.known == {(0, HERE, b"client-1"): False}
    table.set_phase(connection, Phase.LOGIN)
    table.set_phase(connection, Phase.ESTABLISHED)
    assert door.known == {(0, HERE, b"client-1"): True}
    table.move(connection, THERE, "192.0.2.1")
    assert door.known == {(0, THERE, b"client-1"): True}
    table.set_phase(connection, Phase.ENDED)
    assert door.known == {(0, THERE, b"client-1"): False}  # what it still says is absorbed, after everybody else's
    table.remove(connection)
    table.set_phase(connection, Phase.ENDED)
    assert door.known == {}
