"""TLS 1.3's exporter from its secret (RFC 8446 section 7.5), to rebuild captured keys."""

from __future__ import annotations

import hashlib
import hmac


def _expand_label(secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    full = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes((len(full),)) + full + bytes((len(context),)) + context
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.digest(secret, block + info + bytes((counter,)), "sha384")
        output += block
        counter += 1
    return output[:length]


def tls13_exporter(exporter_secret: bytes, label: str, length: int) -> bytes:
    """For a SHA-384 suite, without a context."""
    empty = hashlib.sha384(b"").digest()
    return _expand_label(_expand_label(exporter_secret, label.encode(), empty, 48), b"exporter", empty, length)
