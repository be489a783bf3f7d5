"""The API's certificate that signs itself, for whoever names none: made when the API begins, and another one before it
ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from cvpnd.pki.self_signed import ensure_self_signed

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 3600.0
NOT_RENEWED = "the API's certificate, which signs itself, cannot be renewed: %s"


class OwnCertificate:
    def __init__(self, files: tuple[Path, Path], host: str) -> None:
        """``files``: certificate and key. ``host``: where the API listens."""
        self.files = files
        self.replaced_at: float | None = None
        self._host = host

    async def begin(self) -> None:
        """Raises ``OSError`` if there is none."""
        try:
            await self._renew(is_clock_right=False)  # before anybody has set it
        except OSError as error:
            if not all(path.exists() for path in self.files):
                raise
            log.error(NOT_RENEWED, error)

    async def keep(self, until_step: Callable[[float], Awaitable[None]], show: Callable[[], Awaitable[None]]) -> None:
        """Runs until cancelled. ``until_step``: returns after so many seconds, or when the clock was set. ``show``: has
        the server use a new one; what raises ``OSError`` is tried again."""
        due = False
        while True:
            await until_step(CHECK_INTERVAL_S)
            try:
                due = await self._renew(is_clock_right=True) or due
                if due:
                    await show()
                    due = False
            except OSError as error:
                log.error(NOT_RENEWED, error)

    async def _renew(self, *, is_clock_right: bool) -> bool:
        """If it has to be. Raises ``OSError``."""
        replaced = await asyncio.to_thread(ensure_self_signed, *self.files, self._host, is_clock_right=is_clock_right)
        if replaced:
            self.replaced_at = time.time()
            log.warning(
                "the API's certificate, which signs itself, was about to end, or unusable, and is another one now: "
                "whoever trusts a copy of the one before needs the new %s; the one before is kept as %s~",
                self.files[0],
                self.files[0],
            )
        return replaced
