"""Address pools of endpoints that are away for a moment: while they are replaced, and through a restart.

Clients come back to their addresses, and what the kernel tracks for an address stays with whom it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from pathlib import Path

from cvpnd.config import EndpointConfig
from cvpnd.policy.leases import LeasePool
from cvpnd.server.lease_record import LeaseRecord, Taken
from cvpnd.server.leftovers import forget_all


class Pools:
    """On the event loop's thread, by whoever may change the gateway."""

    def __init__(self, record: Path) -> None:
        """``record``: of who had which address when the gateway stopped."""
        self._record = LeaseRecord(record)
        self._before: Taken | None = None
        """None: nobody has looked, and so nothing is to be written."""
        self._away: dict[str, LeasePool] = {}

    async def begin(self) -> None:
        self._before = await asyncio.to_thread(self._record.take)

    async def end(self) -> None:
        """All endpoints are away. After a start that failed, what it has not come to is as it was."""
        if self._before is not None:
            now = {endpoint_id: tuple(pool.resting()) for endpoint_id, pool in self._away.items()}
            await asyncio.to_thread(self._record.write, {**self._before.resting, **now}, self._before.at)
        self._before = None

    def put(self, endpoint_id: str, pool: LeasePool) -> None:
        self._away[endpoint_id] = pool

    async def take(self, endpoint: EndpointConfig) -> LeasePool:
        """The one it had, if it is for the same addresses, or a new one."""
        pool = self._away.pop(endpoint.id, None)
        if pool is None or (pool.cidr, pool.cidr_v6) != (endpoint.client_cidr, endpoint.client_cidr_v6):
            pool = LeasePool(endpoint.client_cidr, endpoint.client_cidr_v6)
            rested = () if self._before is None else self._before.resting.get(endpoint.id, ())
            for address, holder in rested:
                pool.rest(address, holder)
            await asyncio.to_thread(forget_all, pool)
        return pool

    def settle(self) -> Set[str]:
        """All are back that come back. The ids of those that do not."""
        left = self._away.keys()
        self._away, self._before = {}, Taken()
        return left
