"""Who owns what: descriptors, ids, removal in any order, several workers, the end."""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

import pytest
from helpers.packets import ACK, PING, data_keys, tcp, udp
from helpers.plane import (
    BYSTANDER,
    TARGET,
    TARGET_V6,
    Gateway,
    PlaneMaker,
    address_of,
    open_descriptors,
    readable,
    udp_socket,
    wait_for,
)

from cvpnd.dataplane.api import DataPlane, PeerSettings, SocketAddress
from cvpnd.server.sockets import open_udp_group

LEASE = ip_address("10.100.0.2")


@pytest.fixture
def plane(make_plane: PlaneMaker):
    plane = make_plane(2)
    yield plane
    plane.close()


def tun_pairs(count: int) -> tuple[list[socket.socket], list[int]]:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(count)]
    return [ours for ours, _ in pairs], [theirs.detach() for _, theirs in pairs]


def udp_fds(count: int) -> list[int]:
    return [udp_socket().detach() for _ in range(count)]


def is_closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


# -- ownership


def test_close_closes_every_descriptor_and_may_be_called_again(make_plane: PlaneMaker) -> None:
    before = open_descriptors()
    plane = make_plane(3)
    ours, theirs = tun_pairs(3)
    plane.add_endpoint(1, theirs)
    plane.add_listener(1, 1, udp_fds(3))
    plane.add_peer(1, PeerSettings(1, (LEASE,), 1, 0, 0))
    near, far = socket.socketpair()
    plane.attach_tcp(1, far.detach(), b"")
    for sock in (*ours, near):
        sock.close()
    plane.close()
    plane.close()
    assert open_descriptors() == before


def test_removal_closes_what_was_handed_over(plane: DataPlane) -> None:
    before = open_descriptors()
    ours, theirs = tun_pairs(2)
    sockets = udp_fds(2)
    plane.add_endpoint(1, theirs)
    plane.add_listener(1, 1, sockets)
    plane.add_peer(1, PeerSettings(1, (LEASE,), 1, 0, 0))
    near, far = socket.socketpair()
    connection = far.detach()
    plane.attach_tcp(1, connection, b"")
    plane.remove_peer(1)
    assert is_closed(connection)
    plane.remove_listener(1)
    assert all(map(is_closed, sockets))
    plane.remove_endpoint(1)
    assert all(map(is_closed, theirs))
    for sock in (*ours, near):
        sock.close()
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("call", "error"),
    [
        pytest.param(lambda plane, fds: plane.add_endpoint(1, fds), ValueError, id="endpoint id taken"),
        pytest.param(lambda plane, fds: plane.add_endpoint(-1, fds), ValueError, id="negative endpoint"),
        pytest.param(lambda plane, fds: plane.add_endpoint(2, fds[:1]), ValueError, id="too few queues"),
        pytest.param(lambda plane, fds: plane.add_endpoint(2, [*fds, *udp_fds(1)]), ValueError, id="too many queues"),
        pytest.param(lambda plane, fds: plane.add_listener(1, 1, fds), ValueError, id="listener id taken"),
        pytest.param(lambda plane, fds: plane.add_listener(2, 1, fds[:1]), ValueError, id="too few sockets"),
        pytest.param(lambda plane, fds: plane.add_listener(2, 7, fds), KeyError, id="listener of no endpoint"),
        pytest.param(lambda plane, fds: plane.attach_tcp(7, fds[0], b""), KeyError, id="connection of no peer"),
    ],
)
def test_descriptors_are_closed_when_the_call_raises_and_nothing_has_changed(
    plane: DataPlane, call: Callable[[DataPlane, list[int]], None], error: type[Exception]
) -> None:
    ours, theirs = tun_pairs(2)
    plane.add_endpoint(1, theirs)
    plane.add_listener(1, 1, udp_fds(2))
    before = open_descriptors()
    handed_over = udp_fds(2)
    with pytest.raises(error):
        call(plane, handed_over)
    for fd in handed_over:  # those that were not part of the call
        if not is_closed(fd) and error is not KeyError:
            assert fd == handed_over[1]
        with suppress(OSError):
            os.close(fd)
    assert open_descriptors() == before
    assert not any(map(is_closed, theirs))
    with pytest.raises(KeyError):
        plane.remove_listener(2)
    with pytest.raises(KeyError):
        plane.remove_endpoint(2)
    for sock in ours:
        sock.close()


