"""Certificates that are work for us and none for who sends them. Those with keys that take long to decode are refused
by their form. What a handshake may still carry, 32 kB of names and usual keys, takes 5 ms, in which nobody else is
served, before anybody asks who has signed it. Such time is charged to where it comes from: with each packet, whatever
becomes of the handshake, and once that is proven."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from helpers import certs, dear_certificates
from helpers.handshake import client_context
from helpers.served import Client, Served, wait_until
from helpers.wrappings import Case, tls_crypt_v2
from light_client import protocol
from light_client.generations import Habits
from OpenSSL import SSL

from cvpnd.config import StrangersConfig
from cvpnd.reasons import Refusal
from cvpnd.server import admission
from cvpnd.server.admission import prefixes
from cvpnd.wire.errors import DropReason
from cvpnd.wire.packet import MAX_PAYLOAD_BYTES, ControlPacket, Opcode, Transport
from cvpnd.wire.reliable import RECEIVE_WINDOW, ReliableHabits
from cvpnd.wire.tls import TlsConnection
from cvpnd.wire.wrap.wrapping import ReplayId

BOTH = pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
DEAR = pytest.mark.usefixtures("little_is_free")
LIMITS = StrangersConfig(failed_logins_per_source_per_min=150)
DEAR_BYTES = 30_000
PAYLOAD = 1100
"""Of a control packet."""


def _of_length(content: bytes) -> bytes:
    """As TLS writes it."""
    return len(content).to_bytes(3, "big") + content


def dear_chain(size: int = DEAR_BYTES) -> list[x509.Certificate]:
    return [dear_certificates.usual_key(size // 16 - 5)] * 16


@pytest.fixture
def little_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the processor were ten times as slow: on no machine here do such handshakes take more than is free."""
    monkeypatch.setattr(admission, "WORK_FREE_S", admission.WORK_FREE_S / 10)
    monkeypatch.setattr(admission, "WORK_OF_A_FAILURE_S", admission.WORK_OF_A_FAILURE_S / 10)


def dear_context(certificate: certs.TestCertificate, size: int = DEAR_BYTES) -> SSL.Context:
    context = client_context(certificate)
    for one in dear_chain(size):
        context.add_extra_chain_cert(one)
    return context


def dear(served: Served) -> list[float]:
    """The work that long handshakes have been, of all that are known."""
    return [one.work_s for one in {*served.control.table, *served.ended} if one.work_s > admission.WORK_FREE_S]


async def is_shut_out(served: Served, address: tuple[str, int], transport: Transport, source: str, **options) -> None:
    """And nobody else is."""
    refused = Client(address, transport, source=source, **options)
    assert await refused.until(lambda: served.control.drops[DropReason.FAILED_LOGINS] > 0)
    elsewhere = await Client(address, transport, source="127.2.0.1", **options).connect()
    for each in (refused, elsewhere):
        each.close()


def stateful(served: Served) -> Case:
    """From now on it wraps with tls-crypt-v2."""
    case = tls_crypt_v2()
    served.endpoint.protection = case.protection
    served.udp_listener.protection_changed()
    return case


def as_2_5(case: Case) -> dict[str, object]:
    """Options of a client that cannot echo a cookie."""
    return {"wrapping": case.client, "early_negotiation": False}


@BOTH
async def test_curves_that_are_written_out_hold_nobody_up(tmp_path: Path, transport: Transport) -> None:
    """Eight kilobytes from a stranger stopped the event loop for a second and a half, for nothing."""
    served = Served(tmp_path)
    address = served.udp if transport is Transport.UDP else served.tcp
    context = client_context(certs.client_of_another_authority())
    for _ in range(9):
        context.add_extra_chain_cert(dear_certificates.curve_written_out())
    colleague = await Client(address, transport).connect()
    stranger = Client(address, transport, source="127.1.0.1", context=context)
    began = time.thread_time()
    assert await stranger.until(lambda: len(served.ended) == 1)
    (refused,) = served.ended
    assert refused.end_reason is Refusal.CERTIFICATE_INVALID and "unusual parameters" in refused.end_detail
    assert time.thread_time() - began < 0.5, "of both sides"
    now = asyncio.get_running_loop().time()
    allowed = StrangersConfig().failed_logins_per_source_per_min
    assert served.control.sources._failures._buckets["127.1.0.1"]._left(now) == pytest.approx(allowed - 1, abs=0.9)
    for each in (colleague, stranger):
        each.close()
    served.close()
    assert served.errors == []


