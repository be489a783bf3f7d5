"""The conversation with openvpn's management interface, sans-IO: lines in, actions out.

Two ways to log in. First we only say that we can open a browser, which our gateways answer with a link while the
connection waits. Where that is refused, the second try asks as AWS's client does, and is answered with a challenge that
holds the identity provider's URL; its answer goes into the password of the third. A stock openvpn lets nobody hand it
so much, so before anybody logs in it is asked whether it reads so long a line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import quote, urlsplit

CALLBACK_PORT = 35001
NO_NAME = "N/A"
ANSWER_CHARACTERS = 16_384
"""Of an identity provider's answer with a usual key and a few dozen groups, in base64. The management interface of a
stock openvpn, up to 2.7, reads words of 256; builds that are patched for AWS's service read this many and more."""
TRIAL = f'help "{"x" * ANSWER_CHARACTERS}"'
"""Does nothing, and is answered with the help, or with an ``ERROR`` where such words are too long."""
_HELP = "Management Interface for "
_FAILED = re.compile(r">PASSWORD:Verification Failed: '([^']*)'(?: \['(.*)'\])?$")
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_NEED = re.compile(r">PASSWORD:Need '([^']*)' (username/password|password)")


@dataclass(frozen=True, slots=True)
class Say:
    """A line for openvpn."""

    line: str


@dataclass(frozen=True, slots=True)
class OpenBrowser:
    url: str


@dataclass(frozen=True, slots=True)
class AwaitCallback:
    """Listen on ``CALLBACK_PORT``, then open the browser; hand what comes to ``Conversation.called_back``."""

    url: str


@dataclass(frozen=True, slots=True)
class AskSecret:
    """Of the person at the terminal; hand it to ``Conversation.secret``."""

    what: str


@dataclass(frozen=True, slots=True)
class Tell:
    text: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


AWS_ONLY = (
    "this server takes logins of AWS's client only, and openvpn lets programs like this one hand it no more than a few "
    "hundred characters, where an identity provider's answer has thousands. Use the AWS VPN Client; or, if the server "
    "is cvpnd, have its administrator set up [portal]"
)

Action = Say | OpenBrowser | AwaitCallback | AskSecret | Tell | GiveUp


class _Way(Enum):
    WAIT_FOR_LINK = auto()
    LINK_OPENED = auto()
    ASK_AS_AWS = auto()
    ANSWER = auto()


class Conversation:
    """``hear`` each line of openvpn's and do what it returns."""

    def __init__(self) -> None:
        self._way = _Way.WAIT_FOR_LINK
        self._state_id = ""
        self._password: str | None = NO_NAME
        """For the next question; None: the browser has to come back first."""
        self._asked = False
        self._on_trial = ""
        """The identity provider's URL, while openvpn is asked whether it reads a long line."""

    def hear(self, line: str) -> list[Action]:
        if found := _NEED.match(line):
            if found[1] != "Auth":
                return [AskSecret(found[1])]
            self._asked = True
            return self._answer()
        if found := _FAILED.match(line):
            return self._refused(found[1], found[2] or "")
        if line.startswith("ERROR:"):
            return [
                GiveUp(AWS_ONLY if self._on_trial else f"openvpn does not do what it is told: {_without_secret(line)}")
            ]
        if line.startswith(_HELP) and self._on_trial:
            url, self._on_trial = self._on_trial, ""
            return [AwaitCallback(url)]
        kind, _, rest = line.partition(":")
        match kind:
            case ">INFOMSG":
                return self._information(rest)
            case ">STATE":
                return self._state(rest.split(","))
            case ">FATAL":
                return [GiveUp(rest)]
        return []

    def called_back(self, response: str) -> list[Action]:
        """What the identity provider had the browser bring us."""
        self._password = f"CRV1::{self._state_id}::{quote(response, safe='')}"
        self._way = _Way.ANSWER
        return self._answer() if self._asked else []

    def secret(self, what: str, secret: str) -> list[Action]:
        return [Say(f"password {_quoted(what)} {_quoted(secret)}")]

    def _answer(self) -> list[Action]:
        if self._password is None:
            return []
        self._asked = False
        return [
            Say(f"username {_quoted('Auth')} {_quoted(NO_NAME)}"),
            Say(f"password {_quoted('Auth')} {_quoted(self._password)}"),
        ]

    def _refused(self, what: str, why: str) -> list[Action]:
        if why.startswith("TEMP"):
            return []  # openvpn comes back by itself
        if what != "Auth":
            return [Tell(f"openvpn does not take the secret for {what}")]
        if why.startswith("CRV1:"):
            _, _, state_id, _, url = f"{why}::::".split(":", 4)
            url = url.removesuffix("::::")
            if self._way is not _Way.ASK_AS_AWS or not _is_safe(url):
                return [GiveUp("the server asks something that this program cannot answer")]
            self._state_id, self._password, self._on_trial = state_id, None, url
            return [Say(TRIAL)]
        if self._way is _Way.WAIT_FOR_LINK and not why.startswith("SESSION:"):
            self._way, self._password = _Way.ASK_AS_AWS, f"ACS::{CALLBACK_PORT}"
            return []
        if why.startswith("SESSION:"):  # the login is over its time: once more from the start
            self._way, self._password = _Way.WAIT_FOR_LINK, NO_NAME
            return [Tell("the login has expired")]
        return [GiveUp(f"the server refused the login{f': {why}' if why else ''}")]

    def _information(self, text: str) -> list[Action]:
        kind, _, rest = text.partition(":")
        url = rest.partition(":")[2] if kind == "WEB_AUTH" else rest
        if kind not in ("WEB_AUTH", "OPEN_URL"):
            return []
        if not _is_safe(url):
            return [GiveUp(f"the server wants a browser at {url!r}, which is no https address")]
        self._way = _Way.LINK_OPENED  # what is refused from here on was refused by somebody
        return [OpenBrowser(url)]

    def _state(self, fields: list[str]) -> list[Action]:
        if len(fields) > 3 and fields[1] == "CONNECTED" and fields[2] == "SUCCESS":
            self._way = _Way.WAIT_FOR_LINK
            self._password = NO_NAME
            return [Tell(f"connected, with the address {fields[3]}")]
        return []


def _is_safe(url: str) -> bool:
    """Of a server that may be anybody's: what is handed to the browser is an https address and nothing else, without a
    character that addresses do not have and shells might know, and without a name that is shown before the host's."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and bool(_URL.fullmatch(url))


def _without_secret(error: str) -> str:
    """openvpn repeats what it was told, a password too."""
    return re.sub(r"(chars max\)|parameters?\b):.*", r"\1", error.removeprefix("ERROR:").strip())[:120]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
