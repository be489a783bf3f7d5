"""The client CIDR as a pool of addresses.

The free addresses are a shuffled deck that is only written down where it differs from a sorted one: ``_at[place]``
and ``_place[offset]`` hold the exceptions, the first ``clean`` places are the free addresses, and taking one swaps it
with the last of those. So any address, wanted or arbitrary, is taken and given back in constant time, also with one
left, and a /12 costs no memory for its million addresses, only for those in use.

An address that is given back *rests*: what the kernel tracks of its last holder's connections would lead to the next
one. Only the last holder may have it again until somebody has seen to it that the kernel has forgotten
(``begin_forgetting``, ``end_forgetting``), which costs a look at everything tracked and is done for many at once."""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections import OrderedDict
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from cvpnd.policy.model import Lease

FIRST_CHOICES = 8
"""Addresses a name hashes to. More make a first-time user's address survive restarts in a fuller pool."""
_WORDS = struct.Struct(f">{FIRST_CHOICES}I")
"""Of a SHA-256 digest."""
REMEMBERED_USERS = 65_536
"""Some 15 MB at most. Whoever is forgotten still has the addresses of their name's hash."""


Holder = str | tuple[str, str]
"""A user, or one device of a user: names of either kind are anybody's choice, and no two may be taken for one."""
NOBODY = ""
"""Is no user's name."""
MOST_RESTING = 65_536
"""At once, in a pool that has more."""


class PoolFull(Exception):
    """Every address of the client CIDR is leased, or rests."""


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
        self._first_number = int(self._first)
        self._clean = self.capacity
        self._at: dict[int, int] = {}
        self._place: dict[int, int] = {}
        self._holder: dict[int, Holder] = {}
        self._resting: OrderedDict[int, Holder] = OrderedDict()
        """And who held them last; longest first."""
        self._forgetting: dict[int, Holder] = {}
        """Those of them that are nobody's just now."""
        self._last_of_user: OrderedDict[Holder, int] = OrderedDict()
        """Least recently leased first; at most ``remembered_users``."""
        self._last_user: dict[int, Holder] = {}
        """The inverse, so that others leave a remembered address alone while there is another."""
        self._remembered_users = remembered_users

    def acquire(self, user: Holder) -> IPv4Address:
        """An address that nobody holds: the user's last one if it is free, else one that only the name determines, else
        any. Raises PoolFull. The caller releases it exactly once. A user may hold several."""
        offset = self._choose(user)
        if offset is None:
            resting = f"; {self.free} of them rest" if self.free else ""
            raise PoolFull(f"all {self.capacity} addresses of {self.cidr} are leased{resting}")
        if self._resting.pop(offset, None) is None:
            self._take(offset)
        self._holder[offset] = user
        self._remember(user, offset)
        return IPv4Address(self._first_number + offset)

    def release(self, address: IPv4Address) -> None:
        """From here on it rests. Raises NotLeased, also for the second release of one lease."""
        offset = self._offset(address)
        user = self._holder.pop(offset, None)
        if user is None:
            raise NotLeased(f"{address} is not leased")
        self._resting[offset] = user

    # -- resting ------------------------------------------------------------------------------------------

    def rest(self, address: IPv4Address, user: Holder = NOBODY) -> None:
        """Nobody has held it yet here, and still something of ``user``'s connections is tracked. What is not in the
        pool or rests already is left alone."""
        offset = self._offset(address)
        if 0 <= offset < self.capacity and offset not in self._resting:
            self._take(offset)
            self._resting[offset] = user
            if user != NOBODY:
                self._remember(user, offset)

    def resting(self) -> Iterator[tuple[IPv4Address, Holder]]:
        """And who may have each again, if nothing more becomes of it here."""
        resting = itertools.chain(self._forgetting.items(), self._resting.items())
        return ((self._first + offset, user) for offset, user in resting if user != NOBODY)

    @property
    def should_forget(self) -> bool:
        """Fewer addresses are ready for new holders than rest: the fuller the pool, the sooner."""
        return not self._forgetting and len(self._resting) > min(self._clean, MOST_RESTING)

    @property
    def waits(self) -> bool:
        """Nobody new gets an address before some are forgotten, which they can be."""
        return self._clean == 0 and bool(self._resting or self._forgetting)

    def waits_for(self, user: Holder) -> bool:
        """The same for this one, who may have last held what rests."""
        return self.waits and self._choose(user) is None

    def begin_forgetting(self) -> list[IPv4Address]:
        """The half that has rested longest. Nobody gets one of these, also not who held it, until ``end_forgetting``;
        one at a time."""
        for _ in range((len(self._resting) + 1) // 2):
            offset, user = self._resting.popitem(last=False)
            self._forgetting[offset] = user
        return [self._first + offset for offset in self._forgetting]

    def end_forgetting(self, still_tracked: Collection[IPv4Address]) -> None:
        """All others are free for everybody."""
        rest_on = {self._offset(address) for address in still_tracked}
        for offset, user in self._forgetting.items():
            if offset in rest_on:
                self._resting[offset] = user
            else:
                self._swap(self._place.get(offset, offset), self._clean)
                self._clean += 1
        self._forgetting.clear()

    # -- who and where ------------------------------------------------------------------------------------

    def lease(self, address: IPv4Address) -> Lease:
        """``address`` with the IPv6 address that goes with it: the same distance into the IPv6 prefix."""
        return Lease(address, self.paired_v6(address))

    def paired_v6(self, address: IPv4Address) -> IPv6Address | None:
        if self.cidr_v6 is None:
            return None
        return self.cidr_v6.network_address + (int(address) - int(self.cidr.network_address))

    def holder(self, address: IPv4Address) -> Holder | None:
        return self._holder.get(self._offset(address))

    def leases(self) -> Iterator[tuple[IPv4Address, Holder]]:
        """Every address in use and who holds it."""
        return ((self._first + offset, user) for offset, user in self._holder.items())

    @property
    def free(self) -> int:
        """Leased to nobody, be it that they rest."""
        return self.capacity - len(self._holder)

    # -- choice -------------------------------------------------------------------------------------------

    def _choose(self, user: Holder) -> int | None:
        """Last, hashed, any; those that are some other user's last address only when nothing else of them is free."""
        taken: int | None = None
        for offset in self._candidates(user):
            if self._resting.get(offset) == user:
                return offset
            if offset in self._holder or offset in self._resting or offset in self._forgetting:
                continue
            if self._last_user.get(offset, user) == user:
                return offset
            if taken is None:
                taken = offset
        return taken

    def _candidates(self, user: Holder) -> Iterator[int]:
        """If any are free to be had, at least one of them is here."""
        if (last := self._last_of_user.get(user)) is not None:
            yield last
        words = _WORDS.unpack(hashlib.sha256(repr(user).encode()).digest())
        for word in words:
            yield word % self.capacity
        for word in words if self._clean else ():
            yield self._offset_at(word % self._clean)

    def _remember(self, user: Holder, offset: int) -> None:
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
        return int(address) - self._first_number

    def _offset_at(self, place: int) -> int:
        return self._at.get(place, place)

    def _take(self, offset: int) -> None:
        self._clean -= 1
        self._swap(self._place.get(offset, offset), self._clean)

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
