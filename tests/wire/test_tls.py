"""TLS over memory, against itself."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from cryptography import x509
from helpers import certs, dear_certificates
from helpers.handshake import client_context
from key_updates import KeyLog, KeyUpdates
from OpenSSL import SSL, crypto

from cvpnd import _native
from cvpnd.reasons import Refusal
from cvpnd.wire import tls
from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.tls import MAX_SHOWN_CHARACTERS, TlsConnection, common_name

LONG = bytes(range(256)) * 60
MOST = 32768
"""Of a handshake: TLS_HANDSHAKE_MAX of native/tls_pipe.h."""


def server_context() -> SSL.Context:
    own = certs.server()
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(own.certificate)
    context.use_privatekey(own.private_key)
    return context


class MallInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = MallInfo


def allocated_bytes() -> int:
    return int(_mallinfo2().uordblks)


def records_in(data: bytes) -> int:
    count = 0
    while data:
        data = data[5 + int.from_bytes(data[3:5]) :]
        count += 1
    return count


def shake_hands(server: TlsConnection, client: TlsConnection) -> None:
    client.start()
    while not (server.established and client.established):
        server.receive(client.output())
        if answer := server.output():
            client.receive(answer)


@pytest.fixture(params=["1.2", "1.3"])
def connected(request: pytest.FixtureRequest) -> tuple[TlsConnection, TlsConnection]:
    server = TlsConnection(server_context(), server=True)
    client = TlsConnection(client_context(None, request.param), server=False)
    shake_hands(server, client)
    assert server.version == f"TLSv{request.param}"
    assert server.output() == b"", "the tickets of TLS 1.3 go along with the first record"
    server.send(b"first")
    assert client.receive(server.output()) == [b"first"]
    return server, client


def test_both_sides_are_heard_after_the_buffers_of_the_handshake_are_gone(
    connected: tuple[TlsConnection, TlsConnection],
) -> None:
    for sender, receiver in (connected, connected[::-1]) * 2:
        for text in (b"one", LONG):
            sender.send(text)
            data = sender.output()
            records = [record for at in range(0, len(data), 500) for record in receiver.receive(data[at : at + 500])]
            assert records == [text]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_what_comes_together_with_the_end_of_the_handshake_is_heard(version: str) -> None:
    server = TlsConnection(server_context(), server=True)
    client = TlsConnection(client_context(None, version), server=False)
    client.start()
    while not client.established:
        server.receive(client.output())
        client.receive(server.output())
    if not server.established:  # TLS 1.3: its client has the last word
        client.send(b"first")
        client.send(b"second")
        last = client.output()
        assert server.receive(last[:-3]) == [b"first"]
        assert server.receive(last[-3:]) == [b"second"]
    assert server.established
    client.send(b"third")
    assert server.receive(client.output()) == [b"third"]


@pytest.fixture
def judging() -> SSL.Context:
    """Of a server that asks for certificates."""
    context = server_context()
    context.get_cert_store().add_cert(crypto.X509.from_cryptography(certs.authority().certificate))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *judged: bool(judged[-1]))
    return context


@pytest.mark.parametrize("piece", [1150, 9000, 200_000])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_ten_authorities_with_long_keys_are_let_in(judging: SSL.Context, version: str, piece: int) -> None:
    issuer = certs.authority()
    for number in range(10):
        issuer = certs.issue(issuer, certs.common_name(f"Authority {number}"), is_ca=True, kind="rsa4096")
    alice = certs.issue(issuer, certs.common_name("alice"), kind="rsa4096")
    server = TlsConnection(judging, server=True)
    client = TlsConnection(client_context(alice, version), server=False)
    client.start()
    heard: list[bytearray] = []
    for _ in range(4):
        if client.established and not heard:
            for _ in range(4):
                client.send(bytes(16_000))  # what follows at once is no part of the handshake
        data = client.output()
        heard += [record for at in range(0, len(data), piece) for record in server.receive(data[at : at + piece])]
        client.receive(server.output())
    assert heard == [bytes(16_000)] * 4


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 1150, 9000, 200_000])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_crowd_of_authorities_is_not_read_and_its_sender_is_told(
    judging: SSL.Context, version: str, piece: int
) -> None:
    crowd = tuple(certs.authority(f"One of a crowd {number}").certificate for number in range(150))
    server = TlsConnection(judging, server=True)
    client = TlsConnection(client_context(replace(certs.client(), intermediates=crowd), version), server=False)
    client.start()
    server.receive(client.output())
    client.receive(server.output())
    data = client.output()
    assert len(data) > 3 * MOST // 2
    with pytest.raises(PeerError, match="its handshake, with all certificates in it, is too long") as refused:
        for at in range(0, len(data), piece):
            server.receive(data[at : at + piece])
    assert refused.value.reason is DropReason.TLS_FAILURE
    assert at < MOST, "not only once all of it is here"
    assert not server.established and server.verdict.certificate is None
    with pytest.raises(PeerError, match="record overflow"):
        client.receive(server.output())


def second_flight(judging: SSL.Context, version: str, *beside: x509.Certificate) -> tuple[TlsConnection, bytes]:
    """Of a client that brings these certificates beside its own, and the server that has not heard it yet."""
    server = TlsConnection(judging, server=True)
    client = TlsConnection(client_context(replace(certs.client(), intermediates=beside), version), server=False)
    client.start()
    server.receive(client.output())
    client.receive(server.output())
    return server, client.output()


@pytest.mark.parametrize(
    ("certificate", "count", "detail"),
    [
        (dear_certificates.curve_written_out, 1, "unusual parameters, such as a curve that is written out, not named"),
        (dear_certificates.curve_written_out, 9, "unusual parameters"),
        (dear_certificates.compressed_point, 1, "of which the key is a compressed point"),
        (dear_certificates.usual_key, 17, "more than 17 certificates"),
        (partial(dear_certificates.usual_key, 1400), 1, "a name of more than 1,024 bytes"),
        (dear_certificates.relative_points, 1, "names where revocation lists are relative to their issuer"),
        (partial(dear_certificates.many_extensions, 65), 1, "more than 64 extensions"),
        (partial(dear_certificates.usual_key, 1250), 14, "more than 12 kB of names and extensions"),
    ],
)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_certificates_that_are_work_are_not_decoded(
    judging: SSL.Context, version: str, certificate: Callable[[], x509.Certificate], count: int, detail: str
) -> None:
    """Nine curves that are written out took a second and a half, in 8 kB from anybody."""
    server, flight = second_flight(judging, version, *[certificate()] * count)
    began = time.thread_time()
    with pytest.raises(PeerError, match=f"it brings .*{detail}") as refused:
        server.receive(flight)
    assert time.thread_time() - began < 0.05
    assert refused.value.reason is DropReason.TLS_FAILURE
    assert server.verdict.refusal is Refusal.CERTIFICATE_INVALID and server.verdict.certificate is None
    assert server.output(), "the alert"


@pytest.mark.parametrize("count", [0, 1, 16])
@pytest.mark.parametrize("usual", [dear_certificates.usual_key, partial(dear_certificates.many_extensions, 64)])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_as_many_usual_ones_as_a_path_may_have_are_let_in(
    judging: SSL.Context, version: str, usual: Callable[[], x509.Certificate], count: int
) -> None:
    server, flight = second_flight(judging, version, *[usual()] * count)
    server.receive(flight)
    assert server.established and server.verdict.refusal is None


def test_buffers_of_the_handshake_are_given_back_once_nothing_waits_in_them() -> None:
    server, client = TlsConnection(server_context(), server=True), TlsConnection(client_context(None), server=False)
    shake_hands(server, client)
    client.send(b"waits")
    waits = client.output()
    assert server.receive(waits[:-1]) == []
    server.send(b"meanwhile")
    assert client.receive(server.output()) == [b"meanwhile"]
    client.send(b"follows")
    assert server.receive(waits[-1:] + client.output()) == [b"waits", b"follows"]
    server.send(b"afterwards")
    before = allocated_bytes()
    afterwards = server.output()
    assert allocated_bytes() < before - 2000
    assert client.receive(afterwards) == [b"afterwards"]


def test_every_record_is_read_however_the_stream_is_cut(connected: tuple[TlsConnection, TlsConnection]) -> None:
    server, client = connected
    texts = [b"one", b"two", b"", b"three"]
    for text in texts:
        client.send(text)
    data = client.output()
    for size in (1, 2, 5, 7, len(data)):
        received = [r for at in range(0, len(data), size) for r in server.receive(data[at : at + size])]
        assert received == [b"one", b"two", b"three"]
        for text in texts:
            client.send(text)
        data = client.output()


def test_handshake_of_single_bytes_comes_to_its_end() -> None:
    server, client = TlsConnection(server_context(), server=True), TlsConnection(client_context(None), server=False)
    client.start()
    while not (server.established and client.established):
        for receiver, data in ((server, client.output()), (client, server.output())):
            for byte in data:
                receiver.receive(bytes([byte]))


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(5), b"\x16\x02\x00\x00\x20", b"\x16\x03\x01\xff\xff"],
)
def test_what_cannot_be_a_record_is_refused_at_once(
    connected: tuple[TlsConnection, TlsConnection], garbage: bytes
) -> None:
    for receiver in (TlsConnection(server_context(), server=True), connected[0]):
        with pytest.raises(PeerError):
            receiver.receive(garbage)


@pytest.mark.parametrize("unknown", [("SSL_read", "int(*)(SSL *, void *, size_t)"), ("SSL_read_all", "int(*)(SSL *)")])
def test_a_library_with_other_functions_is_not_called(
    monkeypatch: pytest.MonkeyPatch, unknown: tuple[str, str]
) -> None:
    monkeypatch.setattr(_native, "TLS_CALLS", (*_native.TLS_CALLS[1:], unknown))
    with pytest.raises(ImportError, match=rf"cryptography [0-9.]+ has no {unknown[0]}, or another"):
        tls._calls()


@pytest.mark.parametrize("address", [0, 1 << 64])
def test_addresses_of_nothing_are_refused(address: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        _native.TlsCalls(*[address] * len(_native.TLS_CALLS))
    with pytest.raises(TypeError):
        _native.TlsCalls(1)
    with pytest.raises(TypeError):
        _native.TlsPipe(None, None, 1, 1, 1, True)  # type: ignore[arg-type]


@pytest.mark.parametrize("beside", [True, False])
def test_key_update_is_answered_also_beside_text(beside: bool) -> None:
    context = client_context(None)
    log = KeyLog(context)
    server, client = TlsConnection(server_context(), server=True), TlsConnection(context, server=False)
    shake_hands(server, client)
    server.send(b"with the tickets")
    server.output()
    client.send(b"text")
    text = client.output()
    updates = KeyUpdates(log.take(client._connection), client.cipher, 1)
    if beside:
        assert server.receive(text + updates.record()) == [b"text"]
    else:
        assert server.receive(text) == [b"text"]
        assert server.receive(updates.record()) == []
    server.send(b"x")
    assert records_in(server.output()) == 2, "new keys in return, and the text"


def test_farewell_is_heard(connected: tuple[TlsConnection, TlsConnection]) -> None:
    server, client = connected
    client.send(b"farewell")
    client._connection.shutdown()
    with pytest.raises(PeerError) as closed:
        server.receive(client.output())
    assert closed.value.reason is DropReason.TLS_CLOSED


@pytest.mark.parametrize(
    ("names", "shown"),
    [(["anna"], "anna"), (["other", "anna"], "anna"), (["n" * 90_000], "n" * MAX_SHOWN_CHARACTERS), ([], "")],
)
def test_logs_show_of_a_certificate_the_name_that_counts_and_not_all_of_an_endless_one(names, shown):
    assert common_name(certs.client_with_subject(certs.common_name(*names)).certificate) == shown
