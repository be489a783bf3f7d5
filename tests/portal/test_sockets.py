"""The portal on a real socket with TLS, and what strangers send there: bounded, named, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from helpers import certs

from cvpnd.api import server as http
from cvpnd.api.server import HttpServer, bind_tcp
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.model import Assertion, PendingRequest
from cvpnd.auth.web_logins import Waiting, WebLogin, WebLogins
from cvpnd.config import PortalConfig
from cvpnd.portal import requests
from cvpnd.portal.app import Portal
from cvpnd.reasons import PortalRefusal

URL = "https://vpn.example.com"
ANNA = Assertion("_1", "anna@example.org", frozenset(), "Anna", "Ash")
FORM = "content-type: application/x-www-form-urlencoded"
BOMB = gzip.compress(b"RelayState=" + bytes(10_000_000))
TEN_MB = 10_000_000
CHUNK = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
SOON_S = 0.4


class Nobody:
    def spend_saml(self, key: str, until: float, now: float) -> bool:
        return True


class Site:
    def __init__(self, directory: Path) -> None:
        certs.server().write(directory, "portal")
        self.logins = WebLogins(URL, 180)
        self.saml = SamlLogins(Nobody(), bytes(32))  # type: ignore[arg-type]
        files = {"certificate": "c", "private_key": "k", "requests_per_source_per_min": 1000}
        config = PortalConfig.model_validate({"listen": "127.0.0.1:443", "url": URL, **files})
        self.portal = Portal(config, self.logins, lambda: self.saml)
        self.listener = bind_tcp("127.0.0.1", 0)
        self.server = HttpServer(self.portal, self.listener, tls=(directory / "portal.crt", directory / "portal.key"))
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.listener.getsockname(), ssl=self._context)

    async def says(self, *head: str, body: bytes = b"", path: str = "/saml/acs", method: str = "POST") -> int:
        """Status, or 0: closed without a word. Whatever the server does not read any more is not sent."""
        reader, writer = await self.connect()
        lines = [f"{method} {path} HTTP/1.1", "host: vpn.example.com", "connection: close", *head, "", ""]
        try:
            writer.write("\r\n".join(lines).encode() + body)
            answer = await asyncio.wait_for(reader.read(65_536), 10)
        except (ConnectionError, ssl.SSLError):
            answer = b""
        finally:
            writer.transport.abort()
        assert len(answer) < 8192
        return int(answer.split(b" ", 2)[1]) if answer else 0

    def person(self) -> tuple[WebLogin, str, str]:
        """Somebody who has come as far as consent: path and cookie."""
        outcome = asyncio.get_running_loop().create_future()
        until = asyncio.get_running_loop().time() + 180
        login = WebLogin("corp", "c", Waiting("staff", "Linux", "192.0.2.7", ""), until, outcome, lambda: None)
        self.logins.offer(login)
        relay_state = self.logins.open(login)
        assert self.logins.ask(login, relay_state, PendingRequest("_r", f"{URL}/saml/acs", 0.0, 300.0))
        self.logins.check(relay_state, 0.0)
        return login, f"/saml/consent/{self.logins.prove(login, ANNA)}", f"cookie: {login.cookie}={login.browser}"


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(http, "HEAD_S", SOON_S)
    monkeypatch.setattr(requests, "BODY_S", SOON_S)
    made = Site(tmp_path)
    await made.server.start()
    yield made
    await made.server.stop()
    made.saml.close()


async def test_bombs_are_refused_by_name_and_nobody_else_notices(site):
    login, path, cookie = site.person()
    long, ours = f"content-length: {TEN_MB + 11}", site.portal.refusals
    for head, body, status, refusal in (
        ((FORM, long), b"RelayState=" + bytes(TEN_MB), 413, PortalRefusal.REQUEST_TOO_LARGE),
        ((FORM, "content-encoding: gzip", f"content-length: {len(BOMB)}"), BOMB, 400, PortalRefusal.REQUEST_MALFORMED),
        ((FORM, f"content-length: {len(BOMB)}"), BOMB, 400, PortalRefusal.REQUEST_MALFORMED),
        (
            ("content-type: multipart/form-data; boundary=x", "content-length: 80"),
            b"--x\r\ncontent-disposition: form-data; name=RelayState\r\n\r\ny\r\n--x--\r\n".ljust(80),
            400,
            PortalRefusal.REQUEST_MALFORMED,
        ),
        ((FORM, "content-length: 9"), b"Relay", 408, PortalRefusal.REQUEST_TOO_SLOW),
    ):
        before = ours[refusal]
        assert (await site.says(*head, body=body), ours[refusal]) == (status, before + 1), (head, refusal)
        assert await site.says(cookie, path=path, method="GET") == 200
    assert site.portal._reserve.used == 0 and not login.outcome.done()


async def test_what_is_no_http_gets_no_further_than_its_parser(site):
    before = dict(site.portal.refusals)
    for head, body in (
        ((FORM, "content-length: 5", "content-length: 6"), b"a=b&c="),
        ((FORM, "content-length: -1"), b""),
        ((FORM, "content-length: 99999999999999999999999999"), b""),
        ((FORM, "transfer-encoding: chunked"), b"fffffffffffffffffffffffff\r\n"),
        ((FORM, "transfer-encoding: chunked"), CHUNK * 20),
        ((FORM, "transfer-encoding: gzip"), BOMB),
        ((f"x: {'y' * 70_000}",), b""),
    ):
        assert await site.says(*head, body=body) in (0, 400, 411, 431, 501), head
    assert site.portal.refusals == before


async def test_a_name_that_a_browser_was_tricked_into_and_a_request_within_another_lead_nowhere(site):
    """No address in an answer is made of what the request says; one that has two lengths is the connection's last."""
    login, path, cookie = site.person()
    hidden = f"GET {path} HTTP/1.1\r\nhost: vpn.example.com\r\n{cookie}\r\n\r\n".encode()
    for lengths in (
        ("content-length: 5", "transfer-encoding: chunked"),
        ("transfer-encoding: chunked", "content-length: 5"),
        ("transfer-encoding: chunked", "transfer-encoding: identity"),
        ("transfer-encoding: chunked, identity",),
        ("transfer-encoding:\x0bchunked", "content-length: 5"),
    ):
        reader, writer = await site.connect()
        lines = ["POST /saml/acs HTTP/1.1", "host: vpn.example.com", FORM, *lengths, "", ""]
        writer.write("\r\n".join(lines).encode() + b"0\r\n\r\n" + hidden)
        with contextlib.suppress(TimeoutError):
            answer = b""
            while more := await asyncio.wait_for(reader.read(65_536), 0.5):
                answer += more
        writer.transport.abort()
        assert b"anna@example.org" not in answer, (lengths, "it belongs to nobody's form")
    for host in ("host: evil.example", "host: vpn.example.com\r\nhost: evil.example", "x-forwarded-host: evil.example"):
        reader, writer = await site.connect()
        name = "" if host.startswith("host") else "host: vpn.example.com\r\n"
        writer.write(f"GET {path} HTTP/1.1\r\n{name}{host}\r\nconnection: close\r\n{cookie}\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(65_536), 5)
        writer.transport.abort()
        assert b"evil.example" not in answer, host
    assert not login.outcome.done()


async def test_many_who_say_nothing_are_gone_again_and_one_who_says_something_is_served_beside_them(site):
    _, path, cookie = site.person()
    silent = [await site.connect() for _ in range(20)]
    for number, (_, writer) in enumerate(silent):
        writer.write(b"POST /saml/acs HTTP/1.1\r\nhost: x\r\nx: "[: number + 10])
    assert await site.says(cookie, path=path, method="GET") == 200
    closed = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in silent)), 10)
    assert set(closed) == {b""}
    for _, writer in silent:
        writer.transport.abort()
