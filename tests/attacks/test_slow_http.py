"""Who holds connections of the portal, the API, the metrics or the admin socket, and means ill: asks and does not read,
asks thousandfold, begins and says nothing. Strangers reach the first three."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from helpers import certs
from helpers.served import wait_until
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cvpnd.api import listener as listener_module
from cvpnd.api import server as http
from cvpnd.api.server import HttpServer, bind_tcp, bind_unix

ASKED = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LONG = 12_000_000
"""More than kernels keep for a reader."""
SOON_S = 0.3


async def long_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(bytes(LONG) if scope["path"] == "/" else b"short")(scope, receive, send)


class Site:
    def __init__(self, directory: Path, kind: str) -> None:
        self.listener = bind_unix(directory / "socket") if kind == "unix" else bind_tcp("0.0.0.0", 0)
        self.context = ssl.create_default_context() if kind == "tls" else None
        if self.context is not None:
            self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        tls = certs.server("localhost").write(directory, "http") if kind == "tls" else None
        self.server = HttpServer(long_answer, self.listener, tls=tls)

    async def connect(self, source: str = "127.0.0.1", window: int = 4096) -> socket.socket | ssl.SSLSocket:
        return await asyncio.to_thread(self._connect, source, window)

    def _connect(self, source: str, window: int) -> socket.socket | ssl.SSLSocket:
        client = socket.socket(self.listener.family)
        client.settimeout(10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        address = self.listener.getsockname()
        if self.listener.family == socket.AF_INET:
            client.bind((source, 0))
            address = ("127.0.0.1", address[1])
        client.connect(address)
        return client if self.context is None else self.context.wrap_socket(client)

    @property
    def connections(self) -> int:
        return len(self.server._server.server_state.connections)

    async def is_served(self, source: str) -> bool:
        """Somebody who connects, asks and reads."""

        def ask() -> bytes:
            with self._connect(source, 65_536) as client:
                client.sendall(b"GET /short HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: client.recv(65_536), b""))

        with contextlib.suppress(OSError):
            return (await asyncio.to_thread(ask)).endswith(b"short")
        return False


Serve = Callable[[str], Awaitable[Site]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    sites: list[Site] = []

    async def serve(kind: str) -> Site:
        sites.append(Site(tmp_path, kind))
        await sites[-1].server.start()
        return sites[-1]

    yield serve
    for site in sites:
        await site.server.stop()


@pytest.mark.parametrize("afterwards", [b"", b"G", b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n"])
@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_who_does_not_read_the_answer_holds_no_place(serve, monkeypatch, kind, afterwards):
    """A window of zero bytes, which the kernel would probe for ever."""
    for name in ("READ_S", "HEAD_S", "GRACE_S"):
        monkeypatch.setattr(http, name, SOON_S)
    site = await serve(kind)
    client = await site.connect()
    client.sendall(ASKED + afterwards)
    assert await wait_until(lambda: site.connections == 1, 2)
    assert await wait_until(lambda: site.connections == 0, 5)
    client.close()


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_who_reads_slowly_is_given_all_of_it(serve, monkeypatch, kind):
    """Over a narrow line, in several times as long as he may take for a part of it."""
    for name in ("READ_S", "HEAD_S", "GRACE_S"):
        monkeypatch.setattr(http, name, 1.0)
    site = await serve(kind)
    client = await site.connect(window=65_536)

    def read() -> int:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        got = 0
        while more := client.recv(262_144):
            got += len(more)
            time.sleep(len(more) / LONG * 4)
        return got

    assert await asyncio.to_thread(read) > LONG
    client.close()


async def test_who_hangs_up_with_an_answer_unread_holds_no_place(serve, monkeypatch):
    monkeypatch.setattr(http, "READ_S", SOON_S)
    site = await serve("tcp")
    client = await site.connect()
    client.sendall(ASKED)
    await asyncio.sleep(SOON_S / 3)
    client.shutdown(socket.SHUT_WR)
    assert await wait_until(lambda: site.connections == 0, 5)
    client.close()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_who_holds_all_places_from_many_addresses_keeps_nobody_out(serve, monkeypatch, kind):
    """Eight sources fill an API that lets each have its share; everybody who comes then is served."""
    monkeypatch.setattr(listener_module, "CONNECTIONS", 64)
    monkeypatch.setattr(listener_module, "CONNECTIONS_PER_SOURCE", 8)
    site = await serve(kind)
    held = []
    for network in range(10):
        for _ in range(9):
            client = socket.socket()
            client.bind((f"127.1.{network}.1", 0))
            client.connect(("127.0.0.1", site.listener.getsockname()[1]))
            held.append(client)
            await asyncio.sleep(0)
    assert await wait_until(lambda: len(site.listener._open) == 64 and site.listener.refused > 0, 5)
    for person in range(5):
        assert await site.is_served(f"127.2.{person}.1")
    assert len(site.listener._open) <= 64
    assert site.listener.refused >= 10 + 16 + 1, "whoever is closed or gives way is counted"
    for client in held:
        client.close()
    assert await wait_until(lambda: len(site.listener._open) == 0, 5)


async def test_who_begins_connection_after_connection_is_refused_and_others_are_not(serve, monkeypatch):
    """Each may cost us a TLS handshake, on the thread that lets VPN clients in."""
    monkeypatch.setattr(listener_module, "CONNECTIONS_PER_SOURCE_PER_MIN", 20)
    monkeypatch.setattr(listener_module, "CONNECTIONS_PER_NETWORK_PER_MIN", 30)
    site = await serve("tls")
    served = [await site.is_served("127.1.0.1") for _ in range(25)]
    assert served == [True] * 20 + [False] * 5
    neighbour = [await site.is_served("127.1.0.2") for _ in range(12)]
    assert sum(neighbour) in (9, 10) and not neighbour[-1], "what the first was refused is not the network's"
    assert await site.is_served("127.2.0.1")
    assert site.listener.refused == 37 - 20 - sum(neighbour)


@pytest.mark.parametrize(("requests", "of_source", "of_network"), [(2, 5, 10), (8, 8, 32)])
async def test_a_source_that_may_ask_more_may_begin_a_connection_for_each(monkeypatch, requests, of_source, of_network):
    """A proxy before the portal may keep none open."""
    monkeypatch.setattr(listener_module, "CONNECTIONS_PER_SOURCE_PER_MIN", 5)
    monkeypatch.setattr(listener_module, "CONNECTIONS_PER_NETWORK_PER_MIN", 10)
    monkeypatch.setattr(listener_module.time, "monotonic", lambda: 1.0)
    with bind_tcp("127.0.0.1", 0, 1000, 200, requests) as listener:
        begun = [sum(not listener._refusal(f"192.0.2.{host}", "192.0.2.0/24") for _ in range(40)) for host in range(8)]
    assert begun[0] == of_source and sum(begun) == of_network
