"""The audit record, and what is kept of it."""

from __future__ import annotations

import asyncio
import logging
import time

from cvpnd.endpoints.model import OperationError
from cvpnd.endpoints.operations import OperationsBase
from cvpnd.store import AuditExtent, AuditRecord, StoreUnavailable, fair_share

log = logging.getLogger(__name__)

TIDIED_EVERY_S = 600.0
BATCH = 500
"""Records that are deleted in one transaction, which takes milliseconds: changes wait for it."""
OLD_AT_ONCE = 10_000
"""Old records that go in one round: more than come in that time, and few if it is the clock that is wrong."""
DOWN_TO = 0.99
"""Of what may be kept, so that not every round counts who has how many, which reads all of them."""
DAY_S = 86_400


class AuditOperations(OperationsBase):
    async def audit_records(self, limit: int) -> list[AuditRecord]:
        """The latest changes, newest first."""
        return await self._store(self._stored.audit_records, limit)

    async def audit_extent(self) -> AuditExtent:
        return await self._store(self._stored.audit_extent)

    async def keep_audit(self) -> None:
        """Runs until cancelled: deletes what is older, or more, than is to be kept."""
        while True:
            try:
                await self._tidy_audit(time.time())
            except OperationError as error:
                if not isinstance(error.__cause__, StoreUnavailable):  # which is said already
                    log.warning("the audit record cannot be shortened: %s", error)
            await asyncio.sleep(TIDIED_EVERY_S)

    async def _tidy_audit(self, now: float) -> None:
        settings = self._gateway.config.audit
        if settings.keep_days and not self._gateway.timekeeper.trouble:  # else it may be that nothing is so old
            await self._forget_audit(OLD_AT_ONCE, before=now - settings.keep_days * DAY_S)
        if not settings.keep_entries or (await self.audit_extent()).records <= settings.keep_entries:
            return
        shares = await self._store(self._stored.audit_shares)
        share = fair_share(shares, int(settings.keep_entries * DOWN_TO))
        for who, records in shares.items():
            if records > share:
                gone = await self._forget_audit(records - share, who=who)
                log.warning(
                    "the audit record is full (audit.keep_entries): the %d oldest entries of %s, who has the most, are "
                    "deleted",
                    gone,
                    who,
                )

    async def _forget_audit(self, most: int, *, before: float | None = None, who: str | None = None) -> int:
        gone = 0
        while gone < most:
            async with self._changing:
                batch = await self._store(self._stored.forget_audit, min(BATCH, most - gone), before=before, who=who)
            gone += batch
            if not batch:
                break
        return gone
