"""The key method 2 message, first application data in each direction (openvpn-wire.md sections 8 and 9).

It carries the random numbers for the PRF, the options string that both sides compare ("OCC"), credentials, and
the peer info that says what the client can do. All of it is untrusted text until login has decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from functools import lru_cache
from types import MappingProxyType

from cvpnd.secret import Secret
from cvpnd.wire.errors import DropReason, PeerError, UsageError
from cvpnd.wire.packet import Reader
from cvpnd.wire.text import printable

PRE_MASTER_BYTES = 48
RANDOM_BYTES = 32
MAX_OPTIONS_BYTES = 512
MAX_USERNAME_BYTES = 1024
"""Nobody's name is that long, and it is remembered and written down before anybody knows whose it is."""
MAX_PEER_INFO_BYTES = 16384
"""Sensible ones are below 1 kB; ``push-peer-info`` with many ``UV_`` variables is larger."""
MAX_WIDE_BYTES = 64 * 1024
"""Of a whole message of AWS's client, unless it may bring an assertion (``SessionSettings.for_assertions``)."""
MAX_PEER_INFO_LINES = 128
MAX_PEER_INFO_LINE = 512
TEXTS_REMEMBERED = 64
"""Clients of one release on one system say the same of themselves, word for word. At most 1 MB of text."""
NO_PEER_ID = 0xFFFFFF
_METHOD = 2
_HEAD = bytes(4) + bytes((_METHOD,))
_STRINGS = (
    ("options", MAX_OPTIONS_BYTES),
    ("username", MAX_USERNAME_BYTES),
    ("password", 0xFFFF),
    ("peer info", MAX_PEER_INFO_BYTES),
)
_PREFIX_BYTES = 5
_LEAST_WIDE_BYTES = _PREFIX_BYTES + PRE_MASTER_BYTES + 2 * RANDOM_BYTES + 4 * 4


class KeySource:
    """One side's random numbers. The bytearrays are wiped once the data keys exist."""

    __slots__ = ("pre_master", "random1", "random2")

    def __init__(self, pre_master: bytes | bytearray, random1: bytes | bytearray, random2: bytes | bytearray) -> None:
        self.pre_master = bytearray(pre_master)
        """Empty for the server, which has none."""
        self.random1 = bytearray(random1)
        self.random2 = bytearray(random2)

    @classmethod
    def cut(cls, random: bytes | bytearray, *, with_pre_master: bool) -> KeySource:
        """From 112 (client) or 64 (server) random bytes."""
        head = PRE_MASTER_BYTES if with_pre_master else 0
        if len(random) != head + 2 * RANDOM_BYTES:
            raise UsageError(f"{len(random)} random bytes for a key source")
        return cls(random[:head], random[head : head + RANDOM_BYTES], random[head + RANDOM_BYTES :])

    def wipe(self) -> None:
        for secret in (self.pre_master, self.random1, self.random2):
            secret[:] = bytes(len(secret))

    def __repr__(self) -> str:
        return "KeySource(…)"


@dataclass(frozen=True, slots=True)
class KeyMessage:
    source: KeySource = field(repr=False)
    options: str
    username: str
    password: Secret
    peer_info: str


def announced_length(data: bytes | bytearray, most: int) -> int:
    """Of a message of AWS's client, before which there is no use in looking at it; 0: it may be another's."""
    whole = int.from_bytes(data[:4], "little")
    return whole if len(data) >= _PREFIX_BYTES and data[4] == _METHOD and _LEAST_WIDE_BYTES <= whole <= most else 0


def parse_key_message(
    data: bytes | bytearray, *, from_client: bool, most_wide: int = MAX_WIDE_BYTES
) -> KeyMessage | None:
    """Parse what has arrived so far; None means that more must come.

    ``data`` stays the caller's, to be wiped, and ends at the end of a TLS record. A message that ends right behind the
    password has no peer info (very old clients). Bytes behind the peer info are ignored, as the reference does. Raises
    ``PeerError``.

    AWS's client writes it with wide lengths (section 17): the first field, which all others leave 0, is then the length
    of the whole message, and the strings end exactly there. Where they do not, the field means nothing, as ever."""
    if len(data) < _PREFIX_BYTES:
        return None
    if data[4] & 0x0F != _METHOD:
        raise PeerError(DropReason.BAD_KEY_METHOD, f"key method {data[4] & 0x0F}")
    if from_client and (whole := announced_length(data, most_wide)):
        if len(data) < whole:
            return None
        if (wide := _parse_wide(data, whole)) is not None:
            return wide
    random = _PREFIX_BYTES, _PREFIX_BYTES + (PRE_MASTER_BYTES if from_client else 0) + 2 * RANDOM_BYTES
    ends, position, size = [], random[1], len(data)
    for name, most in _STRINGS:
        if position == size and name == "peer info":
            break
        if size - position < 2:
            return None
        length = data[position] << 8 | data[position + 1]
        if length > most:
            raise PeerError(DropReason.BAD_KEY_METHOD, f"{name} of {length} bytes")
        position += 2 + length
        if position > size:
            return None
        ends.append((position - length, position))
    source = KeySource.cut(data[slice(*random)], with_pre_master=from_client)
    options, username = (_without_nul(data[slice(*each)]) for each in ends[:2])
    peer_info = _without_nul(data[slice(*ends[3])]) if len(ends) > 3 else b""
    return _message(source, options, username, _secret(data[slice(*ends[2])]), peer_info)


