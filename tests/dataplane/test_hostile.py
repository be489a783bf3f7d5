"""Whatever bytes a stranger sends, they change nothing but counters, and each datagram is counted exactly once."""

import random

from helpers.packets import SYN, header, icmp_echo, tcp, udp
from helpers.plane import TARGET, TARGET_V6, Client, Gateway

from cvpnd.dataplane.api import StrayControl

ATTEMPTS = 1500


def bombard(gateway: Gateway, client: Client, datagrams: list[bytes]) -> int:
    """Sends them all; returns how many were taken for control packets. Nothing may reach the TUN or be told else."""
    strays = 0
    dropped = gateway.drops().total()
    before = gateway.plane.peer_stats(client.peer_id)
    for at in range(0, len(datagrams), 200):
        for datagram in datagrams[at : at + 200]:
            client.send_raw(datagram)
        assert gateway.barrier() == []
        events = gateway.events()
        assert all(isinstance(event, StrayControl) for event in events)
        strays += len(events)
    assert gateway.drops().total() - dropped + strays == len(datagrams)
    after = gateway.plane.peer_stats(client.peer_id)
    assert (after.packets_in, after.bytes_in, after.packets_out) == (before.packets_in, before.bytes_in, 0)
    assert client.received_nothing()
    return strays


def still_works(gateway: Gateway, client: Client) -> None:
    packet = udp(client.address, TARGET, b"alive")
    client.send(packet)
    assert gateway.delivered() == packet


def test_every_prefix_of_a_packet(gateway: Gateway) -> None:
    client = gateway.client()
    packet = client.seal(icmp_echo(client.address, TARGET, bytes(64)))
    assert bombard(gateway, client, [packet[:length] for length in range(len(packet))]) == 0
    assert set(gateway.drops()) == {"truncated", "auth_failed"}
    client.send_raw(packet)  # its id is still unused
    assert gateway.delivered()


def test_random_changes_of_a_packet(gateway: Gateway) -> None:
    client = gateway.client()
    rng = random.Random(20)
    packet = client.seal(icmp_echo(client.address, TARGET, bytes(40)))
    changed = []
    while len(changed) < ATTEMPTS:
        mutant = bytearray(packet)
        for _ in range(rng.randint(1, 4)):
            mutant[rng.randrange(len(mutant))] ^= rng.randint(1, 255)
        if rng.random() < 0.2:
            mutant += rng.randbytes(rng.randint(1, 40))
        if mutant != packet:
            changed.append(bytes(mutant))
    bombard(gateway, client, changed)
    client.send_raw(packet)
    assert gateway.delivered()


def test_random_bytes(gateway: Gateway) -> None:
    client = gateway.client()
    rng = random.Random(21)
    garbage = [rng.randbytes(rng.randint(0, 120)) for _ in range(ATTEMPTS // 2)]
    garbage += [header(client.peer_id, rng.randrange(8)) + rng.randbytes(rng.randint(0, 120)) for _ in garbage]
    assert bombard(gateway, client, garbage) == 0
    assert 0 < gateway.drops()["stray_control"] < len(garbage) / 2
    still_works(gateway, client)


def test_random_payloads_of_an_authentic_client_reach_nothing(gateway: Gateway) -> None:
    """A client may be hostile too: only whole packets from its own lease to an allowed destination pass."""
    client = gateway.client(mss_v4=1400, mss_v6=1380)
    rng = random.Random(22)
    valid = [
        udp(client.address, "192.0.2.1", b"denied"),
        tcp(client.address_v6, "2001:db8::1", flags=SYN, options=b"\x02\x04\x05\xb4"),
        udp("10.100.0.77", TARGET, b"not mine"),
        udp("fd64::77", TARGET_V6, b"not mine"),
    ]
    payloads = [rng.randbytes(rng.randint(1, 80)) for _ in range(ATTEMPTS // 2)]
    payloads += [bytes([rng.choice([0x45, 0x4F, 0x60])]) + rng.randbytes(rng.randint(0, 60)) for _ in payloads]
    payloads += [packet[:length] for packet in valid for length in range(1, len(packet) + 1)]
    bombard(gateway, client, [client.seal(payload) for payload in payloads])
    assert set(gateway.drops()) == {"not_ip", "bad_source", "denied"}
    still_works(gateway, client)


def test_damaged_syn_segments_pass_whole_and_harm_nothing(gateway: Gateway) -> None:
    """MSS rewriting walks lengths that a client made up."""
    client = gateway.client(mss_v4=1400)
    rng = random.Random(23)
    syn = tcp(client.address, TARGET, flags=SYN, options=b"\x01\x03\x03\x07\x02\x04\x05\xb4\x04\x02" + bytes(20))
    for _ in range(300):
        mutant = bytearray(syn)
        for _ in range(rng.randint(1, 5)):
            mutant[rng.randrange(32, len(mutant))] = rng.choice([0, 1, 2, 3, 4, 5, 8, 40, 0xF0, 0xFF])
        client.send(bytes(mutant))
        packet = gateway.delivered()
        assert len(packet) == len(syn)
        assert packet[:32] == syn[:32]
        changed = [at for at in range(32, len(syn)) if packet[at] != mutant[at]]
        assert len([at for at in changed if at not in (36, 37)]) <= 2


def test_random_packets_from_the_tun(gateway: Gateway) -> None:
    client = gateway.client()
    rng = random.Random(24)
    valid = udp(TARGET, client.address, bytes(30))
    dropped = 0
    for turn in range(600):
        packet = bytearray(valid)
        if turn % 2:
            packet = bytearray(rng.randbytes(rng.randint(1, 90)))
        else:
            packet[rng.randrange(4)] ^= rng.randint(1, 255)
        gateway.inject(bytes(packet))
    gateway.inject(udp(TARGET, client.address, b"last"))
    received = []
    while not received or not received[-1].endswith(b"last"):
        received.append(client.receive().payload)
    dropped = gateway.drops().total()
    assert dropped + len(received) == 601
    assert set(gateway.drops()) <= {"not_ip", "no_route"}
