"""The text messages inside the TLS connection (openvpn-wire.md section 14).

Each ends with a NUL and is written as one TLS record. Clients drop a message with control characters in it and keep
at most 1024 bytes; what we send fits both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cvpnd.secret import Secret
from cvpnd.wire.errors import DropReason, PeerError, UsageError

MAX_MESSAGE_BYTES = 1024
"""With its NUL."""
MAX_CHALLENGE_BYTES = 16 * 1024
"""Of a challenge, in which AWS's client gets an address to open in the browser (openvpn-wire.md section 17). Others
lose it beyond 2 kB, so short is better."""
CHALLENGE = "CRV1:"
SPLIT_BYTES = MAX_MESSAGE_BYTES - 84
"""The reference starts a new PUSH_REPLY where the old one would reach this, which leaves room for the continuation."""
MAX_OPTION_BYTES = 255
"""A 2.x client cuts a longer pushed option into two bogus ones."""
MAX_UNTERMINATED_BYTES = 2048

PUSH_REQUEST = "PUSH_REQUEST"
PUSH_UPDATE = "PUSH_UPDATE"
EXIT = "EXIT"
CR_RESPONSE = "CR_RESPONSE,"


# -- what we send -------------------------------------------------------------------------------------------


def push_reply(options: Iterable[str]) -> list[str]:
    """PUSH_REPLY as one message or as many as it takes; all but the last say that more follow.

    Raises ``UsageError`` for an option with a comma or a control character, or longer than a client can read."""
    return _split("PUSH_REPLY", options)


def push_update(options: Iterable[str]) -> list[str]:
    """PUSH_UPDATE, the same way. ``name arguments`` replaces all former values of an option, ``-name`` ends it."""
    return _split(PUSH_UPDATE, options)


def _split(word: str, options: Iterable[str]) -> list[str]:
    options = list(options)
    text = ",".join([word, *options])
    simple = text.isascii() and text.isprintable() and text.count(",") == len(options) and all(options)
    if options and simple and len(text) < SPLIT_BYTES and max(map(len, options)) < MAX_OPTION_BYTES:
        return [text]
    groups: list[list[str]] = [[]]
    length = len(word) + 1
    for option in options:
        size = len(option.encode()) + 1
        if "," in option or not option.isprintable() or not 1 < size <= MAX_OPTION_BYTES:
            raise UsageError(f"cannot be pushed: {option!r}")
        if length + size >= SPLIT_BYTES:
            groups.append([])
            length = len(word) + 1
        groups[-1].append(option)
        length += size
    if len(groups) > 1:
        for group in groups[:-1]:
            group.append("push-continuation 2")
        groups[-1].append("push-continuation 1")
    return [f"{word}," + ",".join(group) for group in groups]


def auth_failed(text: str = "") -> str:
    return _with_text("AUTH_FAILED", text)


def auth_failed_for_now(text: str, retry_after_s: int, *, elsewhere: bool = False) -> str:
    """For clients with ``Capability.AUTH_FAIL_TEMP``: they come back by themselves, here or at their next remote, after
    that time."""
    advance = "remote" if elsewhere else "no"
    return _with_text("AUTH_FAILED", f"TEMP[backoff {retry_after_s},advance {advance}]:{text}")


def auth_pending(timeout_s: int | None) -> str:
    """Login takes a while. ``timeout_s``, for clients with ``Capability.AUTH_PENDING_KW``: counted from the key."""
    return "AUTH_PENDING" if timeout_s is None else f"AUTH_PENDING,timeout {timeout_s}"


def web_auth(url: str) -> str:
    """What to do meanwhile, for clients with ``webauth`` in IV_SSO. ``external``: in the person's own browser, which
    has their passwords and which identity providers trust more than a window of the client."""
    return f"INFO_PRE,WEB_AUTH:external:{url}"


def open_url(url: str) -> str:
    """The same for ``openurl``, which is older."""
    return f"INFO_PRE,OPEN_URL:{url}"


def cr_text(question: str, *, echo: bool = True) -> str:
    """A question for the person at a client with ``crtext``; it comes back as ``CR_RESPONSE``."""
    return f"INFO_PRE,CR_TEXT:{'R,E' if echo else 'R'}:{question}"


def restart(text: str, *, elsewhere: bool = False) -> str:
    """To come straight back with the credentials that it has (``P``): OpenVPN 3 would ask for them again, and knows the
    flag in this spelling only. ``elsewhere``: OpenVPN 2 comes back to the same address without ``N``."""
    return _with_text("RESTART", f"[{'PN' if elsewhere else 'P'}]:{text}")


def halt(text: str = "") -> str:
    return _with_text("HALT", text)


def _with_text(word: str, text: str) -> str:
    clean = "".join(c if c.isprintable() else " " for c in text).strip()
    message = f"{word},{clean}" if clean else word
    return message.encode()[: _longest(message) - 1].decode(errors="ignore")


def _longest(message: str) -> int:
    return MAX_CHALLENGE_BYTES if message.startswith(f"AUTH_FAILED,{CHALLENGE}") else MAX_MESSAGE_BYTES


def serialise_message(text: str) -> bytes:
    """Raises ``UsageError`` for what a client would drop."""
    raw = text.encode() + b"\0"
    if len(raw) > _longest(text) or not text.isprintable():
        raise UsageError("control message too long or with control characters")
    return raw


# -- what we receive ----------------------------------------------------------------------------------------


class MessageReader:
    """Cuts the plaintext of a TLS connection into messages, wherever its records begin and end."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """Complete messages without their NUL. Raises ``PeerError(MESSAGE_TOO_LONG)``."""
        self._buffer += data
        *complete, rest = bytes(self._buffer).split(b"\0")
        self._buffer[:] = rest
        if max(map(len, (*complete, rest))) > MAX_UNTERMINATED_BYTES:
            raise PeerError(DropReason.MESSAGE_TOO_LONG)
        return [message for message in complete if message]


def parse_message(raw: bytes) -> str:
    """Text of one message; trailing CR and LF are tolerated. Raises ``PeerError(BAD_MESSAGE)`` for control
    characters anywhere else: what a peer says ends up in logs and on terminals."""
    try:
        text = raw.rstrip(b"\r\n\0").decode()
    except UnicodeDecodeError:
        raise PeerError(DropReason.BAD_MESSAGE, "not UTF-8") from None
    if not text.isprintable():
        raise PeerError(DropReason.BAD_MESSAGE, "control characters")
    return text


def parse_cr_response(text: str) -> Secret:
    """What the person answered. Raises ``PeerError(BAD_MESSAGE)``."""
    answer = Secret.of_text(text.removeprefix(CR_RESPONSE)).from_base64()
    if answer is None:
        raise PeerError(DropReason.BAD_MESSAGE, "CR_RESPONSE is not base64")
    return answer


@dataclass(frozen=True, slots=True)
class PushReply:
    options: tuple[str, ...]
    more_follow: bool


def parse_push_reply(text: str) -> PushReply:
    """The client's side of ``push_reply`` and ``push_update``. Raises ``PeerError(BAD_MESSAGE)``."""
    word, _, rest = text.partition(",")
    if word not in ("PUSH_REPLY", PUSH_UPDATE):
        raise PeerError(DropReason.BAD_MESSAGE, word)
    options: Sequence[str] = [option for option in rest.split(",") if option]
    return PushReply(
        tuple(option for option in options if not option.startswith("push-continuation ")),
        more_follow="push-continuation 2" in options,
    )
