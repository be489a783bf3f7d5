"""RADIUS servers (RFC 2865): one question at a time, on the event loop.

Each request begins with a Message-Authenticator, and no answer counts without a right one: else whoever sits between
could make an Accept of a Reject (BlastRADIUS, CVE-2024-3596). What fails that is passed over, and the right answer
waited for: somebody who is quicker with a forged one achieves nothing. pyrad writes the packets and verifies them. The
sockets are ours: each question has one of its own, so that the kernel drops what another address or port sends, a
server that is not there is heard of at once, and no 256 identifiers are all there are."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal, NamedTuple

from pyrad.packet import AccessAccept, AccessChallenge, AccessReject, AccessRequest, AuthPacket, PacketError

from cvpnd.auth.directory import DirectoryError
from cvpnd.auth.health import Latency, ServerHealth
from cvpnd.config import RadiusConfig, RadiusUrl
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

log = logging.getLogger(__name__)

USER_NAME, USER_PASSWORD, REPLY_MESSAGE, STATE, CALLING_STATION_ID, NAS_IDENTIFIER = 1, 2, 18, 24, 31, 32
NAS_PORT_TYPE, PROMPT = 61, 76
VIRTUAL = (5).to_bytes(4, "big")
NO_ECHO = (0).to_bytes(4, "big")
VERDICTS: dict[int, Literal["accept", "reject", "challenge"]] = {
    AccessAccept: "accept",
    AccessReject: "reject",
    AccessChallenge: "challenge",
}
MOST_ATTRIBUTE_BYTES = 253
MOST_PASSWORD_BYTES = 128
MOST_PACKET_BYTES = 4096
MOST_PENDING = 512
MOST_UNVERIFIED = 32
"""Of one question to one server; each costs a few digests."""
MOST_ADDRESSES = 4
"""Of one server's name."""
UNSIGNED = "an answer without a Message-Authenticator, which its configuration has to ask for"
LEAST_SECRET_BYTES = 16
"""RFC 2865, section 3."""


@dataclass(frozen=True, slots=True)
class Question:
    username: str
    password: Secret
    """Of 1 to MOST_PASSWORD_BYTES without a zero."""
    caller: str
    """The address that the client comes from."""
    state: bytes = b""
    """Of the challenge that this answers."""


@dataclass(frozen=True, slots=True)
class Answer:
    verdict: Literal["accept", "reject", "challenge"]
    message: str
    state: bytes
    echo: bool
    server: RadiusUrl


class Unanswered(Exception):
    """No server has answered, or none that can be believed."""

    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(detail)
        self.refusal = refusal
        self.detail = detail


class _Address(NamedTuple):
    family: socket.AddressFamily
    host: str


class _Silent(Exception):
    """Of one server; the text says what it did."""

    def __init__(self, text: str, *, unverified: bool = False, unanswered: bool = False) -> None:
        """``unanswered``: nothing at all came back, as from one that waits for a person to look at their telephone."""
        super().__init__(text)
        self.unverified = unverified
        self.unanswered = unanswered


@dataclass(frozen=True, slots=True)
class RadiusSettings:
    servers: tuple[RadiusUrl, ...]
    secret: bytes = field(repr=False)
    nas_identifier: str
    timeout_s: float
    """For each attempt with a server."""
    attempts: int


def radius_settings(config: RadiusConfig) -> RadiusSettings:
    """Reads the secret. Raises ``DirectoryError``."""
    at = f"radius of directory {config.directory}: secret_file {config.secret_file}"
    try:
        secret = config.secret_file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise DirectoryError(f"{at} cannot be read: {error.strerror}; correct the path or its permissions") from error
    if not secret:
        raise DirectoryError(f"{at} is empty; write the secret that the RADIUS servers have for this gateway into it")
    if len(secret) < LEAST_SECRET_BYTES:
        log.warning("%s: a secret of %d bytes can be guessed; take at least %d", at, len(secret), LEAST_SECRET_BYTES)
    return RadiusSettings(config.servers, secret, config.nas_identifier, config.timeout_s, config.attempts)


