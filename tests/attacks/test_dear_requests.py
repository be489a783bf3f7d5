"""Requests that are a thousand times more work to take apart than to send: refused by name before that is done, with no
word in the log for each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from helpers import certs, saml_idp
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from cvpnd.api import server as http
from cvpnd.api.server import HEADER_LIMIT, HEADER_LINES, MOST_COOKIES, HttpServer, bind_tcp, bind_unix
from cvpnd.auth.challenge import Challenged
from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.metadata import parse_metadata
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.saml.state import Visitor
from cvpnd.ops.logs import RateLimited
from cvpnd.portal.app import LONGEST_ANSWER
from cvpnd.portal.requests import Malformed, read_form
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

READ_BYTES = 250_000
"""That asyncio gives a protocol at once."""
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
ORDINARY = POST + b"Content-Length: 2\r\n\r\nok"


class Site:
    def __init__(self, directory: Path, kind: str) -> None:
        self.asked = 0
        self.listener = bind_unix(directory / "socket") if kind == "unix" else bind_tcp("127.0.0.1", 0)
        self.context = ssl.create_default_context() if kind == "tls" else None
        if self.context is not None:
            self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        tls = certs.server("localhost").write(directory, "http") if kind == "tls" else None
        self.server = HttpServer(self._answer, self.listener, tls=tls)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await Response(b"asked")(scope, receive, send)

    async def told(self, said: bytes) -> bytes:
        """All that is answered until the end."""

        def talk() -> bytes:
            client = socket.socket(self.listener.family)
            client.settimeout(10)
            client.connect(self.listener.getsockname())
            with client if self.context is None else self.context.wrap_socket(client) as connection:
                answer = b""
                with contextlib.suppress(ConnectionError, ssl.SSLError):  # what it does not read any more
                    connection.sendall(said)
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    while more := connection.recv(65_536):
                        answer += more
                return answer

        return await asyncio.to_thread(talk)


@contextlib.asynccontextmanager
async def site_of(directory: Path, kind: str) -> AsyncIterator[Site]:
    site = Site(directory, kind)
    await site.server.start()
    yield site
    await site.server.stop()


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
FIELDS = b"".join(b"a%d:\n" % number for number in range(HEADER_LINES + 1))


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
@pytest.mark.parametrize(
    ("dear", "status", "words"),
    [
        (CHUNKED + b"\r\n" + b"1\r\nx\r\n" * (READ_BYTES // 6), b"411", b"send Content-Length"),
        (CHUNKED + b"\r\n0\r\n" + b"a:\n" * (READ_BYTES // 3), b"411", b"send Content-Length"),
        (CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n", b"411", b"send Content-Length"),
        (POST + FIELDS + b"\r\n", b"431", b"at most %d lines" % HEADER_LINES),
        (POST + b"a:\n" * (READ_BYTES // 3) + b"\n", b"431", b"at most"),
        (POST + b"Cookie: " + b"aa" * HEADER_LIMIT + b"\r\n\r\n", b"431", b"at most %d bytes" % HEADER_LIMIT),
        (POST + b"Cookie: " + b"a;" * (HEADER_LIMIT // 2 - 99) + b"\r\n\r\n", b"431", b"at most %d" % MOST_COOKIES),
        (b"GET /" + b"%A" * (HEADER_LIMIT // 2 - 99) + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"414", b"escape sequences"),
    ],
    ids=["chunks", "trailers", "two lengths", "fields", "many fields", "long field", "cookies", "escapes"],
)
async def test_what_takes_long_to_read_is_refused_unread(tmp_path, caplog, kind, dear, status, words):
    async with site_of(tmp_path, kind) as site:
        answer = await site.told(dear)
        if answer:  # to who sends on, the end may come before the words
            assert answer.startswith(b"HTTP/1.1 " + status) and words in answer, answer[:300]
            assert answer.count(b"HTTP/1.1 ") == 1 and b"connection: close" in answer.lower()
        assert (await site.told(dear[: 4 * HEADER_LIMIT])).startswith(b"HTTP/1.1 " + status)
        assert site.asked == 0
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        ordinary = await site.told(ORDINARY + ORDINARY.replace(b"Host", b"Connection: close\r\nHost"))
        assert ordinary.count(b"asked") == site.asked == 2


async def test_many_names_in_a_query_are_asked_for_all_the_same(tmp_path):
    """As an administrator does who asks what a member of many groups may reach."""
    async with site_of(tmp_path, "unix") as site:
        query = b"&".join(b"group=" + b"%D0%96" * 60 for _ in range(30))
        asked = b"GET /?" + query + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert (await site.told(asked)).count(b"asked") == site.asked == 1


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_a_body_sent_byte_by_byte_is_no_work(tmp_path, kind):
    """A few connections of one stranger kept all clients of the VPN that wanted in waiting for twenty seconds."""
    async with site_of(tmp_path, kind) as site:
        dear = CHUNKED + b"\r\n" + b"1\r\nx\r\n" * (4 * READ_BYTES)
        begun = time.process_time()
        await asyncio.gather(*(site.told(dear) for _ in range(8)))
        assert time.process_time() - begun < 2.0, "of both sides; each byte taken apart would be more than thirty"
        assert site.asked == 0


@pytest.mark.parametrize("method", [b"HEAD", b"CONNECT", b"OPTIONS"])
async def test_what_is_refused_is_refused_to_every_method(tmp_path, caplog, method):
    """An answer to HEAD has no words in it: to send some left a traceback in the log for each who asked."""
    async with site_of(tmp_path, "tcp") as site:
        head, _, words = (await site.told(CHUNKED.replace(b"POST", method) + b"\r\n")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 411") and bool(words) is (method != b"HEAD")
        behind = await site.told(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n")
        assert behind.count(b"HTTP/1.1 ") == 2 and b"Invalid HTTP request received." in behind, behind
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_what_strangers_get_wrong_is_a_line_in_the_log_now_and_then(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(http, "_warn", RateLimited(http.log))
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    async with site_of(tmp_path, "tcp") as site:
        assert (await site.told(upgrade * 20 + last)).count(b"asked") == 21
        for wrong in (b"\x16\x03\x01", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", CHUNKED + b"\r\nZZ\r\n"):
            for _ in range(5):
                assert (await site.told(wrong)).startswith(b"HTTP/1.1 4")
        behind = ORDINARY + b"nonsense\r\n\r\n"
        assert (await site.told(behind)).count(b"HTTP/1.1 ") == 2, "an answer, and a refusal"
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1 and said[0].startswith("HTTP from 127.0.0.1: "), said


TEN_TIMES_S = 0.25
"""It took a second."""
ESCAPES = pytest.mark.parametrize(
    "escapes", ["%41" * 87_000, "A%" * 131_000, "%2" * 131_000], ids=["whole", "broken", "cut"]
)


@ESCAPES
async def test_a_form_of_escape_sequences_is_no_work(escapes):
    """Anybody may post one to where identity providers send theirs, as often as twenty times a second."""
    body = f"RelayState=x&SAMLResponse={escapes}"[:LONGEST_ANSWER].encode()
    head = [(b"content-type", b"application/x-www-form-urlencoded")]

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    begun = time.process_time()
    for _ in range(10):
        with pytest.raises(Malformed):
            await read_form(Request({"type": "http", "headers": head}, receive), LONGEST_ANSWER)
    assert time.process_time() - begun < TEN_TIMES_S


@ESCAPES
def test_an_answer_of_escape_sequences_is_no_work(escapes):
    """The same in a password's place, by a client that was sent to its browser."""
    logins, visitor = SamlLogins(None, bytes(32)), Visitor("cvpn-endpoint-1", "corp", "", "")  # type: ignore[arg-type]
    logins.replace({"corp": SamlProvider("corp", parse_metadata(saml_idp.metadata()))})
    sent = logins.send_away(visitor, "ACS::35001")
    assert isinstance(sent, Challenged)
    password = Secret.of_text(f"CRV1::{sent.text.split(':')[2]}::{escapes}")
    begun = time.process_time()
    answers = [logins.taken_back(visitor, password) for _ in range(10)]
    assert time.process_time() - begun < TEN_TIMES_S
    assert all(isinstance(answer, Refused) and answer.refusal is Refusal.SAML_MALFORMED for answer in answers)
    logins.close()
