"""Certificates that are work for us and none for who sends them, in which nobody else is served, before anybody asks
who has signed them: with keys that take long to decode, many names or extensions. They are refused by their form."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from helpers import certs, dear_certificates
from helpers.handshake import client_context
from helpers.served import Client, Served, wait_until
from helpers.wrappings import Case, tls_crypt_v2

from cvpnd.config import StrangersConfig
from cvpnd.reasons import Refusal
from cvpnd.wire.errors import DropReason
from cvpnd.wire.packet import ControlPacket, Opcode, Transport
from cvpnd.wire.tls import TlsConnection
from cvpnd.wire.wrap.wrapping import ReplayId

BOTH = pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
DEAR_BYTES = 30_000
PAYLOAD = 1100
"""Of a control packet."""


def _of_length(content: bytes) -> bytes:
    """As TLS writes it."""
    return len(content).to_bytes(3, "big") + content


def dear_chain() -> list[x509.Certificate]:
    return [dear_certificates.usual_key(DEAR_BYTES // 16 - 5)] * 16


def stateful(served: Served) -> Case:
    """From now on it wraps with tls-crypt-v2."""
    case = tls_crypt_v2()
    served.endpoint.protection = case.protection
    served.udp_listener.protection_changed()
    return case


@BOTH
@pytest.mark.parametrize(
    ("chain", "problem"),
    [
        (lambda: [dear_certificates.curve_written_out()] * 9, "unusual parameters"),
        (dear_chain, "1,024 bytes"),
        (lambda: [dear_certificates.relative_points()] * 2, "relative to their issuer"),
        (lambda: [dear_certificates.many_extensions()] * 2, "64 extensions"),
    ],
)
async def test_certificates_that_are_work_hold_nobody_up(
    tmp_path: Path, transport: Transport, chain: Callable[[], list[x509.Certificate]], problem: str
) -> None:
    """Eight kilobytes from a stranger stopped the event loop for a second and a half, for nothing."""
    served = Served(tmp_path)
    address = served.udp if transport is Transport.UDP else served.tcp
    context = client_context(certs.client_of_another_authority())
    for one in chain():
        context.add_extra_chain_cert(one)
    colleague = await Client(address, transport).connect()
    stranger = Client(address, transport, source="127.1.0.1", context=context)
    began = time.thread_time()
    assert await stranger.until(lambda: len(served.ended) == 1)
    (refused,) = served.ended
    assert refused.end_reason is Refusal.CERTIFICATE_INVALID and problem in refused.end_detail
    assert time.thread_time() - began < 0.5, "of both sides"
    now = asyncio.get_running_loop().time()
    allowed = StrangersConfig().failed_logins_per_source_per_min
    assert served.control.sources._failures._buckets["127.1.0.1"]._left(now) == pytest.approx(allowed - 1, abs=0.9)
    for each in (colleague, stranger):
        each.close()
    served.close()
    assert served.errors == []


async def test_tls_hears_nothing_of_who_has_not_heard_us(tmp_path: Path) -> None:
    """Before TLS 1.3 certificates come in clear, and can be sent blindly, in anybody's name."""
    served = Served(tmp_path)
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
    assert connection.end_reason is Refusal.PROTOCOL_VIOLATION
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
