"""Secrets in the database: private keys and access keys, readable only together with a key file that is not in it.

Whoever gets hold of a backup or a stolen database file has ciphertext. Each secret is bound to the row it belongs to,
so that nobody who can write to the database can put one row's secret in another's place.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
MADE = b"cvpnd state key"
"""What is sealed to see later whether a key file is the right one."""


class SealError(Exception):
    """The key file is missing, open to others or another database's; the text says which."""


class Seal:
    """Immutable; any thread may use it. Never show the key: there is no repr of it."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def of_file(cls, path: Path, *, make: bool) -> Seal:
        """The key in ``path``, which is made (0600) if it is not there and ``make`` says so. Raises ``SealError``."""
        if make:
            _make(path)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SealError(
                f"{path} is gone, and with it the key to what the state database keeps secret; put its backup there"
            ) from None
        except OSError as error:
            raise SealError(f"{path}: cannot be read: {error.strerror}") from None
        try:
            if stat.S_IMODE(os.fstat(file).st_mode) & 0o077:
                raise SealError(f"{path}: others may read it; chmod 600 it")
            key = os.read(file, KEY_BYTES + 1)
        finally:
            os.close(file)
        if len(key) != KEY_BYTES:
            raise SealError(f"{path}: is no key of cvpnd ({KEY_BYTES} bytes); put its backup there")
        return cls(key)

    def close(self, secret: bytes, row: str) -> bytes:
        """``secret`` as it goes into ``row`` of the database."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, row.encode())

    def open(self, sealed: bytes, row: str) -> bytes:
        """Raises ``SealError`` for what was sealed with another key, for another row, or changed since."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], row.encode())
        except (InvalidTag, ValueError):
            raise SealError(f"{row} was sealed with another key, or changed in the database") from None


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise SealError(f"{path}: cannot be made: {error.strerror}") from None
    try:
        os.fchmod(file, 0o600)
        os.write(file, secrets.token_bytes(KEY_BYTES))
        os.fsync(file)
    finally:
        os.close(file)