@DEAR
@pytest.mark.parametrize("how", ["udp", "tcp", "without a cookie"])
async def test_who_takes_much_time_has_soon_taken_all_that_a_source_may(tmp_path: Path, how: str) -> None:
    served = Served(tmp_path, strangers=LIMITS)
    transport = Transport.TCP if how == "tcp" else Transport.UDP
    address = served.tcp if how == "tcp" else served.udp
    options = as_2_5(stateful(served)) if how == "without a cookie" else {}
    context = dear_context(certs.client_of_another_authority())
    together = [Client(address, transport, source="127.1.0.1", context=context, **options) for _ in range(40)]

    def has_begun(number: int) -> bool:
        """On a machine that has much else to do, the first may have taken all before the last has begun."""
        now = asyncio.get_running_loop().time()
        return len(served.control.table) > number or served.control.sources.has_failed_too_often("127.1.0.1", now)

    for number, client in enumerate(together):
        assert await client.until(lambda n=number: has_begun(n))
    tries = len(served.control.table)
    assert await wait_until(lambda: [client.step() for client in together] != [] and len(served.ended) == tries)
    reasons = Counter(connection.end_reason for connection in served.ended)
    assert 1 <= len(dear(served)) <= 20, "those that are under way end too"
    assert reasons[Refusal.HANDSHAKE_GAVE_WAY] >= tries - 20 and reasons.total() == tries
    await is_shut_out(served, address, transport, "127.1.0.1", **options)
    for each in together:
        each.close()
    served.close()
    assert served.errors == []


@DEAR
@BOTH
async def test_so_has_who_is_let_in(tmp_path: Path, transport: Transport) -> None:
    """An insider: the first certificate is good, and nobody needs the others."""
    served = Served(tmp_path, strangers=LIMITS)
    address = served.udp if transport is Transport.UDP else served.tcp
    context = dear_context(certs.client())
    clients: list[Client] = []

    def has_failed_too_often() -> bool:
        return served.control.sources.has_failed_too_often("127.1.0.1", asyncio.get_running_loop().time())

    while not has_failed_too_often():
        assert len(clients) < 30
        one = Client(address, transport, source="127.1.0.1", context=context)
        clients.append(one)
        assert await one.until(lambda one=one: one.light.connected or has_failed_too_often())
    await is_shut_out(served, address, transport, "127.1.0.1")
    assert len(clients) > 1 and not set(served.ended) & set(served.established), "who is in stays in"
    for each in clients:
        each.close()
    served.close()
    assert served.errors == []


@DEAR
@BOTH
async def test_so_has_who_makes_a_new_key_of_them(tmp_path: Path, transport: Transport) -> None:
    """A hundred sessions of an insider. The old key does for as long, and colleagues are not held up."""
    served = Served(tmp_path, strangers=LIMITS)
    address = served.udp if transport is Transport.UDP else served.tcp
    insider, colleague = [
        await Client(address, transport, context=client_context(certs.client())).connect() for _ in "ab"
    ]
    its_own = next(one for one in served.established if one.link.remote.port == insider.socket.getsockname()[1])
    insider.light._context = dear_context(certs.client())
    insider.light.renegotiate(time.monotonic())
    assert await insider.until(lambda: not insider.light._negotiating and its_own.work_charged > 0)
    served.control.sources.failed("127.0.0.1", asyncio.get_running_loop().time(), 1000)
    worked = its_own.work_s
    its_own.session._keys._soft_reset_at = None  # a while later
    insider.light.renegotiate(time.monotonic())
    assert await insider.until(lambda: served.control.drops[DropReason.FAILED_LOGINS] > 0)
    colleague.light.renegotiate(time.monotonic())
    assert await colleague.until(lambda: colleague.light.key_id == 1 and not colleague.light._negotiating)
    assert its_own.work_s < worked + 0.001 and its_own.established, "the certificates were not looked at"
    for each in (insider, colleague):
        each.close()
    served.close()
    assert served.errors == []


class Unfinished(TlsConnection):
    """Keeps back the last bytes of a long flight, in which it would say that it is done, and all that follows."""

    __slots__ = ("_silent",)

    def output(self) -> bytes:
        flight = super().output()
        if getattr(self, "_silent", False):
            return b""
        self._silent = len(flight) > DEAR_BYTES / 2
        return flight[:-20] if self._silent else flight


