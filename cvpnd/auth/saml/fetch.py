"""Metadata from a URL: by HTTPS with a verified certificate, without redirects, whole within a time and a size.

One site that sends a byte now and then, be it of its headers, would keep the metadata of all others from being read,
and with it keys from being withdrawn; at its start the gateway waits for it too."""

from __future__ import annotations

import ssl
import urllib.request
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

from cvpnd.auth.saml.metadata import MAX_METADATA_BYTES
from cvpnd.auth.timely_socket import TimelySocket, TimelyTls

CONNECT_TIMEOUT_S = 10.0
FETCHED_IN_S = 60.0
"""The whole answer."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """It might lead to where nobody proves who they are."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Connection(HTTPConnection):
    sock: TimelySocket

    def connect(self) -> None:
        super().connect()
        self.sock = TimelySocket.of(self.sock, FETCHED_IN_S)


class _TlsConnection(HTTPSConnection):
    sock: TimelyTls

    def _tunnel(self) -> None:
        """Through a proxy of the environment's, whose answer is read before there is any TLS."""
        plain = self.sock = TimelySocket.of(self.sock, FETCHED_IN_S)  # type: ignore[assignment]
        super()._tunnel()  # type: ignore[misc]
        plain.settimeout(CONNECT_TIMEOUT_S)

    def connect(self) -> None:
        super().connect()
        self.sock.answer_within(FETCHED_IN_S)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Connection, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._tls = context

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_TlsConnection, request, context=self._tls)


def fetch(url: str, ca: Path | None) -> bytes:
    """The configuration takes https, and http on loopback. Raises ``OSError``."""
    context = ssl.create_default_context(cafile=ca)
    context.sslsocket_class = TimelyTls
    opener = urllib.request.build_opener(_Http, _Https(context), _NoRedirect)
    try:
        with opener.open(url, timeout=CONNECT_TIMEOUT_S) as answer:
            return bytes(answer.read(MAX_METADATA_BYTES + 1))
    except HTTPException as error:
        raise OSError(f"it answers otherwise than HTTP does: {str(error) or type(error).__name__}") from error