@pytest.mark.parametrize("which", [0, 1])
def test_a_descriptor_that_is_none_is_refused_and_the_others_are_closed(plane: DataPlane, which: int) -> None:
    ours, theirs = tun_pairs(2)
    plane.add_endpoint(1, theirs)
    before = open_descriptors()
    for add in (lambda fds: plane.add_endpoint(2, fds), lambda fds: plane.add_listener(2, 1, fds)):
        fds = udp_fds(2)
        os.close(fds[which])
        with pytest.raises((OSError, ValueError)):
            add(fds)
        assert open_descriptors() == before
    plane.add_listener(2, 1, udp_fds(2))  # the same numbers again
    plane.remove_listener(2)
    with pytest.raises(KeyError):
        plane.remove_endpoint(2)
    for sock in ours:
        sock.close()


def test_a_descriptor_that_cannot_be_waited_for_leaves_nothing_behind(plane: DataPlane) -> None:
    before = open_descriptors()
    for _ in range(2):  # the second time with the same numbers
        with pytest.raises(OSError):
            plane.add_endpoint(1, [*udp_fds(1), os.open("/dev/null", os.O_RDWR)])
        assert open_descriptors() == before
    ours, theirs = tun_pairs(2)
    plane.add_endpoint(1, theirs)
    for sock in ours:
        sock.close()


# -- ids and removal


def test_an_endpoint_in_use_cannot_be_removed(gateway: Gateway) -> None:
    client = gateway.client()
    with pytest.raises(ValueError):
        gateway.plane.remove_endpoint(1)
    gateway.plane.remove_peer(client.peer_id)
    with pytest.raises(ValueError):
        gateway.plane.remove_endpoint(1)
    gateway.plane.remove_listener(1)
    gateway.plane.remove_endpoint(1)
    with pytest.raises(KeyError):
        gateway.plane.remove_endpoint(1)
    gateway.add_endpoint(1)
    gateway.add_listener(1, 1)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    client = gateway.client()
    client.send(udp(client.address, TARGET))
    assert gateway.delivered()


def test_without_its_listener_a_peer_is_not_ready_until_it_has_another(gateway: Gateway) -> None:
    client = gateway.client()
    gateway.add_listener(2, 1)
    gateway.plane.remove_listener(1)
    with gateway.dropping(not_ready=1):
        gateway.inject(udp(TARGET, client.address))
    gateway.plane.set_remote(client.peer_id, 2, client.own_address(), "")
    gateway.inject(udp(TARGET, client.address))
    _, source = client.receive_raw()
    assert source == gateway.ports[2][0]


def test_a_listener_that_goes_takes_nobody_elses_remote_along(gateway: Gateway) -> None:
    gateway.add_listener(2, 1)
    client, other = gateway.client(), gateway.client(2, ("10.100.0.3",))
    gateway.plane.set_remote(other.peer_id, 2, other.own_address(), "")
    gateway.plane.remove_listener(2)
    with gateway.dropping(not_ready=1):
        gateway.inject(udp(TARGET, other.address))
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().peer_id == client.peer_id


def test_a_removed_peers_lease_leads_nowhere_and_may_be_given_again(gateway: Gateway) -> None:
    first = gateway.client()
    gateway.plane.remove_peer(first.peer_id)
    with gateway.dropping(no_route=2):
        gateway.inject(udp(TARGET, first.address))
        gateway.inject(udp(TARGET_V6, first.address_v6))
    second = gateway.client(2)
    gateway.inject(udp(TARGET, second.address))
    assert second.receive().peer_id == 2
    assert first.received_nothing()


