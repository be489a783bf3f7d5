"""What strangers can make us spend: sessions, descriptors, log lines, exceptions. tests/e2e has the floods."""

from __future__ import annotations

import asyncio
import logging
import resource
import secrets
import socket
from collections import Counter
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization
from helpers import certs
from helpers.handshake import client_context
from helpers.served import Client, wait_until
from OpenSSL import crypto

from cvpnd.ops.logs import RateLimited
from cvpnd.reasons import Refusal
from cvpnd.server import control as control_module
from cvpnd.server import link as link_module
from cvpnd.server import listener as listener_module
from cvpnd.server.admission import TokenBucket
from cvpnd.wire.errors import DropReason
from cvpnd.wire.packet import Transport
from cvpnd.wire.stream import frame


def reset(session_id: bytes | None = None) -> bytes:
    return b"\x38" + (session_id or secrets.token_bytes(8)) + bytes(5)


def connected(address: tuple[str, int], source: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket()
    sock.bind((source, 0))
    sock.connect(address)
    sock.settimeout(0)
    return sock


async def closed(sock: socket.socket, seconds: float = 3.0) -> bool:
    def ended() -> bool:
        try:
            return sock.recv(4096) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    return await wait_until(ended, seconds)


# -- TCP ----------------------------------------------------------------------------------------------------


async def test_nothing_is_read_behind_a_packet_that_ended_the_connection(served):
    """Else the reset behind it makes a session on a closed socket, which nobody holds open and nobody can end."""
    sock = connected(served.tcp)
    sock.send(frame(b"\x20" + secrets.token_bytes(20)) + frame(reset()))
    assert await closed(sock)
    assert len(served.control.table) == 0
    sock.close()


@pytest.mark.parametrize("before", [b"", frame(reset())], ids=["at once", "behind a reset"])
async def test_a_frame_of_impossible_length_has_a_name(served, before, caplog, monkeypatch):
    monkeypatch.setattr(link_module, "_warn", RateLimited(logging.getLogger()))
    sock = connected(served.tcp)
    sock.send(before)
    assert await wait_until(lambda: len(served.control.table) == bool(before))
    sock.send(b"\xff\xff" + bytes(100))
    assert await closed(sock)
    assert served.control.drops == Counter({DropReason.BAD_FRAME: 1})
    assert "closing the TCP connection of 127.0.0.1: bad_frame: length 65535" in caplog.text
    assert [connection.end_reason for connection in served.ended] == [Refusal.PROTOCOL_VIOLATION] * bool(before)
    sock.close()


async def test_silent_connections_are_closed_in_time_and_counted_by_source(serve):
    served = serve(first_packet_s=1, handshakes_per_source=3)
    silent = [connected(served.tcp) for _ in range(3)]
    assert await wait_until(lambda: served.control.table.handshakes_from("127.0.0.1") == 3)
    one_more = connected(served.tcp)
    assert await closed(one_more, 0.5), "a source may have three"
    elsewhere = connected(served.tcp, "127.0.0.2")
    elsewhere.send(frame(reset()))
    assert await wait_until(lambda: served.control.table.handshakes == 1)
    for sock in silent:
        assert await closed(sock, 2.0)
    assert served.control.drops[DropReason.TCP_SILENT] == 3
    assert served.control.table.handshakes_from("127.0.0.1") == 0
    for sock in (*silent, one_more, elsewhere):
        sock.close()


async def test_silence_from_everywhere_makes_room_for_whoever_speaks(serve):
    served = serve(handshakes=4, handshakes_per_source=4)
    silent = [connected(served.tcp, f"127.0.0.{number}") for number in range(2, 6)]
    assert await wait_until(lambda: len(served.tcp_listener._waiting) == 4)
    client = await Client(served.tcp, Transport.TCP).connect()
    assert await closed(silent[0], 0.5), "the one that was silent for longest"
    assert len(served.tcp_listener._waiting) == 3
    client.close()
    for sock in silent:
        sock.close()


async def test_connections_that_were_accepted_together_cannot_all_begin(serve):
    served = serve(handshakes=4, handshakes_per_source=100)
    waiting = [connected(served.tcp) for _ in range(4)]
    assert await wait_until(lambda: len(served.tcp_listener._waiting) == 4)
    for _ in range(4):
        waiting[0].send(frame(reset()))
        waiting.append(waiting.pop(0))
        waiting.append(connected(served.tcp))
    for sock in waiting:
        sock.send(frame(reset()))
    await asyncio.sleep(0.3)
    assert served.control.table.handshakes == 4
    for sock in waiting:
        sock.close()


async def test_without_descriptors_accepting_pauses_instead_of_spinning(served, monkeypatch, caplog):
    monkeypatch.setattr(listener_module, "ACCEPT_PAUSE_S", 0.3)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = connected(served.tcp)
    assert await wait_until(lambda: len(served.tcp_listener._waiting) == 1)
    late = socket.socket()
    late.setblocking(False)
    highest = late.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    filler = []
    try:
        while True:
            try:
                filler.append(socket.socket())
            except OSError:
                break
        late.connect_ex(served.tcp)
        caplog.set_level(logging.WARNING, "cvpnd.server.listener")
        await asyncio.sleep(0.5)
        assert 1 <= len(caplog.records) <= 2, "one line for each pause"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for sock in filler:
            sock.close()
    assert await wait_until(lambda: len(served.tcp_listener._waiting) == 2), "and goes on afterwards"
    probe.close()
    late.close()


async def test_whoever_waits_is_sent_away_when_nobody_is_let_in_any_more(served):
    sock = connected(served.tcp)
    assert await wait_until(lambda: len(served.tcp_listener._waiting) == 1)
    address = served.tcp
    served.tcp_listener.stop_accepting()
    assert await closed(sock)
    with pytest.raises(ConnectionRefusedError):
        connected(address)
    sock.close()


# -- handshakes that fail -----------------------------------------------------------------------------------


async def fail(served, transport: Transport = Transport.UDP) -> Client:
    """One handshake of somebody whose certificate nobody here trusts."""
    ended = len(served.control.tally.refusals) and sum(served.control.tally.refusals.values())
    client = Client(
        served.udp if transport is Transport.UDP else served.tcp, transport, certs.client_of_another_authority()
    )
    assert await client.until(lambda: sum(served.control.tally.refusals.values()) == ended + 1)
    return client


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
async def test_who_fails_fast_may_not_try_any_faster(serve, monkeypatch, transport):
    monkeypatch.setattr(control_module, "ABSORB_S", 4.0)  # three handshakes take less, also on a busy machine
    served = serve(handshakes_per_source=3)
    clients = [await fail(served, transport) for _ in range(3)]
    refused = Client(served.udp if transport is Transport.UDP else served.tcp, transport)
    assert not await refused.until(lambda: refused.light.connected, 0.3)
    assert served.control.drops[DropReason.SOURCE_LIMIT] >= 1
    assert await wait_until(lambda: served.control.table.handshakes == 0, 8)
    late = await Client(served.udp if transport is Transport.UDP else served.tcp, transport).connect()
    for client in (*clients, refused, late):
        client.close()


async def test_replacing_ones_own_handshake_again_and_again_is_limited_too(serve):
    """Cookies can be collected and used for a minute: each echo costs a TLS object and a line in the log."""
    served = serve(handshakes_per_source=5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(served.udp)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        cookies = []
        for _ in range(50):
            session_id = secrets.token_bytes(8)
            sock.send(reset(session_id))
            reply = await asyncio.wait_for(loop.sock_recv(sock, 2048), 2)
            cookies.append((session_id, reply[1:9]))
        for session_id, cookie in cookies:
            sock.send(b"\x20" + session_id + b"\x01" + bytes(4) + cookie + b"\x00\x00\x00\x01" + b"hello")
        await asyncio.sleep(0.1)
    assert served.control.table.handshakes == 5, served.control.drops
    assert served.control.drops[DropReason.SOURCE_LIMIT] == 45


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
async def test_who_holds_all_handshakes_from_one_address_gives_way_to_others(serve, transport):
    served = serve(handshakes=20, handshakes_per_source=20)
    address = served.udp if transport is Transport.UDP else served.tcp
    silent = [Client(address, transport) for _ in range(20)]
    table = served.control.table
    for each in silent:
        assert await each.until(lambda: table.handshakes == silent.index(each) + 1)  # noqa: B023 - at once
    first = next(iter(table))
    refused = Client(address, transport)
    assert not await refused.until(lambda: refused.light.connected, 0.3), "its own network has them all"
    assert first.end_reason is None
    people = [await Client(address, transport, source=f"127.0.1.{number}").connect() for number in (1, 2)]
    assert first.end_reason is Refusal.HANDSHAKE_GAVE_WAY
    assert served.control.tally.refusals[served.endpoint.id, Refusal.HANDSHAKE_GAVE_WAY] == 1, (
        "the second found its place"
    )
    for client in (*silent, refused, *people):
        client.close()


async def test_failed_handshakes_are_all_counted_but_not_all_written_down(served, monkeypatch, caplog):
    monkeypatch.setattr(served.control, "_strangers_logged", TokenBucket(0.001, 2))
    caplog.set_level(logging.INFO, "cvpnd.server.control")
    clients = [await fail(served) for _ in range(5)]
    assert len(served.ended) == 2
    assert sum(" ended: certificate-unknown-ca" in record.message for record in caplog.records) == 2
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1
    assert served.control.tally.refusals[served.endpoint.id, Refusal.CERTIFICATE_UNKNOWN_CA] == 5
    known = await Client(served.udp).connect()
    known.light.exit()
    assert await known.until(lambda: len(served.ended) == 3), "who was let in is always written down"
    for client in (*clients, known):
        client.close()


async def test_strangers_who_come_to_be_sent_to_a_browser_are_not_all_written_down(served, monkeypatch):
    control, written = served.control, []
    monkeypatch.setattr(control, "_waiting_logged", TokenBucket(0.001, 2))
    monkeypatch.setattr(control, "on_waiting", lambda connection: written.append(connection.stranger))
    for stranger in (*[True] * 5, False, False, False):
        control.told_to_wait(SimpleNamespace(stranger=stranger))
    assert written == [True, True, False, False, False], "who has shown a certificate always is"


async def test_certificate_that_only_openssl_can_parse_is_a_refusal_like_any_other(served, caplog):
    """An X.509 version from the future, which cryptography refuses to load."""
    stranger = certs.self_signed_client("odd")
    der = bytearray(stranger.certificate.public_bytes(serialization.Encoding.DER))
    version = der.index(bytes.fromhex("a003020102"))
    der[version + 4] = 5
    context = client_context(None)
    context.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, bytes(der)))
    context.use_privatekey(stranger.private_key)
    client = Client(served.udp, context=context)
    assert await client.until(lambda: len(served.ended) == 1)
    assert served.ended[0].end_reason is Refusal.CERTIFICATE_UNKNOWN_CA
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    client.close()
