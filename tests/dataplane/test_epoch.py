"""The epoch format (openvpn-wire.md 11.3): which epochs are opened and sent, and when one follows the other."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from helpers.packets import PING, data_keys, udp
from helpers.plane import TARGET, Client, Gateway

from cvpnd.dataplane.api import DataKeys, KeyUsed, PeerSettings, RekeyNeeded

ANY = {"10.20.0.0/16": 1}


@pytest.fixture
def client(gateway: Gateway) -> Client:
    return gateway.client(epoch=True)


def send_in(client: Client, epoch: int, *, counter: int | None = None) -> bytes:
    """One packet in this epoch; the client stays in it."""
    client.keys[client.key_id].epoch = epoch
    packet = udp(client.address, TARGET, epoch.to_bytes(2, "big"))
    client.send(packet, packet_id=counter)
    return packet


def sent_epoch(gateway: Gateway, client: Client) -> int:
    gateway.inject(udp(TARGET, client.address))
    return client.receive().epoch


def test_packets_pass_both_ways_from_epoch_one_on(gateway: Gateway, client: Client) -> None:
    for counter in range(1, 4):
        packet = udp(client.address, TARGET, bytes(counter))
        client.send(packet)
        assert gateway.delivered() == packet
        back = udp(TARGET, client.address, bytes(100 * counter))
        gateway.inject(back)
        opened = client.receive()
        assert (opened.epoch, opened.packet_id, opened.peer_id) == (1, counter, client.peer_id)
        assert opened.payload == back


@pytest.mark.parametrize("cipher", ["AES-128-GCM", "AES-192-GCM", "CHACHA20-POLY1305"])
def test_every_cipher_has_an_epoch_format(gateway: Gateway, cipher: str) -> None:
    client = gateway.client(epoch=True, cipher=cipher)
    for epoch in (1, 3):
        assert send_in(client, epoch) == gateway.delivered()
        assert sent_epoch(gateway, client) == epoch


def test_a_batch_of_packets_keeps_its_tags(gateway: Gateway, client: Client) -> None:
    """The tag lies behind the text, where the next packet of the batch begins."""
    packets = [udp(TARGET, client.address, bytes([number]) * 300) for number in range(40)]
    for packet in packets:
        gateway.inject(packet)
    assert [client.receive().payload for _ in packets] == packets


@pytest.mark.parametrize("ahead", [1, 2, 3, 4])
def test_a_future_epoch_becomes_the_current_one_and_what_is_sent_follows(
    gateway: Gateway, client: Client, ahead: int
) -> None:
    assert send_in(client, 1) == gateway.delivered()
    assert sent_epoch(gateway, client) == 1
    assert send_in(client, 1 + ahead, counter=1) == gateway.delivered()
    assert sent_epoch(gateway, client) == 1 + ahead
    gateway.inject(udp(TARGET, client.address))
    assert client.receive().packet_id == 2


@pytest.mark.parametrize("epoch", [0, 6, 7, 1000, 65535])
def test_an_epoch_out_of_reach_has_no_key(gateway: Gateway, client: Client, epoch: int) -> None:
    packet = bytearray(client.seal(udp(client.address, TARGET)))
    packet[4:6] = epoch.to_bytes(2, "big")
    with gateway.dropping(no_key=1):
        client.send_raw(bytes(packet))
    assert sent_epoch(gateway, client) == 1


@pytest.mark.parametrize("epoch", [1, 2, 5])
def test_a_forged_epoch_costs_one_failed_check_and_moves_nothing(gateway: Gateway, client: Client, epoch: int) -> None:
    client.keys[0].epoch = epoch
    forged = bytearray(client.seal(udp(client.address, TARGET), packet_id=7))
    forged[-1] ^= 1
    with gateway.dropping(auth_failed=2):
        client.send_raw(bytes(forged))
        client.send_raw(bytes(forged))
    forged[4:6] = (3).to_bytes(2, "big")  # of another epoch's key
    with gateway.dropping(auth_failed=1):
        client.send_raw(bytes(forged))
    assert sent_epoch(gateway, client) == 1
    assert send_in(client, 1) == gateway.delivered()


def test_the_previous_epoch_still_opens_with_a_window_of_its_own(gateway: Gateway, client: Client) -> None:
    assert send_in(client, 1, counter=1) == gateway.delivered()
    assert send_in(client, 3, counter=1) == gateway.delivered()
    assert send_in(client, 1, counter=2) == gateway.delivered()
    with gateway.dropping(replayed=3):
        send_in(client, 1, counter=1)
        send_in(client, 1, counter=2)
        send_in(client, 3, counter=1)
    assert sent_epoch(gateway, client) == 3
    assert send_in(client, 3, counter=2) == gateway.delivered()


def test_what_lies_between_or_before_is_gone(gateway: Gateway, client: Client) -> None:
    assert send_in(client, 1) == gateway.delivered()
    assert send_in(client, 4) == gateway.delivered()
    with gateway.dropping(no_key=2):
        send_in(client, 2)
        send_in(client, 3)
    assert send_in(client, 5) == gateway.delivered()
    with gateway.dropping(no_key=1):
        send_in(client, 1)
    assert send_in(client, 4) == gateway.delivered()


def test_the_reach_moves_with_the_current_epoch(gateway: Gateway, client: Client) -> None:
    for epoch in range(1, 60, 4):
        assert send_in(client, epoch, counter=1) == gateway.delivered()
        with gateway.dropping(no_key=1):
            send_in(client, epoch + 5)
    assert sent_epoch(gateway, client) == 57


@pytest.mark.parametrize("epoch", [1, 2])
def test_counter_zero_is_nobodys_and_moves_nothing(gateway: Gateway, client: Client, epoch: int) -> None:
    with gateway.dropping(replayed=1):
        send_in(client, epoch, counter=0)
    assert sent_epoch(gateway, client) == 1


def test_counters_have_48_bits(gateway: Gateway, client: Client) -> None:
    for counter in (2**32 - 1, 2**32, 2**40 + 5, 2**48 - 1):
        assert send_in(client, 1, counter=counter) == gateway.delivered()
    with gateway.dropping(replayed=2):
        send_in(client, 1, counter=2**48 - 1)
        send_in(client, 1, counter=2**32)
    assert gateway.events() == []


def test_a_packet_of_another_key_id_leaves_this_keys_epochs_alone(gateway: Gateway, client: Client) -> None:
    client.install_key(1)
    client.keys[1].epoch = 4
    client.send(PING, key_id=1)
    assert gateway.event(KeyUsed) == KeyUsed(client.peer_id, 1)
    assert sent_epoch(gateway, client) == 4
    gateway.plane.use_key(client.peer_id, 0)
    assert sent_epoch(gateway, client) == 1


# -- when we move


def test_a_used_up_epoch_is_followed_by_the_next(make_gateway) -> None:
    gateway = make_gateway(epoch_limit=50)  # 28 + 100 inside, 28 around: 10 blocks and the packet itself
    client = gateway.client(epoch=True)
    seen = []
    for _ in range(12):
        gateway.inject(udp(TARGET, client.address, bytes(100)))
        opened = client.receive()
        seen.append((opened.epoch, opened.packet_id))
    assert seen == [(epoch, counter) for epoch in (1, 2, 3) for counter in (1, 2, 3, 4, 5)][:12]
    assert gateway.events() == []


def test_chacha20_stays_in_its_epoch(make_gateway) -> None:
    gateway = make_gateway(epoch_limit=10)
    client = gateway.client(epoch=True, cipher="CHACHA20-POLY1305")
    assert {sent_epoch(gateway, client) for _ in range(30)} == {1}


def test_a_client_that_overuses_its_epoch_is_led_to_the_next_one(make_gateway) -> None:
    gateway = make_gateway(epoch_limit=30)
    gateway.set_rules(1, ANY)
    client = gateway.client(epoch=True)
    for _ in range(5):  # 5 blocks each, and the counter
        assert send_in(client, 1) == gateway.delivered()
    assert sent_epoch(gateway, client) == 1
    assert send_in(client, 1) == gateway.delivered()
    assert sent_epoch(gateway, client) == 2
    for _ in range(10):  # it does not follow; once is enough
        assert send_in(client, 1) == gateway.delivered()
    assert sent_epoch(gateway, client) == 2


def test_near_the_last_epoch_a_new_key_is_asked_for_once_and_nothing_is_sent_after_it(make_gateway) -> None:
    gateway = make_gateway(epoch_limit=1, last_epoch=32)  # every packet its own epoch, the rekey is due from 30 on
    client = gateway.client(epoch=True)
    assert [sent_epoch(gateway, client) for _ in range(28)] == list(range(1, 29))
    assert gateway.events() == []
    assert [sent_epoch(gateway, client) for _ in range(4)] == [29, 30, 31, 32]
    assert gateway.event(RekeyNeeded) == RekeyNeeded(client.peer_id, 0)
    with gateway.dropping(key_exhausted=2):
        gateway.inject(udp(TARGET, client.address))
        gateway.inject(udp(TARGET, client.address))
    client.install_key(1)
    gateway.plane.use_key(client.peer_id, 1)
    assert sent_epoch(gateway, client) == 1
    assert gateway.events() == []


def test_of_the_last_epochs_none_is_taken_for_a_future_one(make_gateway) -> None:
    gateway = make_gateway(last_epoch=20)
    gateway.set_rules(1, ANY)
    client = gateway.client(epoch=True)
    for epoch in (5, 9, 13):
        assert send_in(client, epoch) == gateway.delivered()
    with gateway.dropping(no_key=2):
        send_in(client, 16)
        send_in(client, 17)
    assert send_in(client, 15) == gateway.delivered()
    with gateway.dropping(no_key=4):
        for epoch in (16, 17, 18, 19):
            send_in(client, epoch)
    assert send_in(client, 15) == gateway.delivered()


def test_the_very_last_epoch_of_all(make_gateway) -> None:
    """65535 real ones: no id is given out twice, and behind the last there is nothing."""
    gateway = make_gateway(epoch_limit=1)
    client = gateway.client(epoch=True)
    for sent in range(1, 65535, 60):
        expected = list(range(sent, min(sent + 60, 65536)))
        for _ in expected:
            gateway.inject(udp(TARGET, client.address))
        assert [int.from_bytes(client.receive_raw()[0][4:6], "big") for _ in expected] == expected
    assert gateway.event(RekeyNeeded) == RekeyNeeded(client.peer_id, 0)
    with gateway.dropping(key_exhausted=1):
        gateway.inject(udp(TARGET, client.address))
    assert client.received_nothing()


def test_too_many_forgeries_end_an_epoch_key_too(make_gateway) -> None:
    gateway = make_gateway(failure_limit=4)
    gateway.set_rules(1, ANY)
    client = gateway.client(epoch=True)
    forged = bytearray(client.seal(PING))
    forged[-1] ^= 1
    with gateway.dropping(auth_failed=6):
        for _ in range(5):
            client.send_raw(bytes(forged))
        client.send(PING)
    assert gateway.event(RekeyNeeded) == RekeyNeeded(client.peer_id, 0)


def test_two_workers_never_use_an_id_twice(make_gateway) -> None:
    gateway = make_gateway(2, epoch_limit=40)
    client = gateway.client(epoch=True)
    for number in range(400):
        gateway.inject(udp(TARGET, client.address, bytes([number % 250])), worker=number % 2)
    seen = [client.receive_raw()[0] for _ in range(400)]
    ids = [packet[4:12] for packet in seen]
    assert len(set(ids)) == 400
    for packet in seen[::37]:
        assert client.keys[0].open(packet).payload[:1] == b"\x45"


@pytest.mark.parametrize("length", range(24, 29))
def test_what_is_too_short_for_the_format_is_truncated(gateway: Gateway, client: Client, length: int) -> None:
    with gateway.dropping(truncated=1):
        client.send_raw(client.seal(udp(client.address, TARGET))[:length])


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(DataKeys("AES-128-GCM", bytes(16), b"", bytes(16), b"", epoch=True), id="size of a cipher key"),
        pytest.param(DataKeys("AES-256-GCM", bytes(32), bytes(8), bytes(32), b"", epoch=True), id="open IV"),
        pytest.param(DataKeys("AES-256-GCM", bytes(32), b"", bytes(32), bytes(12), epoch=True), id="seal IV"),
    ],
)
def test_secrets_of_another_size_are_refused(gateway: Gateway, keys: DataKeys) -> None:
    client = gateway.client()
    with pytest.raises(ValueError):
        gateway.plane.install_key(client.peer_id, 1, keys)


def test_the_format_needs_peer_ids(gateway: Gateway) -> None:
    gateway.client(2, ("10.100.0.3",), data_v1=True)
    with pytest.raises(ValueError):
        gateway.plane.install_key(2, 1, data_keys("x", epoch=True))


@pytest.mark.parametrize("limit", [{"epoch_limit": 0}, {"last_epoch": 0}, {"last_epoch": 65536}])
def test_limits_that_cannot_be_are_refused(make_plane, limit: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        make_plane(1, **limit)


def test_settings_of_a_peer_that_cannot_be_are_refused(gateway: Gateway) -> None:
    address = (ip_address("10.100.0.77"),)
    for bad in (
        PeerSettings(1, address, 1, 0, 0, remote_peer_id=0xFFFFFF),
        PeerSettings(1, address, 1, 0, 0, remote_peer_id=-1),
        PeerSettings(1, address, 1, 0, 0, framing=3),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError):
            gateway.plane.add_peer(77, bad)
