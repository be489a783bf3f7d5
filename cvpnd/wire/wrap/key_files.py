"""OpenVPN's key files (openvpn-wire.md section 6.1): read, written and made.

What is wrong with a file is told without quoting it: it may be a key.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from typing import NamedTuple

from cvpnd.wire.wrap.tls_crypt_v2 import MIN_WKC_BYTES, SERVER_KEY_BYTES
from cvpnd.wire.wrap.wrapping import KEY2_BYTES

_STATIC_LABEL = "OpenVPN Static key V1"
_V2_SERVER_LABEL = "OpenVPN tls-crypt-v2 server key"
_V2_CLIENT_LABEL = "OpenVPN tls-crypt-v2 client key"
_HEX_LINE = 32
_BASE64_LINE = 64


class KeyFileError(ValueError):
    """What is wrong with it, and the fix."""


class ClientKeyFile(NamedTuple):
    kc: bytes
    wkc: bytes

    def __repr__(self) -> str:
        return "ClientKeyFile(…)"


def new_static_key() -> bytes:
    return secrets.token_bytes(KEY2_BYTES)


def new_v2_server_key() -> bytes:
    return secrets.token_bytes(SERVER_KEY_BYTES)


def parse_static_key(text: bytes) -> bytes:
    """The 256 bytes of a tls-auth or tls-crypt key. Raises ``KeyFileError``."""
    body = _between(text, _STATIC_LABEL, "make one with 'openvpn --genkey tls-crypt FILE'")
    try:
        key = bytes.fromhex(b"".join(body.split()).decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY2_BYTES:
        raise KeyFileError(f"does not hold {KEY2_BYTES} bytes in hexadecimal; copy the whole file again")
    return key


def serialise_static_key(key: bytes) -> bytes:
    digits = key.hex()
    lines = [digits[at : at + _HEX_LINE] for at in range(0, len(digits), _HEX_LINE)]
    return "\n".join((f"-----BEGIN {_STATIC_LABEL}-----", *lines, f"-----END {_STATIC_LABEL}-----", "")).encode()


def parse_v2_server_key(text: bytes) -> bytes:
    """The 128 bytes of a tls-crypt-v2 server key. Raises ``KeyFileError``."""
    key = _parse_pem(text, _V2_SERVER_LABEL, "make one with 'openvpn --genkey tls-crypt-v2-server FILE'")
    if len(key) != SERVER_KEY_BYTES:
        raise KeyFileError(f"holds {len(key)} bytes instead of {SERVER_KEY_BYTES}; copy the whole file again")
    return key


def serialise_v2_server_key(key: bytes) -> bytes:
    return _serialise_pem(key, _V2_SERVER_LABEL)


def parse_v2_client_key(text: bytes) -> ClientKeyFile:
    """Raises ``KeyFileError``."""
    data = _parse_pem(text, _V2_CLIENT_LABEL, "cvpnctl profile NAME --issue makes one")
    if len(data) < KEY2_BYTES + MIN_WKC_BYTES:
        raise KeyFileError("is cut off; copy the whole file again")
    return ClientKeyFile(data[:KEY2_BYTES], data[KEY2_BYTES:])


def serialise_v2_client_key(key: ClientKeyFile) -> bytes:
    return _serialise_pem(key.kc + key.wkc, _V2_CLIENT_LABEL)


def _between(text: bytes, label: str, fix: str) -> bytes:
    found = re.search(rb"(?m)^-----BEGIN %b-----\s*$(.*?)^-----END %b-----" % ((label.encode(),) * 2), text, re.DOTALL)
    if found is None:
        raise KeyFileError(f'is not an "{label}" file; {fix}')
    return found[1]


def _parse_pem(text: bytes, label: str, fix: str) -> bytes:
    body = _between(text, label, fix)
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise KeyFileError("is not complete base64; copy the whole file again") from None


def _serialise_pem(data: bytes, label: str) -> bytes:
    digits = base64.b64encode(data).decode("ascii")
    lines = [digits[at : at + _BASE64_LINE] for at in range(0, len(digits), _BASE64_LINE)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode()
