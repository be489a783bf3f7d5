"""``[[handler]]``: who is asked whether a client may connect, after it has been authenticated."""

from __future__ import annotations

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, model_validator

from cvpnd.config.table import Table
from cvpnd.config.values import FilePath, Printable, is_loopback, show, whole

LONGEST_CALL_S = 30
"""As in AWS, where it cannot be changed."""
_NAME = re.compile(r"AWSClientVPN-[A-Za-z0-9_-]{1,51}")
"""A Lambda function's name has up to 64 characters; those of handlers begin so."""
_ARN = re.compile(
    rf"arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{{12}}:function:({_NAME.pattern})(?::[A-Za-z0-9_$-]{{1,128}})?"
)
_CALLABLE = re.compile(r"([A-Za-z_]\w*)(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def _parse_name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(
            f"{show(value)} is no handler's name; begin with AWSClientVPN- and go on with up to 51 letters, digits, "
            "dashes and underscores"
        )
    return value


def _parse_reference(value: object) -> str:
    return value if isinstance(value, str) and _ARN.fullmatch(value) else _parse_name(value)


def handler_name(reference: str) -> str:
    """Of the handler that is meant by its name, or by the ARN of a Lambda function with that name."""
    arn = _ARN.fullmatch(reference)
    return reference if arn is None else arn[1]


def _parse_url(value: object) -> str:
    text = value if isinstance(value, str) else ""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if (
        parts.scheme not in ("https", "http")
        or not host
        or "@" in parts.netloc
        or parts.fragment
        or not text.isprintable()
    ):
        raise ValueError(f"{show(value)} is no URL to be asked; write one like https://posture.example.com/connect")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(
            f"{show(value)}: who can change an answer on its way lets in whom they like; write https://, with ca = … "
            "for an authority of your own (plain http only to 127.0.0.1, ::1 and localhost)"
        )
    return text


def _parse_callable(value: object) -> str:
    if not isinstance(value, str) or not _CALLABLE.fullmatch(value):
        raise ValueError(f'{show(value)} names no function; write "module:function"')
    return value


HandlerName = Annotated[str, BeforeValidator(_parse_name)]
HandlerReference = Annotated[str, BeforeValidator(_parse_reference)]
HandlerUrl = Annotated[str, BeforeValidator(_parse_url)]
PythonCallable = Annotated[str, BeforeValidator(_parse_callable)]

_OWN_KEYS = {
    "executable": {"arguments", "user", "memory_mib", "cpu_s"},
    "url": {"ca", "secret_file"},
    "python": {"python_path"},
}
"""By the key that says what kind of handler it is: those that only this kind has."""


class HandlerConfig(Table):
    name: HandlerName
    executable: FilePath | None = None
    arguments: tuple[Printable, ...] = ()
    user: Printable | None = None
    """None: nobody if the daemon is root, else the daemon's own."""
    memory_mib: int = whole(512, 16, 65_536)
    cpu_s: int = whole(10, 1, LONGEST_CALL_S)
    url: HandlerUrl | None = None
    ca: FilePath | None = None
    """None: the authorities that this host trusts."""
    secret_file: FilePath | None = None
    """None: requests are not signed."""
    python: PythonCallable | None = None
    python_path: FilePath | None = None
    timeout_s: int = whole(LONGEST_CALL_S, 1, LONGEST_CALL_S)
    concurrency: int = whole(16, 1, 1000)
    queue: int = whole(256, 0, 10_000)

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        kinds = [key for key in _OWN_KEYS if getattr(self, key) is not None]
        if len(kinds) != 1:
            what = f"has {' and '.join(kinds)}; keep one of them" if kinds else "does nothing"
            fix = "" if kinds else '; add executable = "…", url = "…" or python = "module:function"'
            raise ValueError(what + fix)
        foreign = {key for kind, keys in _OWN_KEYS.items() if kind != kinds[0] for key in keys}
        if misplaced := sorted(foreign & self.model_fields_set):
            raise ValueError(f"a handler with {kinds[0]} has no {misplaced[0]}; leave it away")
        return self
