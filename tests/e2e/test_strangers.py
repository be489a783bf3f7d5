"""What anybody on the Internet may try, against a gateway that serves somebody at the same time."""

from __future__ import annotations

import contextlib
import itertools
import random
import resource
import secrets
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from helpers import certs
from helpers.lab import wait_until

FLOOD = 20_000
FLOOD_PER_S = 6000
FORGED_SOURCES = "100.64.0.0/10"
RESET_BYTES, REPLY_BYTES = 14, 26
DATA_V2 = 9
GARBAGE_LENGTHS = range(1501)
ETH_P_IP = 0x0800
SO_RCVBUFFORCE = 33
ETHERNET, IPV4, UDP = 14, 20, 8

HANDSHAKES = 'cvpnd_handshakes_in_progress{endpoint="staff"}'
ACTIVE = 'cvpnd_active_connections{endpoint="staff"}'


def reset(session_id: bytes) -> bytes:
    return b"\x38" + session_id + bytes(5)


def echo(session_id: bytes, cookie: bytes, payload: bytes = b"\x16\x03\x01") -> bytes:
    """The client's second packet: acknowledges number 0 of the session that ``cookie`` names."""
    return b"\x20" + session_id + b"\x01" + bytes(4) + cookie + b"\x00\x00\x00\x01" + payload


def from_anywhere(source: str, port: int, gateway: str, packet: bytes) -> bytes:
    """An IPv4 packet with a source of the sender's choice; the kernel fills in lengths and checksum of the header."""
    ip = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        0,
        0,
        0,
        64,
        socket.IPPROTO_UDP,
        0,
        socket.inet_aton(source),
        socket.inet_aton(gateway),
    )
    return ip + struct.pack("!HHHH", port, 1194, UDP + len(packet), 0) + packet


class Attacker:
    """In the first client's namespace, with raw sockets, and with a route by which answers to forged sources come."""

    def __init__(self, lab) -> None:
        self.lab = lab
        lab.gateway.ip_batch(f"route add {FORGED_SOURCES} via {lab.client.run('hostname', '-I').stdout.split()[0]}")
        self.raw = lab.client.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.sniffer = lab.client.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        self.sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.sniffer.setblocking(False)

    def close(self) -> None:
        self.raw.close()
        self.sniffer.close()

    def forge(self, source: str, port: int, packet: bytes) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self.raw.sendto(
                from_anywhere(source, port, self.lab.gateway_address, packet), (self.lab.gateway_address, 0)
            )

    def flood(self, count: int) -> None:
        sources = random.Random(1)
        begun = time.monotonic()
        for number in range(count):
            source = f"100.{sources.randrange(64, 128)}.{sources.randrange(256)}.{sources.randrange(256)}"
            self.forge(source, sources.randrange(1024, 65536), reset(secrets.token_bytes(8)))
            if number % 100 == 99:
                time.sleep(max(0.0, begun + number / FLOOD_PER_S - time.monotonic()))

    def answers(self) -> Iterator[tuple[tuple[str, int], bytes]]:
        """What the gateway has sent to forged sources: address, payload."""
        while True:
            try:
                frame = self.sniffer.recv(2048)
            except BlockingIOError:
                return
            packet = frame[ETHERNET:]
            if packet[9] == socket.IPPROTO_UDP and packet[16] == 100:
                port = int.from_bytes(packet[IPV4 + 2 : IPV4 + 4], "big")
                yield (socket.inet_ntoa(packet[16:20]), port), packet[IPV4 + UDP :]


@pytest.fixture
def attacker(site):
    attacker = Attacker(site.lab)
    yield attacker
    attacker.close()


@pytest.fixture
def victim(site):
    """Somebody at work: connected from the second network while the first one attacks."""
    return lambda: site.connect(name="victim", host="198.51.100.1", client=site.lab.clients[1])


def drops(gateway) -> Counter[str]:
    return Counter(
        {
            name.partition('reason="')[2].partition('"')[0]: int(value)
            for name, value in gateway.metrics().items()
            if name.startswith('cvpnd_dropped_packets_total{plane="control"')
        }
    )


