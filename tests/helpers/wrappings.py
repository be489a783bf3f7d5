"""Both sides of every wrapping, for tests with whole sessions, and the options that tell a real client of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import wire_vectors as v

from cvpnd.wire.errors import DropReason
from cvpnd.wire.wrap.key_files import (
    ClientKeyFile,
    new_static_key,
    serialise_static_key,
    serialise_v2_client_key,
)
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.protection import UNPROTECTED, ControlProtection
from cvpnd.wire.wrap.tls_auth import TlsAuth
from cvpnd.wire.wrap.tls_crypt import TlsCrypt
from cvpnd.wire.wrap.tls_crypt_v2 import ClientKey, ServerKey, TlsCryptV2Client
from cvpnd.wire.wrap.wrapping import Wrapping

SERVER_KEY = ServerKey(v.V3_SERVER_KEY)


@dataclass(frozen=True)
class Case:
    protection: ControlProtection
    client: Wrapping
    client_files: tuple[tuple[str, bytes], ...] = ()
    """Option and content."""
    client_options: tuple[str, ...] = ()

    def real_client_options(self, directory: Path) -> list[str]:
        """Write its key files and return the options of the ``openvpn`` program."""
        options = []
        for option, content in self.client_files:
            path = directory / f"{option}.key"
            path.write_bytes(content)
            options += [f"--{option}", str(path)]
        return [*options, *self.client_options]


def tls_auth(direction: int | None, digest: str) -> Case:
    client_direction = None if direction is None else 1 - direction
    options = ("--auth", digest)
    if client_direction is not None:
        options += ("--key-direction", str(client_direction))
    return Case(
        ControlProtection(TlsAuth(v.V0_STATIC_KEY, direction, digest)),  # type: ignore[arg-type]
        TlsAuth(v.V0_STATIC_KEY, client_direction, digest),  # type: ignore[arg-type]
        (("tls-auth", serialise_static_key(v.V0_STATIC_KEY)),),
        options,
    )


def tls_crypt() -> Case:
    return Case(
        ControlProtection(TlsCrypt(v.V0_STATIC_KEY, server=True)),
        TlsCrypt(v.V0_STATIC_KEY, server=False),
        (("tls-crypt", serialise_static_key(v.V0_STATIC_KEY)),),
    )


def tls_crypt_v2(
    metadata: bytes = b"\0test",
    *,
    shared: Wrapping | None = None,
    check: Callable[[bytes], DropReason | None] = lambda _metadata: None,
    allow_stateful: bool = True,
) -> Case:
    kc = new_static_key()
    wkc = SERVER_KEY.wrap(ClientKey(kc, metadata))
    return Case(
        ControlProtection(shared, SERVER_KEY, check, allow_stateful),
        TlsCryptV2Client(kc, wkc),
        (("tls-crypt-v2", serialise_v2_client_key(ClientKeyFile(kc, wkc))),),
    )


CASES: dict[str, Case] = {
    "plain": Case(UNPROTECTED, PLAIN),
    "tls-auth 0 SHA1": tls_auth(0, "SHA1"),
    "tls-auth 1 SHA256": tls_auth(1, "SHA256"),
    "tls-auth none SHA384": tls_auth(None, "SHA384"),
    "tls-auth 0 SHA512": tls_auth(0, "SHA512"),
    "tls-crypt": tls_crypt(),
    "tls-crypt-v2": tls_crypt_v2(),
    "tls-crypt-v2 with the longest metadata": tls_crypt_v2(b"\0" + bytes(733)),
}
NAMES: Sequence[str] = tuple(CASES)