def test_a_new_peer_under_an_old_id_starts_from_nothing(gateway: Gateway) -> None:
    first = gateway.client()
    first.send(udp(first.address, TARGET))
    gateway.delivered()
    gateway.plane.remove_peer(first.peer_id)
    second = gateway.client(1, ("10.100.0.3",), connect=False, key=False)
    with gateway.dropping(no_key=1, not_ready=1, no_route=1):
        first.send(udp(first.address, TARGET))
        gateway.inject(udp(TARGET, second.address))
        gateway.inject(udp(TARGET, first.address))
    stats = gateway.plane.peer_stats(1)
    assert (stats.packets_in, stats.bytes_in) == (0, 0)


def test_many_peers_come_and_go(gateway: Gateway) -> None:
    """Tables grow, and removed entries do not stay in the way."""
    settings = {number: PeerSettings(1, (LEASE + 10 + number,), 1, 0, 0) for number in range(3000)}
    for number, setting in settings.items():
        gateway.plane.add_peer(number * 5 + 10, setting)
    for number in range(0, 3000, 2):
        gateway.plane.remove_peer(number * 5 + 10)
    client = gateway.client(1)
    with gateway.dropping(not_ready=1500, no_route=1500):
        for number, setting in settings.items():
            gateway.inject(udp(TARGET, setting.addresses[0]))
            if number % 100 == 0:
                gateway.inject(udp(TARGET, client.address))
                client.receive()
    for number in range(1, 3000, 2):
        gateway.plane.remove_peer(number * 5 + 10)
    gateway.inject(udp(TARGET, client.address))
    client.receive()


@pytest.mark.parametrize(
    ("peer_id", "settings", "error"),
    [
        (1, PeerSettings(1, (LEASE + 5,), 1, 0, 0), ValueError),
        (-1, PeerSettings(1, (LEASE + 5,), 1, 0, 0), ValueError),
        (0xFFFFFF, PeerSettings(1, (LEASE + 5,), 1, 0, 0), ValueError),
        (0x1000000, PeerSettings(1, (LEASE + 5,), 1, 0, 0), ValueError),
        (2, PeerSettings(7, (LEASE + 5,), 1, 0, 0), KeyError),
        (2, PeerSettings(1, (LEASE,), 1, 0, 0), ValueError),
        (2, PeerSettings(1, (LEASE + 5, LEASE), 1, 0, 0), ValueError),
        (2, PeerSettings(1, (LEASE + 5, LEASE + 5), 1, 0, 0), ValueError),
        (2, PeerSettings(1, (), 1, 0, 0), ValueError),
        (2, PeerSettings(1, (LEASE + 5,), -1, 0, 0), ValueError),
        (2, PeerSettings(1, (LEASE + 5,), 1, -1, 0), ValueError),
        (2, PeerSettings(1, (LEASE + 5,), 1, 0, -1), ValueError),
        (2, PeerSettings(1, (LEASE + 5,), 1, 0, 0, mss_v4=65536), ValueError),
        (2, PeerSettings(1, (LEASE + 5,), 1, 0, 0, mss_v6=-1), ValueError),
    ],
)
def test_a_peer_that_cannot_be_is_refused(
    gateway: Gateway, peer_id: int, settings: PeerSettings, error: type[Exception]
) -> None:
    client = gateway.client()
    with pytest.raises(error):
        gateway.plane.add_peer(peer_id, settings)
    with gateway.dropping(no_route=1):
        gateway.inject(udp(TARGET, LEASE + 5))
    gateway.plane.add_peer(3, PeerSettings(1, (LEASE + 5,), 1, 0, 0))
    gateway.inject(udp(TARGET, client.address))
    client.receive()


