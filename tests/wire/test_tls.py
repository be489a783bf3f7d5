"""TLS over memory, against itself."""

from __future__ import annotations

import pytest
from helpers import certs
from helpers.handshake import client_context
from OpenSSL import SSL

from cvpnd.wire.tls import TlsConnection

LONG = bytes(range(256)) * 60


@pytest.fixture(params=["1.2", "1.3"])
def connected(request: pytest.FixtureRequest) -> tuple[TlsConnection, TlsConnection]:
    own = certs.server()
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(own.certificate)
    context.use_privatekey(own.private_key)
    server = TlsConnection(context, server=True)
    client = TlsConnection(client_context(None, request.param), server=False)
    client.start()
    before = vars(server._connection)["_into_ssl"]
    while not (server.established and client.established):
        server.receive(client.output())
        client.receive(server.output())
    assert server.version == f"TLSv{request.param}"
    assert vars(server._connection)["_into_ssl"] != before, "the handshake's buffers are given back"
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


def test_what_waits_in_a_buffer_is_not_given_away(connected: tuple[TlsConnection, TlsConnection]) -> None:
    server, client = connected
    client.send(b"waits")
    server._has_grown = True
    server._connection.bio_write(client.output())
    assert server.output() == b""
    client.send(b"follows")
    assert server.receive(client.output()) == [b"waits", b"follows"]
    assert server.output() == b""
    assert not server._has_grown
