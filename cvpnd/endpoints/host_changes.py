"""What others do to this host while the gateway runs, told and counted, and what keeps packets back here."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator

from cvpnd.host.errors import HostError
from cvpnd.host.firewall import KeptBack
from cvpnd.host.gateway import HostChange, HostGateway

log = logging.getLogger(__name__)


class HostChanges:
    """The host room puts right what it can; this says so."""

    def __init__(self, host: HostGateway) -> None:
        self.seen: Counter[str] = Counter()
        """By what was changed."""
        self._host = host

    @property
    def trouble(self) -> str:
        """What cannot be put right; empty: nothing."""
        return self._host.trouble

    async def watch(self) -> AsyncIterator[HostChange]:
        """Runs until cancelled: what others do to devices, routes, rules and forwarding. All is put right by then, but
        for a device that is lost: ``Gateway.serve_anew``."""
        try:
            for warning in await self._host.warnings():
                log.warning("%s", warning)
        except HostError as error:
            log.warning("other firewalls of this host cannot be looked at: %s", error)
        async for change in self._host.watch():
            self._tell(change)
            yield change

    async def keep_firewall(self) -> None:
        """Runs until cancelled: puts the firewall back when others remove it, and says so."""
        async for change in self._host.watch_firewall():
            self._tell(change)

    async def warnings(self) -> list[str]:
        """What else on this host keeps clients from their target networks. Raises ``HostError``."""
        return await self._host.warnings()

    async def kept_back(self) -> dict[KeptBack, int]:
        """Packets that the firewall kept back from clients since the start. Raises ``HostError``."""
        return await self._host.kept_back()

    def _tell(self, change: HostChange) -> None:
        self.seen[change.what] += 1
        if change.text:
            log.warning("%s", change.text)