def _message(
    source: KeySource,
    options: bytes | bytearray,
    username: bytes | bytearray,
    password: Secret,
    peer_info: bytes | bytearray,
) -> KeyMessage:
    return KeyMessage(
        source,
        options.decode("utf-8", "replace"),
        printable(username.decode("utf-8", "backslashreplace")),
        password,
        peer_info.decode("utf-8", "replace"),
    )


def _parse_wide(data: bytes | bytearray, whole: int) -> KeyMessage | None:
    """None: the strings do not end where the message does."""
    reader = Reader(data, _PREFIX_BYTES)
    try:
        random = reader.take(PRE_MASTER_BYTES + 2 * RANDOM_BYTES)
        options, username = (_without_nul(reader.take(reader.u32())) for _ in range(2))
        password = _secret(reader.take(reader.u32()))
        peer_info = _without_nul(reader.take(reader.u32()))
    except PeerError:
        return None
    if len(data) - reader.left != whole or len(options) > MAX_OPTIONS_BYTES or len(peer_info) > MAX_PEER_INFO_BYTES:
        return None
    if len(username) > MAX_USERNAME_BYTES:
        raise PeerError(DropReason.BAD_KEY_METHOD, f"username of {len(username)} bytes")
    return _message(KeySource.cut(random, with_pre_master=True), options, username, password, peer_info)


def serialise_key_message(message: KeyMessage) -> bytes:
    source = message.source
    return b"".join(
        (
            _HEAD,
            source.pre_master,
            source.random1,
            source.random2,
            _string(message.options),
            _string(message.username),
            _counted(bytes(message.password)),
            _string(message.peer_info),
        )
    )


def serialise_answer(source: KeySource, options: str, peer_info: str) -> bytes:
    """The server's, to a client with these ``options``: its own, seen from the other side, and no credentials."""
    return b"".join((_HEAD, source.random1, source.random2, _answered(options), _string(peer_info)))


@lru_cache(maxsize=TEXTS_REMEMBERED)
def _answered(options: str) -> bytes:
    return _string(mirror_options(options)) + _string("") + _string("")


def _secret(raw: bytes | bytearray) -> Secret:
    """``_without_nul`` of what is not to stay behind."""
    last = max(0, len(raw) - 1)
    early = raw.find(b"\0", 0, last)
    with memoryview(raw) as view:
        secret = Secret(view[: last if early < 0 else early])
    if isinstance(raw, bytearray):
        raw[:] = bytes(len(raw))
    return secret


def _without_nul(raw: bytes | bytearray) -> bytes | bytearray:
    return raw[:-1].split(b"\0", 1)[0]  # the last byte is taken for the NUL that must be there


def _string(text: str) -> bytes:
    """An absent string is length 0 with no bytes; all others count their NUL."""
    return _counted(text.encode("utf-8", "surrogateescape"))


def _counted(raw: bytes) -> bytes:
    if not raw:
        return bytes(2)
    raw += b"\0"
    if len(raw) > 0xFFFF:
        raise UsageError("string too long for key method 2")
    return len(raw).to_bytes(2, "big") + raw


# -- options string -----------------------------------------------------------------------------------------

_MIRRORED = {
    "tls-client": "tls-server",
    "proto TCPv4_CLIENT": "proto TCPv4_SERVER",
    "keydir 1": "keydir 0",
    "keydir 0": "keydir 1",
}


def mirror_options(options: str) -> str:
    """Our answer to the client's options string: its own, seen from the other side, so that nothing mismatches.

    Never empty: patched 2.5 clients abort on an empty one."""
    return ",".join(_MIRRORED.get(item, item) for item in options.split(",")) or "V4,tls-server"


