"""KeyUpdate records of TLS 1.3 (RFC 8446 4.6.3), which no library lets a client send at will: each asks the server for
new keys and for an answer.

Whoever uses it must not send with the connection itself any more, whose keys stay behind."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL

_UPDATE_REQUESTED = b"\x18\x00\x00\x01\x01"
_HANDSHAKE = b"\x16"
_TAG_BYTES = 16


class KeyLog:
    """The clients' first traffic secrets, of every connection made with a context."""

    def __init__(self, context: SSL.Context) -> None:
        self._secrets: dict[bytes, bytes] = {}
        context.set_keylog_callback(self._note)

    def _note(self, _connection: SSL.Connection, line: bytes) -> None:
        label, client_random, secret = line.split()
        if label == b"CLIENT_TRAFFIC_SECRET_0":
            self._secrets[bytes.fromhex(client_random.decode())] = bytes.fromhex(secret.decode())

    def take(self, connection: SSL.Connection) -> bytes:
        return self._secrets.pop(connection.client_random())


class CountedTls:
    """A ``TlsConnection`` that knows how many records it has written."""

    def __init__(self, tls: Any) -> None:
        self._tls = tls
        self.records = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tls, name)

    def send(self, plaintext: bytes) -> None:
        self.records += 1
        self._tls.send(plaintext)


class KeyUpdates:
    def __init__(self, secret: bytes, cipher: str, records: int) -> None:
        """``records``: written under ``secret`` so far."""
        if cipher != "TLS_AES_256_GCM_SHA384":
            raise ValueError(f"{cipher} is not played here")
        self._secret = secret
        self._number = records

    def record(self) -> bytes:
        """The next one."""
        key, iv = self._expand("key", 32), self._expand("iv", 12)
        nonce = bytes(a ^ b for a, b in zip(iv, self._number.to_bytes(12, "big"), strict=True))
        inner = _UPDATE_REQUESTED + _HANDSHAKE
        header = b"\x17\x03\x03" + (len(inner) + _TAG_BYTES).to_bytes(2, "big")
        self._secret, self._number = self._expand("traffic upd", 48), 0
        return header + AESGCM(key).encrypt(nonce, inner, header)

    def _expand(self, label: str, length: int) -> bytes:
        named = b"tls13 " + label.encode()
        info = length.to_bytes(2, "big") + bytes([len(named)]) + named + b"\0"
        return HKDFExpand(hashes.SHA384(), length, info).derive(self._secret)
