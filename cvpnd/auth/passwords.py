"""Password hashes of local users: Argon2id, at the cost that OWASP recommends for logins that people wait for."""

from __future__ import annotations

import base64
import secrets
from typing import Final

from _argon2_cffi_bindings import ffi, lib
from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION, error_to_str

from cvpnd.secret import Secret

MAX_PASSWORD_BYTES = 1024

_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""19 MiB; 43 ms measured on a busy machine of two cores, 23 logins a second on both. Other hashes of the file are
verified at their own cost."""
_TYPES = {"$argon2id$": Type.ID, "$argon2i$": Type.I, "$argon2d$": Type.D}


def _made_up() -> str:
    """Looks as one of ``_HASHER`` and fits nothing; to make a real one at every start took 45 ms."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")
        for length in (_HASHER.salt_len, _HASHER.hash_len)
    )
    cost = f"m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${cost}${salt}${digest}"


_NOBODYS: Final = _made_up()


def hash_password(password: str) -> str:
    return _HASHER.hash(as_bytes(password))


def as_bytes(password: str) -> bytes:
    """As it came over the wire, whatever bytes those were."""
    return password.encode("utf-8", "surrogateescape")


def verify_password(password_hash: str | None, password: Secret) -> bool:
    """``password_hash`` None: of nobody, which takes as long and is never right."""
    too_long = len(password) > MAX_PASSWORD_BYTES
    right = _fits(password_hash or _NOBODYS, Secret() if too_long else password)
    return right and password_hash is not None and not too_long


def _fits(password_hash: str, password: Secret) -> bool:
    """What ``PasswordHasher.verify`` does, without the copy of the password that it leaves behind."""
    kind = next((kind for prefix, kind in _TYPES.items() if password_hash.startswith(prefix)), None)
    if kind is None:
        raise InvalidHashError("no hash of Argon2")
    with password.view() as view:
        status = lib.argon2_verify(
            ffi.new("char[]", password_hash.encode()), ffi.from_buffer("uint8_t[]", view), len(view), kind.value
        )
    if status not in (lib.ARGON2_OK, lib.ARGON2_VERIFY_MISMATCH):
        raise VerificationError(error_to_str(status))
    return bool(status == lib.ARGON2_OK)
