"""An HTTP(S) server that is asked: the request is posted as JSON, the answer is the body of a 200.

A request is made again only where the server has certainly not acted on it: no connection came about, or it said 429 or
503. Every request of one client carries its connection id as ``Idempotency-Key``. With a secret it is signed:
``X-Cvpnd-Signature: sha256=`` and the hexadecimal HMAC-SHA256 over the value of ``X-Cvpnd-Timestamp`` (seconds since
the epoch), a dot, and the body. Redirects and proxies are not followed, certificates are verified, and each request has
a connection of its own, so that none is ever sent into one that is about to be closed. Cookies are not kept: they would
make a server take what is asked about one client for the session of another."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import ssl
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from cvpnd.config import HandlerConfig
from cvpnd.handlers.schema import LARGEST_ANSWER, ConnectRequest, HandlerFailed
from cvpnd.reasons import Refusal

for _chatty in ("httpx", "httpcore"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)  # they write down each URL, in which there may be a key

PAUSES_S = (0.1, 0.5)
"""Before the second attempt and the third."""
SHORTEST_SECRET = 16
NOT_NOW = frozenset({429, 503})


class WebHandler:
    trouble = ""

    def __init__(self, settings: HandlerConfig) -> None:
        """Reads files. Raises ``ValueError`` or ``OSError``."""
        assert settings.url is not None  # noqa: S101 - the caller's promise
        self.settings = settings
        self._url = settings.url
        self._secret = b"" if settings.secret_file is None else settings.secret_file.read_bytes().strip()
        if settings.secret_file is not None and len(self._secret) < SHORTEST_SECRET:
            raise ValueError(f"{settings.secret_file} has under {SHORTEST_SECRET} bytes; use openssl rand -hex 32")
        authorities = "" if settings.ca is None else settings.ca.read_text()
        self.read_from_files: object = (self._secret, authorities)
        try:
            context = ssl.create_default_context(cadata=authorities or None)
        except ssl.SSLError:
            raise ValueError(f"{settings.ca} holds no PEM certificates; name a file that does") from None
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=None,  # noqa: S113 - the desk has the time
            limits=httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=0),
        )

    def look(self) -> None:
        """It is asked, whoever may have the server."""

    async def call(self, request: ConnectRequest) -> bytes:
        payload = request.payload()
        for pause_s in PAUSES_S:
            try:
                return await self._post(payload, request.connection_id)
            except _NotTaken:
                await asyncio.sleep(pause_s)
        return await self._post(payload, request.connection_id)

    async def _post(self, payload: bytes, connection_id: str) -> bytes:
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "Idempotency-Key": connection_id,
            "User-Agent": "cvpnd",
            **self._signature(payload),
        }
        try:
            async with self._client.stream("POST", self._url, content=payload, headers=headers) as response:
                if response.status_code == 200:
                    return await _body(response)
                status = response.status_code
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _NotTaken(Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR, f"no connection: {error}") from None
        except httpx.HTTPError as error:
            raise HandlerFailed(
                Refusal.CLIENT_CONNECT_HANDLER_SERVICE_ERROR, f"{type(error).__name__}: {error}"
            ) from None
        if status in NOT_NOW:
            raise _NotTaken(Refusal.CLIENT_CONNECT_HANDLER_THROTTLED, f"it answered with status {status}")
        raise HandlerFailed(Refusal.CLIENT_CONNECT_HANDLER_OTHER_EXECUTION_ERROR, f"it answered with status {status}")

    def _signature(self, payload: bytes) -> dict[str, str]:
        if not self._secret:
            return {}
        timestamp = str(int(time.time()))
        digest = hmac.new(self._secret, timestamp.encode() + b"." + payload, hashlib.sha256).hexdigest()
        return {"X-Cvpnd-Timestamp": timestamp, "X-Cvpnd-Signature": f"sha256={digest}"}


class _NotTaken(HandlerFailed):
    """The server has not acted on it, so it may be asked again."""


async def _body(response: httpx.Response) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > LARGEST_ANSWER:
            raise HandlerFailed(
                Refusal.CLIENT_CONNECT_HANDLER_INVALID_RESPONSE, f"it sent more than {LARGEST_ANSWER} bytes"
            )
    return bytes(data)
