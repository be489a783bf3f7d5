"""tls-crypt: encrypted and authenticated (openvpn-wire.md sections 3.3 and 6.3), and its dynamic kind (6.6).

On the wire ``header | replay id | tag | ciphertext``. The tag is an HMAC over the plaintext and also the initial
counter of the cipher, so a packet is decrypted before it is known to be authentic: nothing of it is used until it is.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.packet import HEADER_BYTES, ControlPacket, parse_body, parse_header, serialise_body
from cvpnd.wire.wrap.wrapping import HALF_BYTES, HMAC_OFFSET, KEY2_BYTES, Opened, ReplayId, refuse_client_key

if TYPE_CHECKING:
    from cvpnd._native import ControlKeys

KEY_BYTES = 32
TAG_BYTES = 32
AD_BYTES = HEADER_BYTES + 8
MIN_BODY_BYTES = 1
_IV_BYTES = 16

DYNAMIC_LABEL = "EXPORTER-OpenVPN-dynamic-tls-crypt"


class SivKey:
    """AES-256-CTR and HMAC-SHA256, the tag being the initial counter: of tls-crypt, and around tls-crypt-v2 keys."""

    __slots__ = ("_aes", "_hmac_key")

    def __init__(self, cipher_key: bytes, hmac_key: bytes) -> None:
        self._aes = algorithms.AES256(cipher_key)
        self._hmac_key = hmac_key

    def seal(self, ad: bytes, plaintext: bytes) -> bytes:
        """The tag and the ciphertext."""
        tag = hmac.digest(self._hmac_key, ad + plaintext, "sha256")
        return tag + self._crypt(tag, plaintext)

    def open(self, ad: bytes, sealed: bytes) -> bytes | None:
        """The plaintext, or None for what is not authentic. ``sealed`` has more bytes than the tag."""
        tag = sealed[:TAG_BYTES]
        plaintext = self._crypt(tag, sealed[TAG_BYTES:])
        if not hmac.compare_digest(tag, hmac.digest(self._hmac_key, ad + plaintext, "sha256")):
            return None
        return plaintext

    def _crypt(self, tag: bytes, data: bytes) -> bytes:
        return Cipher(self._aes, modes.CTR(tag[:_IV_BYTES])).encryptor().update(data)


class TlsCrypt:
    """One side's view of 256 bytes of key. The server sends with the first half, unlike on the data channel."""

    __slots__ = ("_open_key", "_seal_key", "key2", "native")
    overhead = 8 + TAG_BYTES

    def __init__(self, key2: bytes, *, server: bool) -> None:
        if len(key2) != KEY2_BYTES:
            raise UsageError(f"a tls-crypt key has {KEY2_BYTES} bytes")
        self.key2 = key2
        self.native: ControlKeys | None = None
        """The server's side in C, once a session needed it."""
        first, second = (
            SivKey(key2[at : at + KEY_BYTES], key2[at + HMAC_OFFSET : at + HMAC_OFFSET + KEY_BYTES])
            for at in (0, HALF_BYTES)
        )
        self._seal_key, self._open_key = (first, second) if server else (second, first)

    def seal(self, packet: ControlPacket, replay_id: ReplayId) -> bytes:
        ad = packet.header.serialise() + replay_id.serialise()
        return ad + self._seal_key.seal(ad, serialise_body(packet))

    def open(self, packet: bytes) -> Opened:
        refuse_client_key(parse_header(packet))
        return self._open(packet)

    def _open(self, packet: bytes) -> Opened:
        header = parse_header(packet)
        if len(packet) < AD_BYTES + TAG_BYTES + MIN_BODY_BYTES:
            raise PeerError(DropReason.NOT_AUTHENTIC, "too short")
        body = self._open_key.open(packet[:AD_BYTES], packet[AD_BYTES:])
        if body is None:
            raise PeerError(DropReason.NOT_AUTHENTIC)
        return Opened(parse_body(header, body), ReplayId.parse(packet[HEADER_BYTES:AD_BYTES]))


def dynamic_key2(exported: bytes, original: bytes) -> bytes:
    """The key of renegotiations: exported under ``DYNAMIC_LABEL`` from the first key's TLS connection, mixed with the
    pre-shared one where there is one. So an attacker needs both, also when the pre-shared key is everybody's."""
    if not original:
        return exported
    return bytes(a ^ b for a, b in zip(exported, original, strict=True))
