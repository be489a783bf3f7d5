"""The client CIDR as a pool of addresses.

The free addresses are a shuffled deck that is only written down where it differs from a sorted one: ``_at[place]``
and ``_place[offset]`` hold the exceptions, the first ``free`` places are the free addresses, and taking one swaps it
with the last of those. So any address, wanted or arbitrary, is taken and given back in constant time, also with one
left, and a /12 costs no memory for its million addresses, only for those in use."""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from cvpnd.policy.model import Lease

FIRST_CHOICES = 8
"""Addresses a name hashes to. More make a first-time user's address survive restarts in a fuller pool."""
_WORDS = struct.Struct(f">{FIRST_CHOICES}I")
"""Of a SHA-256 digest."""
REMEMBERED_USERS = 65_536
"""Some 15 MB at most. Whoever is forgotten still has the addresses of their name's hash."""


class PoolFull(Exception):
    """Every address of the client CIDR is leased."""


class NotLeased(Exception):
    """An address was released that nobody holds: our own mistake, and never a reason to go on quietly."""


class LeasePool:
    """Owned by the endpoint; used from the event loop only.

    Kept back: the network address, the first host (the gateway's own), and the broadcast address."""

    def __init__(
        self, cidr: IPv4Network, cidr_v6: IPv6Network | None = None, *, remembered_users: int = REMEMBERED_USERS
    ) -> None:
        self.cidr = cidr
        self.cidr_v6 = cidr_v6
        self.gateway = cidr.network_address + 1
        self.capacity = cidr.num_addresses - 3
        if self.capacity < 1:
            raise ValueError(f"{cidr} has no room for a client")
        if cidr_v6 is not None and cidr_v6.num_addresses < cidr.num_addresses:
            raise ValueError(f"{cidr_v6} has fewer addresses than {cidr}")
        self._first = cidr.network_address + 2
        self._free = self.capacity
        self._at: dict[int, int] = {}
        self._place: dict[int, int] = {}
        self._holder: dict[int, str] = {}
        self._last_of_user: OrderedDict[str, int] = OrderedDict()
        """Least recently leased first; at most ``remembered_users``."""
        self._last_user: dict[int, str] = {}
        """The inverse, so that others leave a remembered address alone while there is another."""
        self._remembered_users = remembered_users

    def acquire(self, user: str) -> IPv4Address:
        """An address that nobody holds: the user's last one if it is free, else one that only the name determines, else
        any. Raises PoolFull. The caller releases it exactly once. A user may hold several."""
        if self._free == 0:
            raise PoolFull(f"all {self.capacity} addresses of {self.cidr} are leased")
        offset = self._choose(user)
        self._take(offset)
        self._holder[offset] = user
        self._remember(user, offset)
        return self._first + offset

    def release(self, address: IPv4Address) -> None:
        """Raises NotLeased, also for the second release of one lease."""
        offset = self._offset(address)
        if self._holder.pop(offset, None) is None:
            raise NotLeased(f"{address} is not leased")
        self._swap(self._place.get(offset, offset), self._free)
        self._free += 1

    def lease(self, address: IPv4Address) -> Lease:
        """``address`` with the IPv6 address that goes with it: the same distance into the IPv6 prefix."""
        return Lease(address, self.paired_v6(address))

    def paired_v6(self, address: IPv4Address) -> IPv6Address | None:
        if self.cidr_v6 is None:
            return None
        return self.cidr_v6.network_address + (int(address) - int(self.cidr.network_address))

    def holder(self, address: IPv4Address) -> str | None:
        return self._holder.get(self._offset(address))

    def leases(self) -> Iterator[tuple[IPv4Address, str]]:
        """Every address in use and who holds it."""
        return ((self._first + offset, user) for offset, user in self._holder.items())

    @property
    def free(self) -> int:
        return self._free

    # -- choice -------------------------------------------------------------------------------------------

    def _choose(self, user: str) -> int:
        """Last, hashed, any; those that are some other user's last address only when nothing else of them is free."""
        taken: int | None = None
        for offset in self._candidates(user):
            if offset in self._holder:
                continue
            if self._last_user.get(offset, user) == user:
                return offset
            if taken is None:
                taken = offset
        assert taken is not None  # noqa: S101 - any that are free are among the candidates
        return taken

    def _candidates(self, user: str) -> Iterator[int]:
        if (last := self._last_of_user.get(user)) is not None:
            yield last
        words = _WORDS.unpack(hashlib.sha256(user.encode()).digest())
        for word in words:
            yield word % self.capacity
        for word in words:
            yield self._offset_at(word % self._free)

    def _remember(self, user: str, offset: int) -> None:
        if (before := self._last_of_user.pop(user, None)) is not None:
            del self._last_user[before]
        if (displaced := self._last_user.get(offset)) is not None:
            del self._last_of_user[displaced]
        self._last_of_user[user] = offset
        self._last_user[offset] = user
        if len(self._last_of_user) > self._remembered_users:
            _, forgotten = self._last_of_user.popitem(last=False)
            del self._last_user[forgotten]

    # -- the deck -----------------------------------------------------------------------------------------

    def _offset(self, address: IPv4Address) -> int:
        return int(address) - int(self._first)

    def _offset_at(self, place: int) -> int:
        return self._at.get(place, place)

    def _take(self, offset: int) -> None:
        self._free -= 1
        self._swap(self._place.get(offset, offset), self._free)

    def _swap(self, one: int, other: int) -> None:
        first, second = self._offset_at(one), self._offset_at(other)
        self._put(one, second)
        self._put(other, first)

    def _put(self, place: int, offset: int) -> None:
        if place == offset:
            self._at.pop(place, None)
            self._place.pop(offset, None)
        else:
            self._at[place] = offset
            self._place[offset] = place
