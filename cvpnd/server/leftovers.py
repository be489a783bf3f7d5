"""What is still tracked of the connections of clients that left, and having the kernel forget it before others get
their addresses.

One look at the kernel's table serves as many addresses as rest, so it is taken when few others are left, in a thread,
and for a small part of the time only. Where no address is left without it, logins wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection
from ipaddress import IPv4Address

from cvpnd.host import tracked
from cvpnd.host.errors import HostError
from cvpnd.ops.logs import RateLimited
from cvpnd.policy.leases import Holder, LeasePool

log = logging.getLogger(__name__)
_warn = RateLimited(log)

REST = 10
"""Times as long as the latest look took, until the next."""
AGAIN_S = 2.0
"""At least, after a look that left something."""
PATIENCE_S = 3.0
"""Of a login, for somebody to be forgotten."""

Forget = Callable[[LeasePool, Collection[IPv4Address]], set[IPv4Address]]


class Leftovers:
    """Of one endpoint; on the event loop."""

    def __init__(self, leases: LeasePool, forget: Forget | None = None) -> None:
        self._leases = leases
        self._forget = forget or forget_addresses
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        """A login waits."""
        self._looked = asyncio.Event()

    def look(self) -> None:
        """After every change to the pool."""
        if self._task is None and self._leases.should_forget:
            self._task = asyncio.get_running_loop().create_task(self._forget_while_due())

    async def ready(self, holder: Holder) -> None:
        """Until this one can be given an address, or is to be refused for want of one."""
        deadline = time.monotonic() + PATIENCE_S
        while self._leases.waits_for(holder) and (left_s := deadline - time.monotonic()) > 0:
            self._looked.clear()
            self._wanted.set()
            self.look()
            try:
                await asyncio.wait_for(self._looked.wait(), left_s)
            except TimeoutError:
                return

    def close(self) -> None:
        """Whatever rests goes on resting."""
        if self._task is not None:
            self._task.cancel()

    async def _forget_while_due(self) -> None:
        try:
            while self._leases.should_forget:
                begun = time.monotonic()
                left = await self._forget_some()
                rest_s = REST * (time.monotonic() - begun)
                if left:
                    await asyncio.sleep(AGAIN_S)  # whoever wants an address now
                    rest_s -= AGAIN_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), rest_s)
        finally:
            self._task = None

    async def _forget_some(self) -> bool:
        """Whether any could not be."""
        addresses, cidr = self._leases.begin_forgetting(), self._leases.cidr
        left: Collection[IPv4Address] = addresses
        try:
            left = await asyncio.to_thread(self._forget, self._leases, addresses)
            if left:
                text = "%s: %d addresses that clients left rest, as connections of theirs stay tracked (flow offload?)"
                _warn.warning("kept", text, cidr, len(left))
        except HostError as error:
            _warn.warning("failed", "%s: addresses that clients left rest: %s", cidr, error)
        finally:
            self._leases.end_forgetting(left)
            self._wanted.clear()
            self._looked.set()
        return bool(left)


def forget_addresses(leases: LeasePool, addresses: Collection[IPv4Address]) -> set[IPv4Address]:
    """Those of which something is tracked still. Blocking."""
    by_packed = {each.packed: address for address in addresses for each in leases.lease(address).addresses}
    return {by_packed[packed] for packed in tracked.forget(by_packed.__contains__)}


def forget_all(leases: LeasePool) -> None:
    """Before anybody has an address: what others used it for, or this gateway before a crash. What rests for somebody
    stays. Blocking."""
    networks = (leases.cidr,) if leases.cidr_v6 is None else (leases.cidr, leases.cidr_v6)
    places = {len(n.network_address.packed): (int(n.network_address), n.num_addresses) for n in networks}

    kept = {int(address) - int(leases.cidr.network_address) for address, _ in leases.resting()}

    def place(packed: bytes) -> int:
        first, size = places.get(len(packed), (0, 0))
        found = int.from_bytes(packed) - first
        return found if 0 <= found < size and found not in kept else -1

    for left in {place(packed) for packed in tracked.forget(lambda packed: place(packed) >= 0)}:
        leases.rest(leases.cidr.network_address + left)
