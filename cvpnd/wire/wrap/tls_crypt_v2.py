"""tls-crypt-v2: tls-crypt with a key for each client, which the client brings along (openvpn-wire.md section 6.4).

The server keeps one key. Every client's own key ``Kc`` travels in its first packets, wrapped under that server key
together with metadata: ``WKc``. The metadata is nobody's secret from the server and cannot be changed by the client.

    WKc = tag(32) | AES-256-CTR(Kc(256) | metadata) | u16 length of all of it
"""

from __future__ import annotations

from typing import NamedTuple

from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.packet import HEADER_BYTES, ControlPacket, parse_header
from cvpnd.wire.wrap.tls_crypt import KEY_BYTES, TAG_BYTES, SivKey, TlsCrypt
from cvpnd.wire.wrap.wrapping import HMAC_OFFSET, KEY2_BYTES, WITH_CLIENT_KEY, Opened, ReplayId, refuse_client_key

SERVER_KEY_BYTES = 128
LENGTH_BYTES = 2
MIN_WKC_BYTES = TAG_BYTES + KEY2_BYTES + LENGTH_BYTES
MAX_WKC_BYTES = 1024
MAX_METADATA_BYTES = MAX_WKC_BYTES - MIN_WKC_BYTES
"""Its type byte included."""

EARLY_NEGOTIATION = 0x0F
"""Top byte of the replay ids of a client that understands the TLV below, and so can do without state at the server."""
RESEND_WKC = bytes.fromhex("0001 0002 0001")
"""TLV in the server's reset: type 1 (flags), 2 bytes, bit 0: bring your WKc again with your next packet."""


class ClientKey(NamedTuple):
    """A client's own key and what the server wrote beside it. Never shown."""

    kc: bytes
    metadata: bytes

    def __repr__(self) -> str:
        return f"ClientKey(…, metadata of {len(self.metadata)} bytes)"


class ServerKey:
    """Wraps client keys and unwraps them again."""

    __slots__ = ("_key", "key")

    def __init__(self, key: bytes) -> None:
        if len(key) != SERVER_KEY_BYTES:
            raise UsageError(f"a tls-crypt-v2 server key has {SERVER_KEY_BYTES} bytes")
        self.key = key
        self._key = SivKey(key[:KEY_BYTES], key[HMAC_OFFSET : HMAC_OFFSET + KEY_BYTES])

    def wrap(self, client_key: ClientKey) -> bytes:
        """The WKc of a client key."""
        kc, metadata = client_key
        if len(kc) != KEY2_BYTES or len(metadata) > MAX_METADATA_BYTES:
            raise UsageError(f"a client key has {KEY2_BYTES} bytes and at most {MAX_METADATA_BYTES} of metadata")
        length = (MIN_WKC_BYTES + len(metadata)).to_bytes(LENGTH_BYTES, "big")
        return self._key.seal(length, kc + metadata) + length

    def unwrap(self, wkc: bytes) -> ClientKey:
        """Raises ``PeerError`` for what was not wrapped under this key."""
        length = wkc[-LENGTH_BYTES:]
        if not MIN_WKC_BYTES <= len(wkc) <= MAX_WKC_BYTES or int.from_bytes(length, "big") != len(wkc):
            raise PeerError(DropReason.BAD_CLIENT_KEY, "length")
        plaintext = self._key.open(length, wkc[:-LENGTH_BYTES])
        if plaintext is None:
            raise PeerError(DropReason.BAD_CLIENT_KEY, "not wrapped by this server's key")
        return ClientKey(plaintext[:KEY2_BYTES], plaintext[KEY2_BYTES:])


def split_client_key(packet: bytes) -> tuple[bytes, bytes]:
    """A packet of ``WITH_CLIENT_KEY`` without its WKc, and the WKc. Raises ``PeerError``."""
    if len(packet) < HEADER_BYTES + MIN_WKC_BYTES:
        raise PeerError(DropReason.TRUNCATED)
    length = int.from_bytes(packet[-LENGTH_BYTES:], "big")
    if not MIN_WKC_BYTES <= length <= min(MAX_WKC_BYTES, len(packet) - HEADER_BYTES):
        raise PeerError(DropReason.BAD_CLIENT_KEY, f"length {length}")
    return packet[:-length], packet[-length:]


class TlsCryptV2(TlsCrypt):
    """The server's side for one client. A WKc that comes again with a retransmission is cut off and not looked at: the
    key of a session never changes."""

    __slots__ = ()

    def __init__(self, kc: bytes) -> None:
        super().__init__(kc, server=True)

    def open(self, packet: bytes) -> Opened:
        if parse_header(packet).opcode in WITH_CLIENT_KEY:
            packet, _ = split_client_key(packet)
        return self.open_inner(packet)

    def open_inner(self, packet: bytes) -> Opened:
        """A packet whose WKc was cut off before."""
        return self._open(packet)


class TlsCryptV2Client(TlsCrypt):
    """The client's side: appends its WKc to the packets that carry one."""

    __slots__ = ("wkc",)

    def __init__(self, kc: bytes, wkc: bytes) -> None:
        super().__init__(kc, server=False)
        self.wkc = wkc

    def seal(self, packet: ControlPacket, replay_id: ReplayId) -> bytes:
        sealed = super().seal(packet, replay_id)
        return sealed + self.wkc if packet.opcode in WITH_CLIENT_KEY else sealed

    def open(self, packet: bytes) -> Opened:
        refuse_client_key(parse_header(packet))
        return self._open(packet)
