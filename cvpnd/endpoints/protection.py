"""The control-channel keys of an endpoint: read, kept up to date with their files, and handed out to clients."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cvpnd.auth.files import TrustError
from cvpnd.auth.watch import POLL_INTERVAL_S, FileWatch, TrustKeeper
from cvpnd.config import ControlProtectionConfig
from cvpnd.wire.errors import DropReason
from cvpnd.wire.wrap.client_key import ClientKeyMetadata, new_client_key
from cvpnd.wire.wrap.key_files import (
    KeyFileError,
    parse_static_key,
    parse_v2_server_key,
    serialise_v2_client_key,
)
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.protection import ControlProtection
from cvpnd.wire.wrap.tls_auth import TlsAuth
from cvpnd.wire.wrap.tls_crypt import TlsCrypt
from cvpnd.wire.wrap.tls_crypt_v2 import ServerKey
from cvpnd.wire.wrap.wrapping import Wrapping

log = logging.getLogger(__name__)

DAY_S = 86_400

_Parsed = TypeVar("_Parsed")


class ProtectionKeeper:
    """As ``TrustKeeper`` does with certificates: a file that cannot be used leaves ``current`` as it was and is logged
    by name; the next change is another attempt."""

    def __init__(
        self, settings: ControlProtectionConfig, trust: TrustKeeper, interval_s: float = POLL_INTERVAL_S
    ) -> None:
        """``trust`` knows who is revoked. Raises TrustError."""
        self.settings = settings
        self._trust = trust
        self._watch = FileWatch(settings.paths, interval_s)
        self.current = self._load()

    def poll(self, now: float) -> None:
        """Read the files again if one changed. Sessions go on with the keys they began with."""
        if not self._watch.changed(now):
            return
        try:
            self.current = self._load()
        except TrustError as error:
            log.error("%s; the key read before stays in use", error)
            return
        log.info("control-channel keys reloaded from %s", ", ".join(map(str, self.settings.paths)))

    def _load(self) -> ControlProtection:
        v2 = self.settings.tls_crypt_v2
        return ControlProtection(
            shared=_shared(self.settings),
            server_key=None if v2 is None else ServerKey(_read(v2.server_key, parse_v2_server_key)),
            check_client_key=self._check_client_key,
            allow_stateful=v2 is not None and v2.allow_stateful,
        )

    def _check_client_key(self, raw: bytes) -> DropReason | None:
        """A serial number alone names the certificate: they are random, and of one authority each is used once."""
        metadata = ClientKeyMetadata.parse(raw)
        crl = self._trust.current.crl
        if metadata.serial is not None and crl is not None and crl.names_serial(metadata.serial):
            return DropReason.CLIENT_KEY_REVOKED
        v2 = self.settings.tls_crypt_v2
        if v2 is not None and v2.max_age_days:
            oldest = time.time() - v2.max_age_days * DAY_S
            if metadata.created_at is None or metadata.created_at < oldest:
                return DropReason.CLIENT_KEY_TOO_OLD
        return None


def issue_client_key(server_key: ServerKey, name: str, serial: int) -> bytes:
    """The file of a new tls-crypt-v2 client key that belongs to the certificate with this serial number."""
    metadata = ClientKeyMetadata(name, serial, int(time.time()))
    return serialise_v2_client_key(new_client_key(server_key, metadata))


def _shared(settings: ControlProtectionConfig) -> Wrapping | None:
    if settings.tls_crypt is not None:
        return TlsCrypt(_read(settings.tls_crypt.key, parse_static_key), server=True)
    if settings.tls_auth is not None:
        direction = None if settings.tls_auth.direction == "none" else settings.tls_auth.direction
        return TlsAuth(_read(settings.tls_auth.key, parse_static_key), direction, settings.tls_auth.digest)
    return PLAIN if settings.allows_plain else None


def _read(path: Path, parse: Callable[[bytes], _Parsed]) -> _Parsed:
    """Raises TrustError."""
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise TrustError(path, f"cannot be read: {error.strerror}") from None
    except KeyFileError as error:
        raise TrustError(path, str(error)) from None