@DEAR
@BOTH
async def test_so_has_who_never_finishes(tmp_path: Path, transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute may pass until such a handshake ends, and then three hundred others of them have been heard."""
    served = Served(tmp_path, strangers=LIMITS)
    address = served.udp if transport is Transport.UDP else served.tcp
    monkeypatch.setattr(protocol, "TlsConnection", Unfinished)
    context = dear_context(certs.client())
    tries = 40
    together = [Client(address, transport, source="127.1.0.1", context=context) for _ in range(tries)]
    for number, client in enumerate(together):
        assert await client.until(lambda n=number: len(served.control.table) > n)
    assert await wait_until(
        lambda: [client.step() for client in together] != [] and len(served.ended) + len(dear(served)) >= tries
    )
    assert 1 <= len(dear(served)) <= 20
    assert {connection.end_reason for connection in served.ended} == {Refusal.HANDSHAKE_GAVE_WAY}
    monkeypatch.undo()
    await is_shut_out(served, address, transport, "127.1.0.1")
    for each in together:
        each.close()
    served.close()
    assert served.errors == []


class Backwards(Client):
    """Sends the first packet of each flight last: all that follow it wait, and TLS hears them at once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, habits=Habits(reliable=ReliableHabits(send_window=RECEIVE_WINDOW)), **options)
        in_order = self.light.packets_to_send

        def backwards(now: float) -> list[bytes]:
            self.light._newest.reliable.payload_limit = MAX_PAYLOAD_BYTES
            return in_order(now)[::-1]

        self.light.packets_to_send = backwards  # type: ignore[method-assign]


