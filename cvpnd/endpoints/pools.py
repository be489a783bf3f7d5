"""Address pools of endpoints that are away for a moment: while they are replaced, and through a restart.

Clients come back to their addresses, and what the kernel tracks for an address stays with whom it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from pathlib import Path

from cvpnd.config import EndpointConfig
from cvpnd.policy.leases import LeasePool
from cvpnd.server.lease_record import LeaseRecord, Resting
from cvpnd.server.leftovers import forget_all


class Pools:
    """On the event loop's thread, by whoever may change the gateway."""

    def __init__(self, record: Path) -> None:
        """``record``: of who had which address when the gateway stopped."""
        self._record = LeaseRecord(record)
        self._rested: Mapping[str, Resting] = {}
        """By endpoint id, whom addresses rest for since then."""
        self._away: dict[str, LeasePool] = {}

    async def begin(self) -> None:
        self._rested = await asyncio.to_thread(self._record.take)

    async def end(self) -> None:
        """All endpoints are away."""
        await asyncio.to_thread(self._record.write, self._away)

    def put(self, endpoint_id: str, pool: LeasePool) -> None:
        self._away[endpoint_id] = pool

    async def take(self, endpoint: EndpointConfig) -> LeasePool:
        """The one it had, if it is for the same addresses, or a new one."""
        pool = self._away.pop(endpoint.id, None)
        if pool is None or (pool.cidr, pool.cidr_v6) != (endpoint.client_cidr, endpoint.client_cidr_v6):
            pool = LeasePool(endpoint.client_cidr, endpoint.client_cidr_v6)
            for address, holder in self._rested.get(endpoint.id, ()):
                pool.rest(address, holder)
            await asyncio.to_thread(forget_all, pool)
        return pool

    def settle(self) -> Set[str]:
        """All are back that come back. The ids of those that do not."""
        left = self._away.keys()
        self._away, self._rested = {}, {}
        return left
