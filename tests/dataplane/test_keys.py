"""Key slots over renegotiations (openvpn-wire.md 11.6) and their usage limits (11.4)."""

import pytest
from helpers.packets import PING, data_keys, udp
from helpers.plane import TARGET, Gateway, wait_for

from cvpnd.dataplane.api import DataKeys, Drop, KeyUsed, RekeyNeeded


def sending_key(gateway: Gateway, client) -> int:
    gateway.inject(udp(TARGET, client.address))
    return client.receive().key_id


def test_the_first_key_is_the_sending_key_at_once(gateway: Gateway) -> None:
    client = gateway.client(key=False)
    client.install_key(3)
    assert sending_key(gateway, client) == 3


def test_a_later_key_opens_but_does_not_seal_yet(gateway: Gateway) -> None:
    client = gateway.client()
    client.install_key(1)
    assert sending_key(gateway, client) == 0
    client.send(udp(client.address, TARGET), key_id=0)
    gateway.delivered()
    assert sending_key(gateway, client) == 0


def test_the_first_packet_under_a_later_key_makes_it_the_sending_key(gateway: Gateway) -> None:
    client = gateway.client()
    client.install_key(1)
    client.send(udp(client.address, TARGET), key_id=1)
    gateway.delivered()
    assert gateway.event(KeyUsed) == KeyUsed(client.peer_id, 1)
    assert sending_key(gateway, client) == 1


def test_a_ping_is_a_first_packet_too(gateway: Gateway) -> None:
    client = gateway.client()
    client.install_key(1)
    client.send(PING, key_id=1)
    assert gateway.event(KeyUsed) == KeyUsed(client.peer_id, 1)


def test_key_used_is_told_once(gateway: Gateway) -> None:
    client = gateway.client()
    client.install_key(1)
    for _ in range(3):
        client.send(PING, key_id=1)
    gateway.barrier()
    assert [event for event in gateway.events() if isinstance(event, KeyUsed)] == [KeyUsed(client.peer_id, 1)]


def test_a_packet_that_does_not_authenticate_moves_no_key(gateway: Gateway) -> None:
    client = gateway.client()
    client.install_key(1)
    forged = bytearray(client.seal(udp(client.address, TARGET), key_id=1))
    forged[-1] ^= 1
    with gateway.dropping(auth_failed=1):
        client.send_raw(bytes(forged))
    assert sending_key(gateway, client) == 0
    assert gateway.events() == []


def test_a_lame_duck_still_opens_but_a_late_packet_of_it_does_not_switch_back(gateway: Gateway) -> None:
    client = gateway.client()
    client.install_key(1)
    client.send(PING, key_id=1)
    gateway.event(KeyUsed)
    late = udp(client.address, TARGET, b"late")
    client.send(late, key_id=0)
    assert gateway.delivered() == late
    assert sending_key(gateway, client) == 1
    assert gateway.events() == []


def test_use_key_switches_without_waiting_for_the_peer(gateway: Gateway) -> None:
    client = gateway.client()
    client.install_key(1)
    gateway.plane.use_key(client.peer_id, 1)
    assert sending_key(gateway, client) == 1
    client.send(udp(client.address, TARGET), key_id=0)
    assert gateway.delivered()
    assert sending_key(gateway, client) == 1


def test_a_removed_lame_duck_opens_no_more(gateway: Gateway) -> None:
    client = gateway.client()
    client.install_key(1)
    gateway.plane.use_key(client.peer_id, 1)
    gateway.plane.remove_key(client.peer_id, 0)
    with gateway.dropping(no_key=1):
        client.send(udp(client.address, TARGET), key_id=0)
    assert sending_key(gateway, client) == 1


def test_when_the_sending_key_is_removed_the_newest_takes_over(gateway: Gateway) -> None:
    client = gateway.client()
    for key_id in (5, 2):
        client.install_key(key_id)
    gateway.plane.remove_key(client.peer_id, 0)
    assert sending_key(gateway, client) == 2
    gateway.plane.remove_key(client.peer_id, 2)
    assert sending_key(gateway, client) == 5


def test_without_the_last_key_the_peer_is_not_ready(gateway: Gateway) -> None:
    client = gateway.client()
    gateway.plane.remove_key(client.peer_id, 0)
    with gateway.dropping(not_ready=1):
        gateway.inject(udp(TARGET, client.address))
    client.install_key(1)
    assert sending_key(gateway, client) == 1