def test_what_does_not_exist_is_a_key_error(gateway: Gateway) -> None:
    plane = gateway.plane
    client = gateway.client()
    here = client.own_address()
    for call in (
        lambda: plane.remove_peer(77),
        lambda: plane.remove_listener(77),
        lambda: plane.remove_endpoint(77),
        lambda: plane.set_remote(77, 1, here, ""),
        lambda: plane.set_remote(client.peer_id, 77, here, ""),
        lambda: plane.peer_stats(77),
        lambda: plane.send_control(77, b"x"),
        lambda: plane.install_key(77, 0, data_keys("x")),
    ):
        with pytest.raises(KeyError):
            call()


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        (SocketAddress("::1", 4000), ""),
        (SocketAddress("127.0.0.1", 4000), "::1"),
        (SocketAddress("127.0.0.1", 0), ""),
        (SocketAddress("127.0.0.1", 65536), ""),
        (SocketAddress("127.0.0.1", -1), ""),
        (SocketAddress("localhost", 4000), ""),
        (SocketAddress("127.0.0.1", 4000), "eth0"),
    ],
)
def test_a_remote_that_cannot_be_is_refused_and_the_old_one_stays(
    gateway: Gateway, remote: SocketAddress, local: str
) -> None:
    client = gateway.client()
    with pytest.raises(ValueError):
        gateway.plane.set_remote(client.peer_id, 1, remote, local)
    gateway.inject(udp(TARGET, client.address))
    client.receive()


def test_a_listener_of_another_endpoint_is_no_way_out(gateway: Gateway) -> None:
    gateway.add_endpoint(2)
    gateway.add_listener(2, 2)
    client = gateway.client()
    with pytest.raises(ValueError):
        gateway.plane.set_remote(client.peer_id, 2, client.own_address(), "")


@pytest.mark.parametrize("workers", [0, -1, 65])
def test_an_impossible_number_of_workers(make_plane: PlaneMaker, workers: int) -> None:
    before = open_descriptors()
    with pytest.raises(ValueError):
        make_plane(workers)
    assert open_descriptors() == before


def test_the_plane_says_what_it_is(plane: DataPlane) -> None:
    assert plane.workers == 2
    assert plane.crypto_backend.startswith(("OpenSSL EVP (OpenSSL ", "ipsec-mb (", "Python cryptography "))


def test_events_make_the_descriptor_readable_until_they_are_taken(gateway: Gateway) -> None:
    client = gateway.client()
    assert not readable(gateway.plane.event_fd(), 0)
    client.send(PING)  # control packets come up only behind data of the same client
    client.send_raw(b"\x38stray")
    assert readable(gateway.plane.event_fd())
    assert len(gateway.plane.poll_events()) == 1
    assert not readable(gateway.plane.event_fd(), 0)
    assert gateway.plane.poll_events() == []


# -- several workers


def test_every_worker_has_its_own_queue_and_socket(make_gateway) -> None:
    gateway = make_gateway(workers=3)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    for peer_id in range(6):
        client = gateway.client(peer_id, (f"10.100.0.{peer_id + 2}",))
        packet = udp(client.address, TARGET, bytes([peer_id]))
        client.send(packet)
        assert gateway.delivered(worker=peer_id % 3) == packet
        for worker in range(3):
            gateway.inject(udp(TARGET, client.address, bytes([worker])), worker=worker)
            datagram, source = client.receive_raw()
            assert source == gateway.ports[1][worker]
            assert client.keys[0].open(datagram).packet_id == worker + 1  # one sequence for all workers


def test_a_peer_is_received_by_its_own_worker_only(make_gateway) -> None:
    gateway = make_gateway(workers=2)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    client = gateway.client(4)
    with gateway.dropping(unknown_peer=1):
        client.send_raw(client.seal(udp(client.address, TARGET)), worker=1)
    client.send(udp(client.address, TARGET))
    assert gateway.delivered(worker=0)