def test_flood_of_forged_resets_costs_nobody_a_ping_and_keeps_nobody_out(site, attacker, victim):
    gateway = site.start()
    client = victim()
    ping = client.namespace.start_ping("10.20.0.10", 0.02)
    flood = Thread(target=attacker.flood, args=[FLOOD])
    flood.start()
    genuine = site.connect(certs.client("genuine"), name="genuine", wait=False)
    genuine.wait_connected(20)
    assert flood.is_alive(), "it came in while the flood went on"
    flood.join()
    in_progress = gateway.metrics()[HANDSHAKES]
    time.sleep(2.5)  # longer than the first retransmission would take
    statistics = ping.finish()
    assert statistics.lost <= 1, statistics
    assert in_progress == 0
    answered = Counter()
    for address, payload in attacker.answers():
        answered[address] += 1
        assert len(payload) <= RESET_BYTES + 12
    assert FLOOD / 2 < len(answered) <= FLOOD, "the flood was answered, so that the rest of this test says something"
    assert max(answered.values()) <= 2, "an address may have been forged twice; a repeat would come for each"
    assert sum(answered.values()) <= FLOOD
    assert gateway.metrics()[ACTIVE] == 2


def test_one_source_gets_its_share_of_answers_and_no_more(site, attacker):
    gateway = site.start("[daemon.strangers]\nresets_per_source_per_s = 100")
    for port in itertools.islice(itertools.cycle(range(2000, 60000)), 3000):
        attacker.forge("100.64.0.1", port, reset(secrets.token_bytes(8)))
    wait_until(lambda: drops(gateway)["rate_limited"] > 2000, 5)
    assert len(list(attacker.answers())) < 1000
    site.connect()


def test_wrong_cookie_allocates_nothing(site, attacker, victim):
    gateway = site.start()
    victim()
    with (
        site.lab.client.socket(kind=socket.SOCK_DGRAM) as sock,
        site.lab.client.socket(kind=socket.SOCK_DGRAM) as other,
    ):
        for each in (sock, other):
            each.connect((site.lab.gateway_address, 1194))
            each.settimeout(2)
        session_id = secrets.token_bytes(8)
        sock.send(reset(session_id))
        reply = sock.recv(2048)
        assert len(reply) == REPLY_BYTES
        cookie = reply[1:9]
        before = drops(gateway)
        tried = 0
        for bit in range(64):
            wrong = (int.from_bytes(cookie, "big") ^ 1 << bit).to_bytes(8, "big")
            sock.send(echo(session_id, wrong))
            tried += 1
        sock.send(echo(secrets.token_bytes(8), cookie))
        other.send(echo(session_id, cookie))  # the right one, from another port
        attacker.forge("100.64.0.9", 4000, echo(session_id, cookie))  # … and address
        tried += 3
        wait_until(lambda: drops(gateway)["bad_cookie"] - before["bad_cookie"] == tried, 5)
        assert gateway.metrics()[HANDSHAKES] == 0
        for each in (sock, other):
            each.settimeout(0.2)
            with pytest.raises(TimeoutError):
                each.recv(2048)
        assert list(attacker.answers()) == []
        sock.send(echo(session_id, cookie))  # and the test is about something: this one begins a session
        wait_until(lambda: gateway.metrics()[HANDSHAKES] == 1, 5)


def test_garbage_of_every_opcode_and_length_changes_nothing(site, victim, ping):
    gateway = site.start()
    client = victim()
    before = gateway.ctl_json("connection", "list")
    noise = random.Random(2)
    with site.lab.client.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.connect((site.lab.gateway_address, 1194))
        for length in GARBAGE_LENGTHS:
            for opcode in range(32):
                packet = bytes([opcode << 3 | noise.randrange(8)]) + noise.randbytes(max(0, length - 1))
                sock.send(packet[:length])
            time.sleep(0.002)
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(2048)
    assert gateway.metrics()[HANDSHAKES] == 0
    assert sum(drops(gateway).values()) > 10_000
    after = gateway.ctl_json("connection", "list")
    assert [(c["connection_id"], c["device_ip"], c["port"]) for c in before] == [
        (c["connection_id"], c["device_ip"], c["port"]) for c in after
    ]
    assert ping(client=client.namespace) == 1.0
    assert client.connected_count == 1


def test_garbage_over_tcp_is_the_end_of_that_connection_alone(site, victim, ping):
    gateway = site.start()
    client = victim()
    noise = random.Random(3)
    for opcode in range(32):
        for length in (1, 2, 9, 14, 200, 1500, 2049, 40000):
            with site.lab.client.connect((site.lab.gateway_address, 1194)) as sock:
                packet = bytes([opcode << 3 | noise.randrange(8)]) + noise.randbytes(length - 1)
                sock.sendall(length.to_bytes(2, "big") + packet)
                sock.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(2048) == b"", (opcode, length)
    assert gateway.metrics()[HANDSHAKES] == 0
    assert ping(client=client.namespace) == 1.0