@BOTH
async def test_so_has_whose_handshake_one_packet_completes(
    tmp_path: Path, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flight of 19 kB fits into the window; after each step of TLS no handshake is under way."""
    served = Served(tmp_path, strangers=StrangersConfig(failed_logins_per_source_per_min=60))
    address = served.udp if transport is Transport.UDP else served.tcp
    at_once = RECEIVE_WINDOW * MAX_PAYLOAD_BYTES
    context = dear_context(certs.client(), at_once - 2 * MAX_PAYLOAD_BYTES)
    one = await Backwards(address, transport, source="127.1.0.1", context=context).connect()
    (connection,) = served.established
    first = connection.work_s
    assert first > 0 and connection.session.handshake_bytes == 0, "it counts as a long one"
    monkeypatch.setattr(admission, "WORK_FREE_S", first / 10)  # however fast this processor is
    monkeypatch.setattr(admission, "WORK_OF_A_FAILURE_S", first / 50)
    assert at_once > connection.session.handshake_bytes_heard > at_once - 2 * MAX_PAYLOAD_BYTES
    one.light.renegotiate(time.monotonic())
    assert await one.until(lambda: one.light.key_id == 1 and not one.light._negotiating)
    assert connection.work_s > first and connection.work_charged > 0
    clients = [one]
    while not served.control.sources.has_failed_too_often("127.1.0.1", asyncio.get_running_loop().time()):
        assert len(clients) < 30
        clients.append(await Backwards(address, transport, source="127.1.0.1", context=context).connect())
    await is_shut_out(served, address, transport, "127.1.0.1")
    served.control.sources.failed("127.1.0.1", asyncio.get_running_loop().time(), 60)
    worked, generation = connection.work_s, one.light.key_id
    one.light.renegotiate(time.monotonic())
    assert not await one.until(lambda: one.light.key_id != generation and not one.light._negotiating, 1.0)
    assert connection.work_s == worked and connection not in served.ended
    for each in clients:
        each.close()
    served.close()
    assert served.errors == []


def charged(served: Served) -> set[str]:
    """The addresses and networks that have something to pay for."""
    return set(served.control.sources._failures._buckets)


@DEAR
async def test_it_is_charged_to_where_the_insider_began_not_to_where_one_packet_says_that_he_moved(
    tmp_path: Path,
) -> None:
    """Which may be forged: an office could be shut out so. Nor does he leave behind what he owes."""
    served = Served(tmp_path, strangers=LIMITS)
    _, port = served.udp
    served.udp_listener.close()
    served.udp_listener.open("127.0.0.1", port)  # a number that the plane's sockets share, so that it hears data itself
    insider = await Client(served.udp, source="127.1.0.1").connect()
    (connection,) = served.established
    home = insider.socket
    insider.socket = Client(served.udp, source="127.5.0.1").socket
    insider.light._seal(b"anything")
    assert await insider.until(lambda: connection.link.remote.host == "127.5.0.1")
    insider.light._context = dear_context(certs.client())
    insider.light.renegotiate(time.monotonic())
    assert await insider.until(lambda: insider.light.key_id == 1 and not insider.light._negotiating)
    assert connection.work_charged > 0 and charged(served) == {*prefixes("127.1.0.1")}
    served.control.sources.failed("127.1.0.1", asyncio.get_running_loop().time(), 1000)
    worked = connection.work_s
    connection.session._keys._soft_reset_at = None  # a while later
    insider.light.renegotiate(time.monotonic())
    assert await insider.until(lambda: served.control.drops[DropReason.FAILED_LOGINS] > 0)
    assert connection.work_s < worked + 0.001
    colleague = await Client(served.udp, source="127.5.0.1").connect()
    for each in (insider, colleague):
        each.close()
    home.close()
    served.close()
    assert served.errors == []


async def test_who_makes_a_new_key_each_hour_has_the_free_time_each_time(tmp_path: Path) -> None:
    """With ten authorities of long keys, say. Who does it all the time has it once."""
    served = Served(tmp_path)
    client = await Client(served.udp).connect()
    (connection,) = served.established
    now = asyncio.get_running_loop().time()
    for hour in range(24):
        served.control._charge(connection, admission.WORK_FREE_S, now + 3600.0 * hour)
    assert not charged(served)
    for number in range(1, 200):
        served.control._charge(connection, admission.WORK_FREE_S, now + 24 * 3600.0 + 5.0 * number)
    assert connection.work_charged == pytest.approx(198 * admission.WORK_FREE_S / admission.WORK_OF_A_FAILURE_S, abs=1)
    assert charged(served) == {*prefixes("127.0.0.1")}
    client.close()
    served.close()
    assert served.errors == []


async def test_tls_hears_nothing_of_who_has_not_heard_us(tmp_path: Path) -> None:
    """Before TLS 1.3 certificates come in clear, and can be sent blindly, in anybody's name."""
    served = Served(tmp_path, strangers=LIMITS)
    case = stateful(served)
    blind = Client(served.udp, source="127.1.0.1")
    tls = TlsConnection(client_context(certs.client(), "1.2"), server=False)
    tls.start()
    chain = b"".join(_of_length(one.public_bytes(Encoding.DER)) for one in dear_chain())
    message = b"\x0b" + _of_length(_of_length(chain))
    records = [message[at : at + 16_384] for at in range(0, len(message), 16_384)]
    stream = tls.output() + b"".join(b"\x16\x03\x03" + len(one).to_bytes(2, "big") + one for one in records)
    packets = [ControlPacket(Opcode.HARD_RESET_CLIENT_V3, 0, b"stranger", packet_id=0)]
    for number, at in enumerate(range(0, len(stream), PAYLOAD), 1):
        payload = stream[at : at + PAYLOAD]
        packets.append(ControlPacket(Opcode.CONTROL_V1, 0, b"stranger", packet_id=number, payload=payload))
    for number, packet in enumerate(packets, 1):
        blind.send(case.client.seal(packet, ReplayId(number, int(time.time()))))
        await asyncio.sleep(0.001)
    assert await wait_until(lambda: len(served.ended) == 1)
    (connection,) = served.ended
    assert not dear(served) and connection.end_reason is Refusal.PROTOCOL_VIOLATION
    assert connection.session.verdict.certificate is None
    assert not served.control.sources._failures._buckets, "who does live there has done nothing"
    blind.close()
    served.close()
    assert served.errors == []


@pytest.mark.parametrize("how", ["ordinary", "ten authorities"])
async def test_an_office_behind_one_address_comes_back_all_at_once(tmp_path: Path, how: str) -> None:
    """Two hundred people after a restart."""
    served = Served(tmp_path)
    context = client_context(certs.client())
    for number in range(10 if how == "ten authorities" else 0):
        context.add_extra_chain_cert(certs.authority(f"authority {number}", "rsa4096").certificate)
    office = [Client(served.udp, context=context) for _ in range(200)]
    assert await wait_until(
        lambda: [one.step() for one in office] != [] and all(one.light.connected for one in office), 60
    )
    assert not any(served.control.drops[reason] for reason in (DropReason.FAILED_LOGINS, DropReason.HANDSHAKE_RATE))
    assert not served.ended
    for each in office:
        each.close()
    served.close()
    assert served.errors == []


def test_a_handshake_that_takes_long_is_as_many_failures() -> None:
    assert admission.failures_in(0.004) == 0
    assert admission.failures_in(0.062) in (24, 25)
