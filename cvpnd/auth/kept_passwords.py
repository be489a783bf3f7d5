"""Passwords of people whom nobody else may look up, so that a restart of the gateway asks none of them again.

In a directory without a service account each user's own bind is what their account is looked at with. Once the gateway
has ended that is gone, and their token alone says nothing of whether they are still let in. So their password is kept,
sealed: the key is made of a secret that only the token has, which the client keeps and the gateway does not, and of one
of the gateway's. Who has the database and its key file, as in a backup, has no password; who has the token alone has
none either. What was kept for a login ends with it: at its expiry, when it is revoked, and once the directory has said
no. A client that has forgotten its token leaves something behind that nobody can open."""

from __future__ import annotations

import os
import struct
import time
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cvpnd.auth.tokens import Token, TokenOwner
from cvpnd.secret import Secret

NONCE_BYTES = 12
TAG_BYTES = 16
STEP = 64
"""Lengths are rounded up to it: how long a password is nobody is told."""
_LENGTH = struct.Struct(">H")
_BLOCK_BYTES = 16


class PasswordStore(Protocol):
    """Where they are kept (``store``). Called from threads."""

    def keep_password(
        self, login_id: str, directory: str, username: str, sealed: bytes, logged_in_at: float, until: float, now: float
    ) -> None: ...

    def kept_password(self, login_id: str, now: float) -> bytes | None: ...

    def forget_password(self, login_id: str) -> None: ...


class KeptPasswords:
    """Any thread may call it. Raises what the store raises."""

    def __init__(self, store: PasswordStore, gateway_secret: bytes) -> None:
        self._store = store
        self._gateway_secret = gateway_secret

    def keep(self, token: Token, owner: TokenOwner, directory: str, username: str, password: Secret) -> None:
        """``owner``: of the token, under the name that the client says and without a stamp. ``username``: as the
        directory writes it."""
        nonce = os.urandom(NONCE_BYTES)
        plain = bytearray(-(-(_LENGTH.size + len(password)) // STEP) * STEP)
        _LENGTH.pack_into(plain, 0, len(password))
        plain[_LENGTH.size : _LENGTH.size + len(password)] = password.view()
        try:
            cipher = Cipher(AES256(self._key(token)), GCM(nonce)).encryptor()
            cipher.authenticate_additional_data(_bound_to(token, owner))
            sealed = nonce + cipher.update(plain) + cipher.finalize() + cipher.tag
        finally:
            plain[:] = bytes(len(plain))
        self._store.keep_password(
            token.login_id.hex(), directory, username, sealed, token.logged_in_at, token.expires_at, time.time()
        )

    def open(self, token: Token, owner: TokenOwner) -> Secret | None:
        """None: none is kept for this login, or the token is not the one that it was kept for."""
        if not token.secret or (sealed := self._store.kept_password(token.login_id.hex(), time.time())) is None:
            return None
        nonce, body, tag = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:-TAG_BYTES], sealed[-TAG_BYTES:]
        plain = bytearray(len(body) + _BLOCK_BYTES)
        try:
            cipher = Cipher(AES256(self._key(token)), GCM(nonce, tag)).decryptor()
            cipher.authenticate_additional_data(_bound_to(token, owner))
            cipher.update_into(body, plain)
            cipher.finalize()
            (length,) = _LENGTH.unpack_from(plain)
            with memoryview(plain) as view:
                return Secret(view[_LENGTH.size : _LENGTH.size + length])
        except (InvalidTag, ValueError):
            return None
        finally:
            plain[:] = bytes(len(plain))

    def forget(self, token: Token) -> None:
        """The directory says no. Those of the same account that were kept no later go too: after a changed password
        each of them would be one wrong password more, and accounts are locked for that."""
        self._store.forget_password(token.login_id.hex())

    def _key(self, token: Token) -> bytes:
        return HKDF(SHA256(), 32, self._gateway_secret, b"cvpnd kept password 1").derive(token.secret)


def _bound_to(token: Token, owner: TokenOwner) -> bytes:
    words = (owner.endpoint_id, owner.directory, owner.username, owner.certificate_fingerprint)
    parts = [*(word.encode("utf-8", "surrogateescape") for word in words), token.login_id]
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)
