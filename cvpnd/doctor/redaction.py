"""What of a configuration and of logs may be shown to others: twice over.

Of the file only text under keys that are known to be harmless is kept (``PUBLIC``); numbers and truths are. From
everything else, whatever is known to be a secret of this gateway is cut out, and whatever looks like a private key."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from cvpnd.config.values import SECRET_WORDS
from cvpnd.doctor import libpq

PUBLIC = frozenset(
    {
        "id", "vpc", "cidr", "cidr_v6", "interface", "gateway", "gateway_v6", "zone", "name", "description",
        "listen", "client_cidr", "client_cidr_v6", "remote", "split_tunnel", "dns_servers", "dns_domains",
        "block_local", "data_ciphers", "legacy_cbc_ciphers", "type", "crl_expired", "directory", "mfa",
        "associate", "subnet", "target", "destination", "network", "group", "groups", "protocol", "ports",
        "security_groups", "stream", "too_many_of_identity", "minimum_version", "maximum_version", "ciphers",
        "direction", "digest", "workers", "packet_crypto", "packet_offload", "log_level", "log_directory",
        "admin_socket", "certificate", "private_key", "chain", "client_ca", "signing_key", "entity_id",
        "connect_handler", "executable", "sends", "syslog", "crl", "key", "server_key", "bind_password_file",
        "secret_file", "state_key", "path", "servers", "bind_dn", "user_base", "group_base", "domains", "ca",
    }
)  # fmt: skip
"""Keys whose text is no secret, file names among them. One that is new is hidden until it is added."""
Environment = Callable[[], Mapping[str, str]]
HIDDEN = "(left out)"
SHORTEST_SECRET = 6
"""Shorter ones would be cut out of words."""
LONGEST_FILE = 64 * 1024

_PEM = re.compile(
    r"-----BEGIN ([^-\n]*(?:private|static|secret|tls-crypt)[^\n]*?)-----.*?-----END \1-----", re.DOTALL | re.IGNORECASE
)
_TOKENS = re.compile(
    r"""(?m) \#.* | ^[ \t]*(?P<table>\[.*)
    | (?:[\w-]+\.)* (?P<quote>["']?) (?P<key>[\w-]+) (?P=quote) [ \t]*=
    | \"{3} (?P<long>[\s\S]*?) (?:\"{3}|\Z) | '{3} (?P<long_literal>[\s\S]*?) (?:'{3}|\Z)
    | " (?P<text>(?:[^"\\\n]|\\.)*) | ' (?P<literal>[^'\n]*)
    | (?P<bare>[^\s,\[\]{}"'\#]+)""",
    re.VERBOSE,
)
"""Of a TOML file that has a mistake somewhere."""
_URLS = frozenset({"url", "metadata"})
"""What these have behind a question mark may be a key to them."""
_SECRET_FILES = frozenset({"private_key", "signing_key", "key", "server_key", "state_key"})


def redacted(value: Any, key: str = "") -> Any:
    """A parsed TOML document, or a part of it."""
    if isinstance(value, dict):
        return {name: redacted(member, name) for name, member in value.items()}
    if isinstance(value, list):
        return [redacted(member, key) for member in value]
    if isinstance(value, str) and key not in PUBLIC:
        return HIDDEN
    return value if isinstance(value, bool | int | float | str) else str(value)


class Scrubber:
    """Cuts known secrets out of text, as they are and as JSON writes them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        long_enough = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
        known = sorted(long_enough | {json.dumps(secret)[1:-1] for secret in long_enough}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        text = _PEM.sub(HIDDEN, text)
        return text if self._known is None else self._known.sub(HIDDEN, text)


def secrets_of(config_path: Path, environment: Environment | None = None) -> Iterator[str]:
    """Text of the file under keys of secrets, and what is in the secret files that it names, or that a client of
    PostgreSQL reads in the daemon's ``environment`` (asked for only then). A file that is not there hides nothing.
    Raises ``OSError`` with the name of one that cannot be read: nobody knows what to hide of it."""
    for key, value in _texts(_read(config_path)):
        if key == "state" or key in _URLS:
            try:
                url = urlsplit(value)
                for written in (_passwords if key == "state" else _parameters)(url):
                    yield from {written, unquote_plus(written), unquote(written)}
                if key == "state" and url.scheme.startswith("postgresql"):
                    yield from _secrets_of_libpq(url, {} if environment is None else environment())
            except ValueError:  # no URL, which may be what somebody asks for help with
                yield value
        elif key not in PUBLIC and any(word in key for word in SECRET_WORDS):
            yield value
    for path in secret_files(config_path):
        yield from _lines(path)


def _secrets_of_libpq(database: SplitResult, environment: Mapping[str, str]) -> Iterator[str]:
    for variable in libpq.PASSWORD_VARIABLES:
        yield environment.get(variable, "")
    for path in libpq.secret_files(database, environment):
        lines = list(_lines(path))
        yield from lines
        yield from libpq.passwords(lines)


def secret_files(config_path: Path) -> Iterator[Path]:
    """Those that the file names: keys, and files with a password or secret and nothing else."""
    for key, value in _texts(_read(config_path)):
        if key in _SECRET_FILES or key.endswith("_file"):
            yield config_path.parent / value


def _passwords(database: SplitResult) -> Iterator[str]:
    """As the URL writes them: before the host, or as parameters (``password``, ``sslpassword``)."""
    if database.password:
        yield database.password
    for name, _, written in (pair.partition("=") for pair in database.query.split("&")):
        if "password" in name.lower() and written:
            yield written


def _parameters(url: SplitResult) -> Iterator[str]:
    yield url.query
    for pair in url.query.split("&"):
        yield pair.partition("=")[2]


def _read(config_path: Path) -> Any:
    """Also of a file with a mistake in it, for which somebody may be asking for help, what stands behind each key."""
    text = config_path.read_bytes().decode(errors="replace")
    try:
        return tomllib.loads(text)
    except ValueError:
        return [{key: value} for key, value in _assigned(text)]


def _assigned(text: str) -> Iterator[tuple[str, str]]:
    """Each text of the file with the key that stands before it."""
    key = ""
    for token in _TOKENS.finditer(text):
        if token["key"] or token["table"]:
            key = token["key"] or ""
        elif value := token["text"] or token["long"]:
            yield key, value
            yield key, value.rstrip(" \t,}]")  # the mistake may be that its end is missing
            with contextlib.suppress(ValueError):
                yield key, tomllib.loads(f'value = """{value}"""')["value"]
        elif value := token["literal"] or token["long_literal"] or token["bare"]:
            yield key, value
            yield key, value.rstrip(" \t,}]")


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a document, with the key that it stands under."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _texts(member, name)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member, key)
    elif isinstance(value, str):
        yield key, value


def _lines(path: Path) -> Iterator[str]:
    """A key's lines each by itself: a log may have quoted one of them."""
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST_FILE).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return
    for line in text.splitlines():
        if (stripped := line.strip()) and not stripped.startswith(("-----", "#")):
            yield stripped
