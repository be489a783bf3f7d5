"""No secret is to be read anywhere: not in logs, connection logs, status files, support bundles, journals or the file
of the store, nor in the command lines and environments of what a daemon starts.

``make test`` looks for all of them: a lab when it closes, a booted system before it halts, ``conftest.py`` after each
test at what was logged within it. Nobody has to plant a canary. What a daemon was told it writes down itself
(``witness/``: passwords, codes, tokens, SAML responses); keys and what is secret in a configuration are found beside
it. Secrets are looked for as they are and as others might have written them; some forms (``NEVER``) are wrong whoever
they belong to.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, quote_plus

from cvpnd.doctor.redaction import secrets_of
from cvpnd.reasons import Refusal

LOOKED_AT: Counter[str] = Counter()
"""In this process: what was looked at, and for how many secrets."""

SHORTEST = 6
LONGEST = 48
"""Of a longer one so much is looked for, at several places in it."""
NEVER = {
    "a private key": re.compile(rb"PRIVATE KEY-----(?:\\n|\s)*[\w+/]{16}"),
    "a static key": re.compile(rb"OpenVPN (?:Static key V1|tls-crypt-v2 \w+ key)-----(?:\\n|\s)*[\w+/]{16}"),
    "a token": re.compile(rb"SESS_ID_AT_[\w+/%=-]{20}|U0VTU19JRF9BVF[89+/]|534553535f49445f41545f"),
    "a SAML response": re.compile(
        rb"SAMLResponse=[\w%+/]{40}|PD94bWw[\w+/%]{60}|PHNhbW[\w+/%]{60}|<(?:\w+:)?Assertion\b"
    ),
}
_PEM = re.compile(
    r"-----BEGIN ([^-\n]*(?:PRIVATE KEY|Static key V1|tls-crypt-v2 \w+ key))-----(.*?)-----END", re.DOTALL
)
_CODE = re.compile(r"\d{6,8}")
_OF_CODES = re.compile(rb"code|otp|answer|password|challenge|response", re.IGNORECASE)
_OURS = re.compile(r"-cvpnd-\d+\.log$|(^|/)log/|status|state\.db")
"""What daemons write; a stock client may show its person what they typed."""
_WORDS = {str(reason) for reason in Refusal}
"""Passwords that tests like to give, and that say nothing where they stand; so do other words of any language."""
_COUNTED = re.compile(rb'"[\w-]+-(?:bytes|packets|seconds)": "\d+"|"port": "\d+"')
_EVERYWHERE: dict[str, str] = {}
"""What this process was told, by what it is."""


class SecretTold(AssertionError):
    pass


def plant(secret: str, what: str) -> None:
    """For what neither a daemon nor its files know of. Until this process ends."""
    _EVERYWHERE[secret] = what


# -- the places ------------------------------------------------------------------------------------------------


def note(directory: Path, printed: str, typed: str | None) -> None:
    """Of a cvpnctl in this lab: what it printed to whoever asked, and the lines it was given."""
    secrets = {**_of_answer(printed), **dict.fromkeys((typed or "").splitlines(), "what was typed into cvpnctl")}
    if secrets:
        with (directory / "witness/cvpnctl").open("a") as file:
            file.writelines(json.dumps(["secret", each]) + "\n" for each in secrets.items())


def look_below(directory: Path, more: Mapping[str, str] = MappingProxyType({})) -> None:
    """A lab's directory: its daemons' logs and the like, for all secrets that are there or were told; ``more``: other
    places. Raises ``SecretTold``."""
    written = list(_witnesses(directory))
    secrets = {**_EVERYWHERE, **_of_files(directory), **_told(written)}
    places = [*_places(directory), *((place, text.encode()) for place, text in more.items())]
    for process, kind, what in written:
        if kind == "command":
            places.append((f"a command line of process {process}", " ".join(what).encode()))
    look(places, secrets)


def look_at(place: str, text: str) -> None:
    """For what this process knows. Raises ``SecretTold``."""
    look([(place, text.encode())], _EVERYWHERE)


def look(places: Iterable[tuple[str, bytes]], secrets: dict[str, str]) -> None:
    forms = [(form, what) for secret, what in secrets.items() for form in _forms(secret)]
    codes = [(secret.encode(), what) for secret, what in secrets.items() if _CODE.fullmatch(secret)]
    for place, data in places:
        LOOKED_AT["places"] += 1
        for what, pattern in NEVER.items():
            if found := pattern.search(data):
                raise SecretTold(f"{place} tells {what}: {_around(data, found.start())}")
        for form, what in forms:
            if (at := data.find(form)) >= 0:
                raise SecretTold(f"{place} tells {what}: {_around(data, at)}")
        for line in data.splitlines() if codes else ():
            for code, what in codes:
                if code in line and _OF_CODES.search(line) and _stands_in(_COUNTED.sub(b"", line), code):
                    raise SecretTold(f"{place} tells {what}: {line!r}")
    LOOKED_AT["secrets"] += len(secrets)


def _stands_in(line: bytes, code: bytes) -> bool:
    return re.search(rb"(?<![\w.])" + code + rb"(?![\w.])", line) is not None


def _around(data: bytes, at: int) -> str:
    return data[max(0, at - 120) : at + 80].decode(errors="replace")


def _places(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = str(path.relative_to(directory))
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    if (part := archive.extractfile(member)) is not None:
                        yield f"{name}: {member.name}", part.read()
        elif _OURS.search(name):
            yield name, path.read_bytes()


# -- the secrets -----------------------------------------------------------------------------------------------


def _witnesses(directory: Path) -> Iterator[tuple[str, str, list[str]]]:
    for path in (directory / "witness").glob("*"):
        for line in path.read_text().splitlines():
            kind, what = json.loads(line)
            yield path.name, kind, what


def _told(written: Iterable[tuple[str, str, list[str]]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for _, kind, what in written:
        found |= secrets_in(kind, what)
    return found


def secrets_in(kind: str, what: Any) -> dict[str, str]:
    """What a witness has said."""
    if kind == "token":
        return {str(what): "a token"}
    if kind == "secret":
        secret, meaning = what
        return {secret: meaning}
    if kind != "password":
        return {}
    username, text = what
    # not one byte over and over, as attacks on a size send it: every file has that
    parts = (part for part in _parts(text) if part != username and len(set(part)) > 1)
    return dict.fromkeys(parts, f"a password of {username or 'somebody'}")


def _parts(password: str) -> Iterator[str]:
    """A client may put several things into one field."""
    if password.startswith(("SCRV1:", "CRV1:")):
        for part in password.split(":")[1:]:
            yield part
            try:
                yield base64.b64decode(part, validate=True).decode()
            except (binascii.Error, ValueError):
                continue
    else:
        yield password


def _of_answer(text: str) -> dict[str, str]:
    """What cvpnctl prints as JSON: it tells some secrets, once and to whoever asked."""
    found = {}
    if '"secret_access_key"' in text:
        found[json.loads(text)["secret_access_key"]] = "a secret access key"
    if "otpauth://" in text:
        for secret in re.findall(r"[?&]secret=(\w+)", text):
            found[secret] = "the secret of an authenticator"
        for code in re.findall(r'"recovery_codes": \[(.*?)\]', text, re.DOTALL):
            found |= dict.fromkeys(re.findall(r'"([^"]+)"', code), "a recovery code")
    return found


def _of_files(directory: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in directory.rglob("*"):
        if path.suffix in (".key", ".key~", ".pem", ".ovpn", ".toml", ".conf", ".crt") and path.is_file():
            for kind, body in _PEM.findall(path.read_text(errors="replace")):
                found |= dict.fromkeys(_lines(body), f"a {kind}")
            if path.suffix == ".toml":
                found |= dict.fromkeys(secrets_of(path), f"what {path.name} keeps secret")
    return found


def _lines(body: str) -> list[str]:
    """Two of a key are enough, but none that keys have in common."""
    lines = [line.strip() for line in body.splitlines() if len(line.strip()) >= 32 and "#" not in line]
    return lines[1:3] or lines


def _forms(secret: str) -> set[bytes]:
    word = secret in _WORDS or (len(secret) < 10 and secret.isalpha() and secret.islower())
    if len(secret) < SHORTEST or word or _CODE.fullmatch(secret):
        return set()
    forms = set()
    for piece in _pieces(secret):
        raw = piece.encode()
        forms |= {raw, json.dumps(piece)[1:-1].encode(), json.dumps(piece, ensure_ascii=False)[1:-1].encode()}
        forms |= {quote(piece, safe="").encode(), quote_plus(piece).encode(), html.escape(piece).encode()}
        if len(raw) >= 8:
            forms |= {raw.hex().encode(), raw.hex().upper().encode(), *_in_base64(raw)}
            if re.fullmatch(r"[A-Za-z0-9+/]{6,}={0,2}", piece) and len(piece) % 4 == 0:
                decoded = base64.b64decode(piece)
                forms |= {decoded.hex().encode(), decoded.hex().upper().encode()}
    return forms


def _pieces(secret: str) -> list[str]:
    if len(secret) <= 2 * LONGEST:
        return [secret]
    return [secret[at : at + LONGEST] for at in (len(secret) // 16 * 4 * part for part in (1, 2, 3))]


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """Whatever stands before and behind it: without the characters that neighbours have a part in."""
    for before in range(3):
        core = base64.b64encode(bytes(before) + raw)
        usable = core[(0, 2, 3)[before] : (len(raw) + before) * 8 // 6]
        yield usable
        yield usable.translate(bytes.maketrans(b"+/", b"-_"))
