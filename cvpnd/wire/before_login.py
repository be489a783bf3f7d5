"""What a client may send before login has said yes: any stranger can be one."""

from __future__ import annotations

from cvpnd.wire.errors import DropReason, PeerError
from cvpnd.wire.settings import SessionSettings


class BeforeLogin:
    """Counts its own packets only: others could use up its share in its name."""

    __slots__ = ("_bytes", "_packets", "_settings")

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._packets = 0
        self._bytes = 0

    def count(self, size: int) -> None:
        """Another packet. Raises ``PeerError``."""
        self._packets += 1
        self._bytes += size
        if (
            self._packets > self._settings.max_packets_before_login
            or self._bytes > self._settings.max_bytes_before_login
        ):
            raise PeerError(DropReason.LIMIT_BEFORE_LOGIN, "too many packets or bytes before login")