def test_a_key_of_the_same_id_replaces_the_old_one(gateway: Gateway) -> None:
    client = gateway.client()
    stale = client.seal(udp(client.address, TARGET))
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().packet_id == 1
    client.install_key(0)
    with gateway.dropping(auth_failed=1):
        client.send_raw(stale)
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().packet_id == 1


def test_many_renegotiations_lose_no_packet(gateway: Gateway) -> None:
    client = gateway.client()
    for turn in range(1, 20):
        old, new = client.key_id, (turn - 1) % 7 + 1
        client.install_key(new)
        for key_id in (old, new, old):
            packet = udp(client.address, TARGET, bytes([turn, key_id]))
            client.send(packet, key_id=key_id)
            assert gateway.delivered() == packet
        assert sending_key(gateway, client) == new
        gateway.plane.remove_key(client.peer_id, old)
        client.key_id = new
    assert gateway.drops() == {}


# -- limits


@pytest.mark.parametrize("data_v1", [False, True], ids=["V2", "V1"])
@pytest.mark.parametrize("cipher", [{}, {"cipher": "CHACHA20-POLY1305"}, {"cipher": "AES-128-CBC", "digest": "SHA1"}])
def test_sending_asks_for_a_new_key_and_stops_at_the_limit(make_gateway, data_v1: bool, cipher: dict[str, str]) -> None:
    gateway = make_gateway(packet_id_limit=512)  # the rekey is due a 256th before
    client = gateway.client(data_v1=data_v1, **cipher)
    for _ in range(509):
        gateway.inject(udp(TARGET, client.address))
    assert [client.receive().packet_id for _ in range(509)][-1] == 509
    assert gateway.events() == []
    gateway.inject(udp(TARGET, client.address))
    gateway.inject(udp(TARGET, client.address))
    assert [client.receive().packet_id for _ in range(2)] == [510, 511]
    assert gateway.event(RekeyNeeded) == RekeyNeeded(client.peer_id, 0)
    with gateway.dropping(key_exhausted=2):
        gateway.inject(udp(TARGET, client.address))
        gateway.inject(udp(TARGET, client.address))
    assert client.received_nothing()
    client.install_key(1)
    gateway.plane.use_key(client.peer_id, 1)
    gateway.inject(udp(TARGET, client.address))
    opened = client.receive()
    assert (opened.key_id, opened.packet_id) == (1, 1)
    assert gateway.events() == []  # told once


def test_a_key_without_packet_ids_gives_way_to_its_successor_before_the_peer_has_used_that(make_gateway) -> None:
    gateway = make_gateway(packet_id_limit=4)
    client = gateway.client()
    client.install_key(1)
    for expected in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2)):
        gateway.inject(udp(TARGET, client.address))
        opened = client.receive()
        assert (opened.key_id, opened.packet_id) == expected
    assert KeyUsed(client.peer_id, 1) not in gateway.events()
    client.send(PING, key_id=0)
    gateway.barrier()
    assert gateway.events() == []
    for _ in range(2):
        client.send(PING, key_id=1)
    assert gateway.event(KeyUsed) == KeyUsed(client.peer_id, 1)
    assert sending_key(gateway, client) == 1
    assert KeyUsed(client.peer_id, 1) not in gateway.events()  # told once
    with gateway.dropping(key_exhausted=1):
        gateway.inject(udp(TARGET, client.address))  # the older key is used up too, and never taken again


@pytest.mark.parametrize("formats", [(True, False), (False, True), (True, True)])
def test_the_successor_may_be_of_another_format(make_gateway, formats: tuple[bool, bool]) -> None:
    gateway = make_gateway(packet_id_limit=2, epoch_limit=1, last_epoch=1)
    client = gateway.client(key=False)
    for key_id, epoch in enumerate(formats):
        client.install_key(key_id, epoch=epoch)
    packets = [udp(TARGET, client.address, bytes([number])) for number in range(3)]
    for key_id, packet in enumerate(packets[:2]):
        gateway.inject(packet)
        opened = client.receive()
        assert (opened.key_id, opened.payload) == (key_id, packet)
    with gateway.dropping(key_exhausted=1):
        gateway.inject(packets[2])


def test_packet_ids_of_the_client_near_the_limit_ask_for_a_new_key_once(gateway: Gateway) -> None:
    client = gateway.client()
    client.send(PING, packet_id=0xFEFFFFFF)
    gateway.barrier()
    assert gateway.events() == []
    for packet_id in (0xFF000000, 0xFF000001, 0xFFFFFFFF):
        client.send(udp(client.address, TARGET), packet_id=packet_id)
        assert gateway.delivered()
    gateway.barrier()
    assert gateway.events() == [RekeyNeeded(client.peer_id, 0)]