def test_packet_ids_are_unique_when_all_workers_send_at_once(make_gateway) -> None:
    gateway = make_gateway(workers=4)
    client = gateway.client()
    each = 300
    for number in range(each):
        for worker in range(4):
            gateway.inject(tcp(TARGET, client.address, number.to_bytes(4, "big"), flags=ACK), worker=worker)
    opened = [client.receive() for _ in range(4 * each)]
    assert sorted(one.packet_id for one in opened) == list(range(1, 4 * each + 1))


def test_the_kernel_steers_each_peer_to_its_worker(make_gateway) -> None:
    """With the real socket group: one port, a socket for each worker, chosen by peer id."""
    gateway = make_gateway(workers=3)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    with udp_socket() as probe:
        port = address_of(probe).port
    group = open_udp_group("127.0.0.1", port, 3)
    gateway.plane.add_listener(2, 1, [sock.detach() for sock in group.data])
    gateway.ports[2] = [("127.0.0.1", port)] * 3
    clients = [gateway.client(peer_id, (f"10.100.0.{peer_id + 2}",), listener=2) for peer_id in range(9)]
    for client in clients:
        packet = udp(client.address, TARGET)
        client.send(packet)
        assert gateway.delivered(worker=client.worker) == packet
        gateway.inject(udp(TARGET, client.address), worker=(client.peer_id + 1) % 3)
        _, source = client.receive_raw()
        assert source == ("127.0.0.1", port)
        client.send_raw(b"\x38control")
        assert readable(group.control)
        assert group.control.recv(100) == b"\x38control"
    assert gateway.drops() == {}
    group.control.close()


def test_changes_while_all_workers_forward_lose_nothing_of_the_others(make_gateway) -> None:
    """Peers, keys, rules and remotes come and go in one thread while packets flow in others."""
    gateway = make_gateway(workers=2)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    steady = [gateway.client(peer_id, (f"10.100.0.{peer_id}",)) for peer_id in (10, 11)]
    stop = threading.Event()
    failures: list[BaseException] = []

    def converse(client) -> None:
        try:
            count = 0
            while not stop.is_set() or count < 50:
                there = udp(client.address, TARGET, count.to_bytes(4, "big"))
                client.send(there)
                assert gateway.delivered(worker=client.worker) == there
                gateway.inject(udp(TARGET, client.address, count.to_bytes(4, "big")), worker=1 - client.worker)
                assert client.receive().payload[-4:] == count.to_bytes(4, "big")
                count += 1
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=converse, args=(client,)) for client in steady]
    for thread in threads:
        thread.start()
    for turn in range(120):
        passing = gateway.client(100 + turn % 7, (f"10.100.1.{turn % 7}",))
        for key_id in range(1, 4):
            passing.install_key(key_id)
        passing.send(udp(passing.address, "192.0.2.1"), key_id=2)
        gateway.inject(udp(TARGET, passing.address), worker=turn % 2)
        gateway.set_rules(1, {"10.20.0.0/16": 1, f"10.{turn + 30}.0.0/17": 2})
        gateway.plane.set_remote(passing.peer_id, 1, passing.own_address(), "127.0.0.1")
        gateway.plane.remove_key(passing.peer_id, 0)
        gateway.plane.remove_peer(passing.peer_id)
        passing.close()
        gateway.clients.remove(passing)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_idle_seconds_count_from_the_last_authentic_packet(gateway: Gateway) -> None:
    client = gateway.client()
    wait_for(lambda: gateway.plane.peer_stats(client.peer_id).idle_s > 0.05)
    client.send(udp(client.address, TARGET))
    gateway.delivered()
    assert gateway.plane.peer_stats(client.peer_id).idle_s < 0.05


def test_closing_with_everything_in_use(make_gateway) -> None:
    gateway = make_gateway(workers=2)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    client = gateway.client()
    for _ in range(200):
        client.send(udp(client.address, TARGET))
        gateway.inject(udp(TARGET, client.address))
    gateway.close()
    with pytest.raises((KeyError, ValueError)):
        gateway.plane.remove_peer(BYSTANDER)