class RadiusServers:
    """On the event loop's thread only."""

    def __init__(self, settings: RadiusSettings) -> None:
        self.settings = settings
        self.latency = Latency()
        self.pending = 0
        self._health = ServerHealth(settings.servers)
        self._answered_at: dict[RadiusUrl, _Address] = {}
        """Of those that have several addresses."""
        self._names = ThreadPoolExecutor(1, thread_name_prefix="radius-names")
        """A resolver that hangs keeps no thread that others wait for."""

    def close(self) -> None:
        self._names.shutdown(wait=False, cancel_futures=True)

    def up(self) -> dict[str, bool]:
        return self._health.up()

    async def ask(self, question: Question, until: float, only: RadiusUrl | None = None) -> Answer:
        """``until``, of the loop's clock, there is an answer, or ``Unanswered`` is raised. ``only``: whose challenge it
        answers, as nobody else knows its state."""
        if self.pending >= MOST_PENDING:
            raise Unanswered(Refusal.TOO_MANY_LOGINS, f"{self.pending} questions to RADIUS servers are under way")
        loop, problems, unverified = asyncio.get_running_loop(), [], False
        self.pending += 1
        begun = loop.time()
        try:
            for url in [only] if only is not None else self._health.in_order():
                asked_at = loop.time()
                try:
                    answer = await self._ask(url, question, until)
                except _Silent as problem:
                    unverified |= problem.unverified
                    problems.append(f"{url} {problem}")
                    silent = problem.unanswered and not problem.unverified
                    back_off_s = self._health.silent(url, asked_at) if silent else self._health.failed(url)
                    log.warning("RADIUS server %s; it is asked again in %.0f s", problems[-1], back_off_s)
                    if loop.time() >= until:
                        break
                else:
                    self._health.succeeded(url)
                    return answer
            raise Unanswered(
                Refusal.RADIUS_UNVERIFIED if unverified else Refusal.RADIUS_UNAVAILABLE, "; ".join(problems)
            )
        finally:
            self.pending -= 1
            self.latency.add(loop.time() - begun)

    async def _ask(self, url: RadiusUrl, question: Question, until: float) -> Answer:
        """At each of its addresses, first where it has answered last. Each is given up before the next is asked: a
        telephone is to ring once."""
        loop, problems, unverified, unanswered = asyncio.get_running_loop(), [], False, False
        request = self._request(question)
        for address in await self._addresses(url, until):
            try:
                answer = await self._ask_at(address, url, request, until)
            except _Silent as problem:
                unverified |= problem.unverified
                unanswered |= problem.unanswered
                problems.append(str(problem))
                if loop.time() >= until:
                    break
            else:
                self._answered_at[url] = address
                return answer
        raise _Silent("; ".join(dict.fromkeys(problems)), unverified=unverified, unanswered=unanswered)

    async def _ask_at(self, address: _Address, url: RadiusUrl, request: AuthPacket, until: float) -> Answer:
        loop, settings = asyncio.get_running_loop(), self.settings
        packet = request.RequestPacket()
        doubts: dict[str, int] = {}
        with socket.socket(address.family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.connect((address.host, url.port))
                for _ in range(settings.attempts):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(min(until, loop.time() + settings.timeout_s)):
                            await loop.sock_sendall(sock, packet)
                            while sum(doubts.values()) < MOST_UNVERIFIED:
                                received = await loop.sock_recv(sock, MOST_PACKET_BYTES)
                                answer = _verified(request, received, url)
                                if isinstance(answer, Answer):
                                    if doubts:
                                        log.warning("RADIUS server %s: passed over %s", url, ", ".join(doubts))
                                    return answer
                                doubts[answer] = doubts.get(answer, 0) + 1
                                await asyncio.sleep(0)  # a socket that is never empty would keep the loop
            except OSError as error:
                raise _Silent(f"cannot be reached: {error.strerror or error}") from None
        if doubts:
            raise _Silent(f"sent what cannot be believed: {', '.join(doubts)}", unverified=True)
        raise _Silent("has not answered", unanswered=True)

    def _request(self, question: Question) -> AuthPacket:
        request = AuthPacket(
            AccessRequest, id=secrets.randbelow(256), secret=self.settings.secret,
            authenticator=secrets.token_bytes(16),
        )  # fmt: skip
        request.add_message_authenticator()  # before any other attribute
        request[USER_NAME] = [question.username.encode()]
        request[USER_PASSWORD] = [_hidden(question.password, self.settings.secret, request.authenticator)]
        request[NAS_IDENTIFIER] = [self.settings.nas_identifier.encode()]
        request[NAS_PORT_TYPE] = [VIRTUAL]
        request[CALLING_STATION_ID] = [question.caller.encode()]
        if question.state:
            request[STATE] = [question.state]
        return request

    async def _addresses(self, url: RadiusUrl, until: float) -> list[_Address]:
        """Raises ``_Silent``."""
        try:
            return [_Address(socket.AF_INET6 if ip_address(url.host).version == 6 else socket.AF_INET, url.host)]
        except ValueError:
            pass
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(until):
                found = await loop.run_in_executor(
                    self._names, lambda: socket.getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)
                )
        except TimeoutError:
            raise _Silent("has a name that is not resolved in time") from None
        except OSError as error:
            raise _Silent(f"has a name that cannot be resolved: {error.strerror or error}") from None
        except RuntimeError:  # the configuration has changed, and the resolver's thread is gone
            raise _Silent("is configured no more") from None
        addresses = list(dict.fromkeys(_Address(family, str(address[0])) for family, _, _, _, address in found))
        latest = self._answered_at.get(url)
        return sorted(addresses, key=lambda each: each != latest)[:MOST_ADDRESSES]


def _hidden(password: Secret, secret: bytes, authenticator: bytes) -> bytes:
    """RFC 2865, section 5.2, in place. pyrad's ``PwCrypt`` leaves copies of the password."""
    text, last = bytearray(-(-len(password) // 16) * 16), authenticator
    text[: len(password)] = password.view()
    for at in range(0, len(text), 16):
        mask = hashlib.md5(secret + last, usedforsecurity=False).digest()
        for number in range(16):
            text[at + number] ^= mask[number]
        last = bytes(text[at : at + 16])
    return bytes(text)


def _verified(request: AuthPacket, received: bytes, url: RadiusUrl) -> Answer | str:
    """The text says what is wrong with it; nobody knows then whom it is from."""
    try:
        reply = request.CreateReply(packet=received)
        if not request.VerifyReply(reply, received, enforce_ma=True):
            if reply.message_authenticator is None and request.VerifyReply(reply, received):
                return UNSIGNED
            return "an answer that is not signed with our secret"
    except (PacketError, struct.error, ValueError, LookupError, TypeError) as error:
        return f"no RADIUS packet ({type(error).__name__})"
    verdict = VERDICTS.get(reply.code)
    if verdict is None:
        return f"a packet of code {reply.code}"
    message = b"".join(reply.get(REPLY_MESSAGE, [])).decode("utf-8", "replace")
    state = next(iter(reply.get(STATE, [])), b"")
    return Answer(verdict, message, state, reply.get(PROMPT, [b""])[0] != NO_ECHO, url)