def option_value(options: str, name: str) -> str | None:
    """The argument of ``name`` in an options string; empty if it has none, None if it is not there."""
    for item in options.split(","):
        word, _, value = item.partition(" ")
        if word == name:
            return value
    return None


def configured_mtu(options: str) -> int | None:
    """The ``tun-mtu`` in an options string: that of the client's own device, unless it takes a pushed one."""
    return _bounded(option_value(options, "tun-mtu"), 65535) or None


# -- peer info ----------------------------------------------------------------------------------------------


class Capability(IntFlag):
    """IV_PROTO (section 9.2)."""

    NONE = 0
    DATA_V2 = 1 << 1
    REQUEST_PUSH = 1 << 2
    TLS_KEY_EXPORT = 1 << 3
    AUTH_PENDING_KW = 1 << 4
    NCP_P2P = 1 << 5
    DNS_OPTION = 1 << 6
    CC_EXIT_NOTIFY = 1 << 7
    AUTH_FAIL_TEMP = 1 << 8
    DYN_TLS_CRYPT = 1 << 9
    DATA_EPOCH = 1 << 10
    DNS_OPTION_V2 = 1 << 11
    PUSH_UPDATE = 1 << 12


_KNOWN_CAPABILITIES = sum(Capability)


@dataclass(frozen=True, slots=True, eq=False)
class PeerInfo:
    """What the client says of itself. Nothing of it is proven. Compared by identity, for quick look-ups by it."""

    values: Mapping[str, str] = field(default_factory=dict)
    """Every line, control characters replaced."""
    capabilities: Capability = Capability.NONE
    ciphers: tuple[str, ...] | None = None
    """IV_CIPHERS; None if it did not say."""
    ncp: int = 0
    mtu: int | None = None
    """IV_MTU: the largest tun-mtu it takes. None: it does not understand a pushed ``tun-mtu``."""
    peer_id: int | None = None
    """ID: what it wants to see in packets to it (section 9.3)."""

    @property
    def version(self) -> str:
        return self.values.get("IV_VER", "")

    @property
    def platform(self) -> str:
        return self.values.get("IV_PLAT", "")

    @property
    def gui_version(self) -> str:
        return self.values.get("IV_GUI_VER", "")

    @property
    def hardware_address(self) -> str:
        return self.values.get("IV_HWADDR", "")

    @property
    def device_id(self) -> str:
        """Tells the devices of one user apart as far as they say it (``push-peer-info``): ``setenv UV_ID …`` of the
        profile if there is one, else the hardware address. Empty: not known."""
        hardware = self.hardware_address.lower()
        if not hardware.strip("0:-"):
            hardware = ""
        return self.values.get("UV_ID", "") or hardware

    @property
    def sso_methods(self) -> frozenset[str]:
        return frozenset(filter(None, map(str.strip, self.values.get("IV_SSO", "").split(","))))


@lru_cache(maxsize=TEXTS_REMEMBERED)
def parse_peer_info(text: str) -> PeerInfo:
    """Never raises: what is malformed is as if it were not there."""
    values: dict[str, str] = {}
    for line in text.split("\n")[:MAX_PEER_INFO_LINES]:
        name, equals, value = line.partition("=")
        if equals and name and len(line) <= MAX_PEER_INFO_LINE:
            values.setdefault(printable(name), printable(value))
    ciphers = values.get("IV_CIPHERS")
    return PeerInfo(
        values=MappingProxyType(values),
        capabilities=Capability(_bounded(values.get("IV_PROTO"), 0xFFFFFFFF) & _KNOWN_CAPABILITIES),
        ciphers=None if ciphers is None else tuple(filter(None, ciphers.split(":"))),
        ncp=_bounded(values.get("IV_NCP"), 255),
        mtu=_bounded(values.get("IV_MTU"), 65535) or None,
        peer_id=parse_peer_id(values.get("ID", "")),
    )


def parse_peer_id(text: str) -> int | None:
    """Up to six hexadecimal digits; None for anything else, and for the id that means "none"."""
    if not 1 <= len(text) <= 6 or not set(text) <= set("0123456789abcdefABCDEF"):
        return None
    number = int(text, 16)
    return number if number < NO_PEER_ID else None


def _bounded(text: str | None, most: int) -> int:
    """An unsigned decimal number up to ``most``; anything else is 0."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 10):
        return 0
    number = int(text)
    return number if number <= most else 0
