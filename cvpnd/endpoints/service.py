"""Every operation on the running gateway, with its validation: ``Operations``, one file for each noun.

The skins (``api/``) call this and nothing else does. ``operations.py`` says how a change is made."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from cvpnd.config import SubnetConfig, VpcConfig
from cvpnd.endpoints.access import AccessOperations
from cvpnd.endpoints.audit import AuditOperations
from cvpnd.endpoints.authenticators import AuthenticatorOperations
from cvpnd.endpoints.connections import ConnectionOperations
from cvpnd.endpoints.gateway import Gateway, GatewayError
from cvpnd.endpoints.imports import ImportOperations
from cvpnd.endpoints.lifecycle import LifecycleOperations
from cvpnd.endpoints.logs import LogOperations
from cvpnd.endpoints.model import OperationError, SecurityGroupView
from cvpnd.endpoints.networks import NetworkOperations
from cvpnd.endpoints.operations import ASTRAY
from cvpnd.endpoints.profiles import ProfileOperations
from cvpnd.endpoints.refusals import Allowance, RefusalOperations
from cvpnd.endpoints.rules import RuleOperations
from cvpnd.endpoints.saml import SamlOperations
from cvpnd.endpoints.status import StatusOperations
from cvpnd.endpoints.users import UserOperations
from cvpnd.host.errors import HostError
from cvpnd.host.firewall import KeptBack
from cvpnd.host.nft import one_change
from cvpnd.ops.log_streams import LogStreams
from cvpnd.ops.logs import RateLimited
from cvpnd.ops.metrics import GatewayMetrics
from cvpnd.ops.recent_log import RecentLog

log = logging.getLogger(__name__)
_warn = RateLimited(log, interval_s=60)

FOLLOWS_EVERY_S = 0.4
"""How soon another gateway's change on the same store is looked for; putting it in force takes the rest of a second."""

CHECKS_EVERY_S = 5.0
"""How soon a disk is noticed that takes no change, where nobody else makes any."""

FOLLOWS_AGAIN_AFTER_S = 3.0
"""After a failure."""

ASIDE_AGAIN_S = 60.0
"""How soon endpoints are tried again that cannot be served here, where no change is a reason to."""

DEVICE_AGAIN_S, DEVICE_AGAIN_AT_MOST_S = 1.0, 60.0
"""A lost device that cannot be replaced is tried again, ever more slowly."""


class Operations(
    LifecycleOperations,
    NetworkOperations,
    RuleOperations,
    ConnectionOperations,
    ImportOperations,
    ProfileOperations,
    LogOperations,
    AccessOperations,
    SamlOperations,
    UserOperations,
    AuthenticatorOperations,
    StatusOperations,
    RefusalOperations,
    AuditOperations,
):
    """Raises ``OperationError``; after an error nothing has changed."""

    def __init__(
        self,
        gateway: Gateway,
        streams: LogStreams,
        metrics: Callable[[], GatewayMetrics],
        recent: RecentLog,
        reloaded: Callable[[], Awaitable[None]],
    ) -> None:
        """``reloaded``: what goes by the configuration besides the gateway."""
        super().__init__(gateway)
        self._reloaded = reloaded
        self._streams = streams
        self._metrics = metrics
        self._recent = recent
        self._refusals = Allowance()

    def vpcs(self) -> tuple[VpcConfig, ...]:
        """As the file declares them, as the next."""
        return self._gateway.config.vpcs

    def subnets(self) -> tuple[SubnetConfig, ...]:
        return self._gateway.config.subnets

    async def list_security_groups(self) -> list[SecurityGroupView]:
        try:
            kept_back = await self._gateway.host_changes.kept_back()
        except HostError as error:
            raise OperationError("InternalError", str(error)) from error
        endpoints = await self.list_endpoints()
        return [
            SecurityGroupView(
                group,
                group.name,
                {
                    e.name: kept_back.get(KeptBack(e.name, "security-groups"), 0)
                    for e in endpoints
                    if group.id in e.security_groups
                },
            )
            for group in self._gateway.config.all_security_groups
        ]

    async def reload(self) -> dict[str, object]:
        """Read the configuration again. A mistake in it keeps everything as it was."""
        async with self._changing:
            try:
                with one_change():
                    answer = await self._gateway.reload()
            except GatewayError as error:
                raise OperationError("InvalidParameterValue", str(error)) from error
            await self._reloaded()
            return answer

    async def keep_host(self) -> None:
        """Runs until cancelled: what others change of the host is put right, and said."""
        async with asyncio.TaskGroup() as replacements:
            async for change in self._gateway.host_changes.watch():
                if change.lost:
                    replacements.create_task(self._replace_device(change.lost))

    async def _replace_device(self, device: str) -> None:
        """As often as it takes, unless the endpoint has got another one meanwhile, or is gone."""
        pause_s, told = DEVICE_AGAIN_S, ""
        while True:
            async with self._changing:
                if told and self._gateway.is_as_configured:
                    return
                try:
                    with one_change():
                        await self._gateway.serve_anew(device)
                except GatewayError as error:
                    if str(error) != told:
                        told = str(error)
                        log.critical("the device %s cannot be replaced; it is tried again: %s", device, told)
                else:
                    return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, DEVICE_AGAIN_AT_MOST_S)

    async def poll_trust(self, now: float) -> None:
        """And look whether programs that are handlers may still be run, which holds up no change where a disk hangs."""
        async with self._changing:
            await self._gateway.poll_trust(now)
        await self._gateway.control.handlers.look()

    async def _store_late_endings(self, late: str) -> None:
        """What cannot be stored keeps nobody from following what can."""
        try:
            await self.store_endings()
            log.info("stored at last that it was ended: %s", late)
        except OperationError as error:
            _warn.warning("endings", "that it was ended is not stored yet: %s: %s", late, error)

    async def keep_following(self) -> None:
        """Runs until cancelled: looks whether the store can be used, what other gateways on it change comes into force
        here as well, and what could not be put back, or stored of what was ended, is as soon as it can be."""
        aside_again_at = float("-inf")
        while True:
            await asyncio.sleep(FOLLOWS_EVERY_S if self._stored.is_shared else CHECKS_EVERY_S)
            try:
                await self._store(self._stored.check)
                if late := "; ".join(map(str, self.unstored)):
                    await self._store_late_endings(late)
                again = self._gateway.set_aside and time.monotonic() >= aside_again_at
                if again or self._gateway.is_astray or await self._latest_change() != self._followed:
                    if again:
                        self._followed, aside_again_at = ASTRAY, time.monotonic() + ASIDE_AGAIN_S
                    async with self._changing:
                        with one_change():
                            await self._follow_others()
                    if self._gateway.is_astray or self._followed == ASTRAY:
                        async with self._change():  # which begins with the changes of others
                            if self._gateway.is_astray:
                                await self._come_back()
            except Exception as error:  # whatever it is, the next change of another gateway may not be missed for it
                if self._stored.outage is not None:  # which is said already
                    continue
                refused = isinstance(error, OperationError)
                _warn.warning("follow", "what should be in force here is not yet: %s", error, exc_info=not refused)
                await asyncio.sleep(FOLLOWS_AGAIN_AFTER_S)