def test_every_key_asks_for_its_own_successor(gateway: Gateway) -> None:
    client = gateway.client()
    for key_id in (0, 1):
        client.install_key(key_id)
        client.send(PING, key_id=key_id, packet_id=0xFFFFFFF0)
        assert gateway.event(RekeyNeeded) == RekeyNeeded(client.peer_id, key_id)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_many_blocks_under_aes_gcm_ask_for_a_new_key(make_gateway, direction: str) -> None:
    gateway = make_gateway(block_limit=300)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    client = gateway.client()
    # 28 + 100 bytes inside, 24 around: 10 blocks and the packet itself
    there, back = udp(client.address, TARGET, bytes(100)), udp(TARGET, client.address, bytes(100))

    def one_packet() -> None:
        if direction == "in":
            client.send(there)
            gateway.delivered()
        else:
            gateway.inject(back)
            client.receive()

    for _ in range(27):
        one_packet()
    assert gateway.events() == []
    one_packet()
    assert gateway.event(RekeyNeeded) == RekeyNeeded(client.peer_id, 0)


def test_chacha20_counts_no_blocks(make_gateway) -> None:
    gateway = make_gateway(block_limit=100)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    plain, counted = gateway.client(cipher="CHACHA20-POLY1305"), gateway.client(2, ("10.100.0.3",))
    for client in (plain, counted):
        for _ in range(20):
            client.send(udp(client.address, TARGET, bytes(100)))
            gateway.delivered()
    assert gateway.event(RekeyNeeded) == RekeyNeeded(counted.peer_id, 0)
    assert gateway.events() == []


def test_too_many_forgeries_ask_for_a_new_key_and_then_end_the_old_one(make_gateway) -> None:
    gateway = make_gateway(failure_limit=8)
    gateway.set_rules(1, {"10.20.0.0/16": 1})
    client = gateway.client()

    def forge(times: int) -> None:
        with gateway.dropping(auth_failed=times):
            for packet_id in range(times):
                forged = bytearray(client.seal(udp(client.address, TARGET), packet_id=1 + packet_id))
                forged[-1] ^= 1
                client.send_raw(bytes(forged))

    forge(4)
    assert gateway.events() == []
    forge(1)
    assert gateway.event(RekeyNeeded) == RekeyNeeded(client.peer_id, 0)
    forge(3)
    client.send(udp(client.address, TARGET))
    assert gateway.delivered()
    forge(1)
    with gateway.dropping(auth_failed=1):
        client.send(udp(client.address, TARGET))
    client.install_key(1)
    client.send(udp(client.address, TARGET), key_id=1)
    assert gateway.delivered()


# -- arguments


@pytest.mark.parametrize(
    ("key_id", "keys"),
    [
        pytest.param(8, data_keys("x"), id="key id"),
        pytest.param(-1, data_keys("x"), id="negative key id"),
        pytest.param(1, DataKeys("BF-CBC", bytes(16), bytes(8), bytes(16), bytes(8)), id="cipher"),
        pytest.param(1, DataKeys("AES-256-GCM", bytes(16), bytes(8), bytes(32), bytes(8)), id="open key"),
        pytest.param(1, DataKeys("AES-256-GCM", bytes(32), bytes(8), bytes(31), bytes(8)), id="seal key"),
        pytest.param(1, DataKeys("AES-128-GCM", bytes(16), bytes(12), bytes(16), bytes(8)), id="open IV"),
        pytest.param(1, DataKeys("AES-128-GCM", bytes(16), bytes(8), bytes(16), b""), id="seal IV"),
    ],
)
def test_a_key_that_cannot_be_is_refused_and_changes_nothing(gateway: Gateway, key_id: int, keys: DataKeys) -> None:
    client = gateway.client()
    with pytest.raises(ValueError):
        gateway.plane.install_key(client.peer_id, key_id, keys)
    with pytest.raises(KeyError):
        gateway.plane.use_key(client.peer_id, 1)
    assert sending_key(gateway, client) == 0


def test_keys_that_do_not_exist(gateway: Gateway) -> None:
    client = gateway.client()
    for call in (gateway.plane.use_key, gateway.plane.remove_key):
        with pytest.raises(KeyError):
            call(client.peer_id, 1)
        with pytest.raises(KeyError):
            call(77, 0)
    with pytest.raises(KeyError):
        gateway.plane.install_key(77, 0, data_keys("x"))
    assert wait_for(lambda: sending_key(gateway, client) == 0)
    assert Drop.NO_KEY not in gateway.drops()
