"""``[endpoint.control_protection]``: tls-auth, tls-crypt, tls-crypt-v2."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from cvpnd.config.table import Table
from cvpnd.config.values import FilePath, Flag, whole


class TlsAuthConfig(Table):
    """``digest`` is the ``auth`` option of the clients, ``direction`` the opposite of their ``key-direction``."""

    key: FilePath
    direction: Literal[0, 1, "none"] = 0
    digest: Literal["SHA1", "SHA256", "SHA384", "SHA512"] = "SHA1"


class TlsCryptConfig(Table):
    key: FilePath


class TlsCryptV2Config(Table):
    server_key: FilePath
    max_age_days: int = whole(0, 0, 36_500)
    """0: keys do not age."""
    allow_stateful: Flag = True


class ControlProtectionConfig(Table):
    """What control packets are wrapped with. An opcode tells tls-crypt-v2 from the rest, and nothing tells the rest
    from each other."""

    plain: Flag | None = None
    """None: only if there is nothing else."""
    tls_auth: TlsAuthConfig | None = None
    tls_crypt: TlsCryptConfig | None = None
    tls_crypt_v2: TlsCryptV2Config | None = None

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        shared = [name for name in ("tls_auth", "tls_crypt") if getattr(self, name) is not None]
        if self.plain:
            shared.append("plain = true")
        if len(shared) > 1:
            raise ValueError(f"{' and '.join(shared)} exclude each other; keep one of them (tls_crypt_v2 may join it)")
        if self.plain is False and not shared and self.tls_crypt_v2 is None:
            raise ValueError("lets nobody in; add tls_crypt = { key = … }, or leave plain away")
        return self

    @property
    def allows_plain(self) -> bool:
        nothing_else = self.tls_auth is None and self.tls_crypt is None and self.tls_crypt_v2 is None
        return nothing_else if self.plain is None else self.plain

    @property
    def paths(self) -> tuple[Path, ...]:
        """The key files."""
        shared = [table.key for table in (self.tls_auth, self.tls_crypt) if table is not None]
        return (*shared, *(() if self.tls_crypt_v2 is None else (self.tls_crypt_v2.server_key,)))
