"""The replay window (openvpn-wire.md 11.5), 1984 ids wide. Authenticate first, then test and set."""

import pytest
from helpers.packets import udp
from helpers.plane import TARGET, Gateway

from cvpnd.dataplane.reference_keys import ReplayWindow

WINDOW = 1984
FRESH, STALE = True, False

EDGES = {
    "in order": [(1, FRESH), (2, FRESH), (3, FRESH)],
    "the same twice": [(1, FRESH), (1, STALE), (2, FRESH), (2, STALE), (1, STALE)],
    "zero is no packet id": [(0, STALE), (1, FRESH), (0, STALE)],
    "swapped": [(2, FRESH), (1, FRESH), (2, STALE), (1, STALE)],
    "backwards": [(9, FRESH), (8, FRESH), (7, FRESH), (8, STALE), (6, FRESH), (9, STALE)],
    "may start anywhere": [(5000, FRESH), (5000, STALE), (4999, FRESH), (1, STALE)],
    "the oldest in the window": [(WINDOW, FRESH), (1, FRESH), (1, STALE)],
    "just behind the window": [(WINDOW + 1, FRESH), (1, STALE), (2, FRESH)],
    "far behind the window": [(1_000_000, FRESH), (1, STALE), (1_000_000 - WINDOW, STALE)],
    "a jump forgets nothing inside": [(1, FRESH), (WINDOW - 1, FRESH), (1, STALE), (2, FRESH)],
    "a jump over the window starts it anew": [
        (5, FRESH),
        (5 + 10 * WINDOW, FRESH),
        (5, STALE),
        (4 + 10 * WINDOW, FRESH),
    ],
    "a jump of a multiple of the ring": [(64, FRESH), (64 + 2048, FRESH), (64, STALE), (65 + 2048 - WINDOW, FRESH)],
    "ids that fall on the same bit": [(7, FRESH), (7 + 2048, FRESH), (7 + 4096, FRESH), (7 + 2048, STALE)],
    "word borders": [(63, FRESH), (64, FRESH), (65, FRESH), (63, STALE), (128, FRESH), (127, FRESH), (64, STALE)],
    "the largest ids": [(0xFFFFFFFE, FRESH), (0xFFFFFFFF, FRESH), (0xFFFFFFFE, STALE), (0xFFFFFFFF, STALE), (1, STALE)],
}


@pytest.mark.parametrize("edges", EDGES.values(), ids=EDGES.keys())
def test_edges_of_the_window(gateway: Gateway, edges: list[tuple[int, bool]]) -> None:
    client = gateway.client()
    sent = [(number.to_bytes(2, "big"), packet_id, fresh) for number, (packet_id, fresh) in enumerate(edges)]
    with gateway.dropping(replayed=sum(not fresh for _, _, fresh in sent)):
        for mark, packet_id, _ in sent:
            client.send(udp(client.address, TARGET, mark), packet_id=packet_id)
        arrived = [packet[-2:] for packet in gateway.barrier()]
    assert arrived == [mark for mark, _, fresh in sent if fresh]


@pytest.mark.parametrize("edges", EDGES.values(), ids=EDGES.keys())
def test_edges_of_the_plain_window(edges: list[tuple[int, bool]]) -> None:
    window = ReplayWindow()
    assert [window.accept(packet_id) for packet_id, _ in edges] == [fresh for _, fresh in edges]


def test_a_forged_packet_does_not_move_the_window(gateway: Gateway) -> None:
    client = gateway.client()
    forged = bytearray(client.seal(udp(client.address, TARGET), packet_id=4_000_000))
    forged[-1] ^= 1
    with gateway.dropping(auth_failed=1):
        client.send_raw(bytes(forged))
    client.send(udp(client.address, TARGET), packet_id=1)
    assert gateway.delivered()


def test_each_key_has_its_own_window(gateway: Gateway) -> None:
    client = gateway.client()
    client.install_key(1)
    for key_id in (0, 1):
        client.send(udp(client.address, TARGET), key_id=key_id, packet_id=100)
        assert gateway.delivered()
    with gateway.dropping(replayed=2):
        for key_id in (0, 1):
            client.send(udp(client.address, TARGET), key_id=key_id, packet_id=100)


def test_a_replaced_key_starts_a_new_window(gateway: Gateway) -> None:
    client = gateway.client()
    client.send(udp(client.address, TARGET), packet_id=100)
    assert gateway.delivered()
    client.install_key(0)
    client.send(udp(client.address, TARGET), packet_id=1)
    assert gateway.delivered()


def test_each_peer_has_its_own_window(gateway: Gateway) -> None:
    for peer in (1, 2):
        client = gateway.client(peer, (f"10.100.0.{peer + 1}",))
        client.send(udp(client.address, TARGET), packet_id=1)
        assert gateway.delivered()


def test_a_replayed_packet_does_not_prove_that_the_peer_is_alive(gateway: Gateway) -> None:
    client = gateway.client()
    packet = client.seal(udp(client.address, TARGET))
    client.send_raw(packet)
    gateway.delivered()
    idle_s = gateway.plane.peer_stats(client.peer_id).idle_s
    with gateway.dropping(replayed=1):
        client.send_raw(packet)
    assert gateway.plane.peer_stats(client.peer_id).idle_s >= idle_s
