"""What is written beside a tls-crypt-v2 client key, so that the gateway knows it again years later.

OpenVPN knows two types of metadata: user data and a time of creation. Ours is user data, and names the certificate that
the key was handed out with: whoever revokes the certificate has revoked the key, and there is no second list to keep.
Keys that were made elsewhere have a time at most, and none of the rest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cvpnd.wire.wrap.key_files import ClientKeyFile, new_static_key
from cvpnd.wire.wrap.tls_crypt_v2 import ClientKey, ServerKey

_USER_DATA = b"\x00"
_TIMESTAMP = b"\x01"
_TIMESTAMP_BYTES = 8
_MARK = "cvpnd"


@dataclass(frozen=True, slots=True)
class ClientKeyMetadata:
    name: str = ""
    serial: int | None = None
    """Of the certificate it belongs to."""
    created_at: int | None = None
    """Seconds since the epoch; None: nobody wrote it down."""

    def serialise(self) -> bytes:
        data = {
            _MARK: 1,
            "name": self.name,
            "serial": None if self.serial is None else f"{self.serial:x}",
            "created": self.created_at,
        }
        return _USER_DATA + json.dumps(data, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, metadata: bytes) -> ClientKeyMetadata:
        """Of a key that is genuine. What we do not understand of it says nothing, and is no error."""
        kind, data = metadata[:1], metadata[1:]
        if kind == _TIMESTAMP and len(data) == _TIMESTAMP_BYTES:
            return cls(created_at=int.from_bytes(data, "big"))
        if kind == _USER_DATA:
            try:
                return cls._from_ours(json.loads(data))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                pass
        return cls()

    @classmethod
    def _from_ours(cls, data: Any) -> ClientKeyMetadata:
        if data[_MARK] != 1:
            raise ValueError
        serial, created = data["serial"], data["created"]
        return cls(
            str(data["name"]), None if serial is None else int(serial, 16), None if created is None else int(created)
        )


def new_client_key(server_key: ServerKey, metadata: ClientKeyMetadata) -> ClientKeyFile:
    """A fresh key for one client. It is in the answer and nowhere else."""
    kc = new_static_key()
    return ClientKeyFile(kc, server_key.wrap(ClientKey(kc, metadata.serialise())))