def test_half_open_connections_are_closed_in_time_and_keep_nobody_out(site):
    gateway = site.start("limits = { handshakes = 60, handshakes_per_source = 50, first_packet_s = 3 }")
    address = (site.lab.gateway_address, 1194)
    begun = time.monotonic()
    silent = [site.lab.client.connect(address) for _ in range(80)]
    half = site.lab.clients[1].connect(("198.51.100.1", 1194))
    half.sendall(b"\x00")  # half a length
    site.connect(name="other", host="198.51.100.1", transport="tcp", client=site.lab.clients[1])
    assert time.monotonic() - begun < 3, "while they were all still there"
    assert drops(gateway)["source_limit"] == 30
    for sock in (*silent, half):
        sock.settimeout(max(0.1, begun + 4 - time.monotonic()))
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        sock.close()
    assert drops(gateway)["tcp_silent"] == 51
    site.connect(transport="tcp")


def test_connections_to_every_listener_leave_the_last_files_to_the_daemon(site, victim, ping):
    """Descriptor exhaustion: from two hundred addresses, each below its share."""
    certs.server("vpn.example.com").write(site.directory, "portal")
    listen = """[portal]
listen = "0.0.0.0:8444"
url = "https://vpn.example.com:8444"
certificate = "portal.crt"
private_key = "portal.key"
[api]
listen = "https://0.0.0.0:8443"
"""
    gateway = site.start(listen)
    client, pid = victim(), gateway.running.pid
    wait_until(lambda: "ready: serving" in gateway.log(), what="the portal and the API, which open last")
    site.lab.gateway.ip_batch(f"route add 100.64.0.0/24 via {site.lab.client.run('hostname', '-I').stdout.split()[0]}")
    site.lab.client.ip_batch("route add local 100.64.0.0/24 dev lo")
    most = len(list(Path(f"/proc/{pid}/fd").iterdir())) + 120
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
    with contextlib.ExitStack() as opened:
        for _ in range(3):
            for port, number in itertools.product((8444, 8443, 1194, 443), range(60)):
                sock = opened.enter_context(site.lab.client.socket())
                sock.bind((f"100.64.0.{1 + number}", 0))
                sock.setblocking(False)
                sock.connect_ex((site.lab.gateway_address, port))
            wait_until(gateway.admin_answers, 2)
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) > most - 40, "else it was not tried"
        assert gateway.metrics()[ACTIVE] == 1
        site.connect(certs.client("genuine"), name="genuine", host="198.51.100.1", client=site.lab.clients[1])
    assert ping(client=client.namespace) == 1.0
    assert 1 <= gateway.log().count("the limit of open files is reached") <= 3, "one line for each kind of listener"
    assert "Too many open files" not in gateway.log()


def test_data_under_somebody_elses_peer_id_moves_nothing(site, victim, ping):
    gateway = site.start()
    client = victim()
    (before,) = gateway.ctl_json("connection", "list")
    with site.lab.client.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.connect((site.lab.gateway_address, 1194))
        for number in range(4000):
            peer_id = number % 4
            header = (DATA_V2 << 27 | (number >> 2 & 7) << 24 | peer_id).to_bytes(4, "big")
            sock.send(header + number.to_bytes(4, "big") + secrets.token_bytes(60))
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(2048)
    (after,) = gateway.ctl_json("connection", "list")
    place = ("connection_id", "device_ip", "port")
    assert [after[key] for key in place] == [before[key] for key in place]
    assert gateway.metrics()['cvpnd_dropped_packets_total{plane="data",reason="auth_failed"}'] >= 100
    assert ping(client=client.namespace) == 1.0


def test_stranger_with_the_address_of_a_live_client_cannot_disturb_it(site, attacker, ping):
    """Forged: the victim's own address and port. Nothing of it reaches the session, and the client hears nothing: it
    would take an answer to a forged reset for a server that restarted, log in again and lose its tunnel."""
    gateway = site.start(ping_s=2)
    victim = site.connect()
    (connection,) = gateway.ctl_json("connection", "list")
    running = site.lab.client.start_ping("10.20.0.10", 0.02)
    for _ in range(200):
        session_id = secrets.token_bytes(8)
        for packet in (
            reset(session_id),
            echo(session_id, secrets.token_bytes(8)),
            b"\x18" + session_id + bytes(5),  # soft reset
            b"\x28" + session_id + b"\x01" + bytes(4) + secrets.token_bytes(8),
        ):
            attacker.forge(connection["device_ip"], connection["port"], packet)
        time.sleep(0.002)
    statistics = running.finish()
    assert statistics.lost <= 1
    assert gateway.ctl_json("connection", "list")[0]["connection_id"] == connection["connection_id"]
    assert ping() == 1.0
    assert victim.connected_count == 1
