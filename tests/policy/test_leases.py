"""The address pool: nobody shares, nothing reserved is given, and people get their address back."""

import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cvpnd.policy.leases import LeasePool, NotLeased, PoolFull
from cvpnd.policy.model import Lease

SMALLEST = IPv4Network("10.100.0.0/22")
LARGEST = IPv4Network("10.96.0.0/12")
TINY = IPv4Network("10.0.0.0/28")
"""Smaller than the configuration allows, so that tests fill it often."""


def forget(pool: LeasePool) -> None:
    """All that rest."""
    while pool.begin_forgetting():
        pool.end_forgetting(())


def test_network_gateway_and_broadcast_are_kept_back_and_all_others_given() -> None:
    pool = LeasePool(SMALLEST)
    given = {pool.acquire(f"user{n}") for n in range(pool.capacity)}
    assert given == set(SMALLEST.hosts()) - {IPv4Address("10.100.0.1")}
    assert pool.gateway == IPv4Address("10.100.0.1")
    assert pool.free == 0


def test_a_full_pool_refuses_and_names_itself() -> None:
    pool = LeasePool(TINY)
    held = [pool.acquire(f"user{n}") for n in range(pool.capacity)]
    with pytest.raises(PoolFull, match=r"all 13 addresses of 10\.0\.0\.0/28 are leased"):
        pool.acquire("one more")
    pool.release(held[4])
    forget(pool)
    assert pool.acquire("one more") == held[4]


def test_a_lease_is_released_exactly_once() -> None:
    pool = LeasePool(TINY)
    address = pool.acquire("alice")
    pool.release(address)
    with pytest.raises(NotLeased):
        pool.release(address)
    assert pool.free == pool.capacity


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.1", "10.0.0.15", "10.0.0.16", "9.255.255.255", "192.0.2.1"])
def test_an_address_that_was_never_leased_cannot_be_released(address: str) -> None:
    pool = LeasePool(TINY)
    pool.acquire("alice")
    with pytest.raises(NotLeased):
        pool.release(IPv4Address(address))


def test_the_same_user_gets_the_same_address_again() -> None:
    pool = LeasePool(SMALLEST)
    first = pool.acquire("alice")
    pool.release(first)
    for n in range(900):
        pool.acquire(f"other{n}")
    assert pool.acquire("alice") == first, "others leave it alone while there is another"


def test_the_first_address_depends_on_the_name_alone_so_that_it_survives_a_restart() -> None:
    one, other = LeasePool(SMALLEST), LeasePool(SMALLEST)
    names = [f"user{n}" for n in range(100)]
    before = {name: one.acquire(name) for name in names}
    same = sum(other.acquire(name) == before[name] for name in reversed(names))
    assert same >= 90, "only a few meet somebody else's choice when they come back in another order"


def test_two_devices_of_one_user_keep_their_two_addresses() -> None:
    pool = LeasePool(SMALLEST)
    laptop, phone = pool.acquire("alice"), pool.acquire("alice")
    assert laptop != phone
    pool.release(laptop)
    assert pool.acquire("alice") == laptop
    pool.release(phone)
    assert pool.acquire("alice") == phone


def test_a_remembered_address_goes_to_others_before_anybody_is_refused() -> None:
    pool = LeasePool(TINY)
    for n in range(pool.capacity):
        pool.release(pool.acquire(f"gone{n}"))
    forget(pool)
    assert len({pool.acquire(f"new{n}") for n in range(pool.capacity)}) == pool.capacity


def test_resting_address_is_its_last_holders_until_it_is_forgotten() -> None:
    pool = LeasePool(TINY)
    held = {name: pool.acquire(name) for name in (f"user{n}" for n in range(pool.capacity))}
    pool.release(held["user3"])
    with pytest.raises(PoolFull, match="1 of them rest"):
        pool.acquire("somebody else")
    assert pool.waits and pool.should_forget
    assert pool.waits_for("somebody else") and not pool.waits_for("user3")
    assert pool.acquire("user3") == held["user3"]
    assert not pool.waits
    pool.release(held["user3"])
    assert pool.begin_forgetting() == [held["user3"]]
    for name in ("user3", "somebody else"):
        with pytest.raises(PoolFull):
            pool.acquire(name)
    assert pool.waits and not pool.should_forget, "one at a time"
    assert pool.waits_for("user3")
    pool.end_forgetting({held["user3"]})
    with pytest.raises(PoolFull):
        pool.acquire("somebody else")
    assert pool.acquire("user3") == held["user3"]
    pool.release(held["user3"])
    forget(pool)
    assert pool.acquire("somebody else") == held["user3"]


def test_addresses_rest_undisturbed_while_more_are_ready_for_others() -> None:
    pool = LeasePool(TINY)
    held = [pool.acquire(f"user{n}") for n in range(8)]
    for address in held[:5]:
        pool.release(address)
        assert not pool.should_forget
    pool.release(held[5])
    assert pool.should_forget
    assert pool.begin_forgetting() == held[:3], "those that have rested longest"


def test_address_with_leftovers_of_others_is_nobodys_until_they_are_forgotten() -> None:
    pool = LeasePool(TINY)
    for address in TINY:
        pool.rest(address)
    assert pool.free == pool.capacity
    with pytest.raises(PoolFull):
        pool.acquire("alice")
    forget(pool)
    assert len({pool.acquire(f"user{n}") for n in range(pool.capacity)}) == pool.capacity


def test_memory_of_users_is_bounded() -> None:
    pool = LeasePool(SMALLEST, remembered_users=10)
    for n in range(1000):
        pool.release(pool.acquire(f"user{n}"))
    assert len(pool._last_of_user) == len(pool._last_user) == 10


def test_the_largest_pool_costs_nothing_until_it_is_used_and_little_when_it_is_full() -> None:
    pool = LeasePool(LARGEST)
    assert pool.capacity == 2**20 - 3
    assert sys.getsizeof(pool._at) + sys.getsizeof(pool._place) + sys.getsizeof(pool._holder) < 1000
    for n in range(1000):
        pool.release(pool.acquire(f"user{n}"))
    forget(pool)
    assert len(pool._at) <= 2000, "what was given back costs no more than what was ever in use at once"


def test_leasing_from_a_nearly_full_pool_looks_at_no_more_addresses_than_from_an_empty_one() -> None:
    class CountingDict(dict[int, str]):
        asked = 0

        def __contains__(self, key: object) -> bool:
            self.asked += 1
            return super().__contains__(key)

    pool = LeasePool(IPv4Network("10.96.0.0/18"))
    pool._holder = held = CountingDict()
    for n in range(pool.capacity - 1):
        pool.acquire(f"user{n}")
    held.asked = 0
    pool.acquire("the last one")
    assert 0 < held.asked <= 20


def test_ipv6_addresses_go_with_the_ipv4_ones_and_are_as_distinct() -> None:
    pool = LeasePool(TINY, IPv6Network("fd00:100::/64"))
    leases = [pool.lease(pool.acquire(f"user{n}")) for n in range(pool.capacity)]
    assert len({lease.v6 for lease in leases}) == pool.capacity
    assert pool.lease(IPv4Address("10.0.0.2")) == Lease(IPv4Address("10.0.0.2"), IPv6Address("fd00:100::2"))
    assert LeasePool(TINY).lease(IPv4Address("10.0.0.2")).addresses == (IPv4Address("10.0.0.2"),)


def test_no_choice_of_a_device_id_makes_a_device_anybody_elses() -> None:
    """A user of that name, of two, of another with a shorter name: each is hashed and remembered by itself."""
    alike = ["bob x y", ("bob", "x y"), ("bob x", "y"), "('bob', 'x y')"]
    held = {}
    for holder in alike:
        pool = LeasePool(IPv4Network("10.96.0.0/12"))
        held[holder] = pool.acquire(holder)
    assert len(set(held.values())) == len(alike)
    pool = LeasePool(IPv4Network("10.96.0.0/12"))
    address = pool.acquire(alike[0])
    pool.release(address)
    assert address not in {pool.acquire(holder) for holder in alike[1:]}
    assert pool.acquire(alike[0]) == address


def test_who_holds_what_can_be_listed() -> None:
    pool = LeasePool(TINY)
    address = pool.acquire("alice")
    assert list(pool.leases()) == [(address, "alice")]
    assert pool.holder(address) == "alice"
    assert pool.holder(IPv4Address("10.0.0.1")) is None


@pytest.mark.parametrize(("cidr", "cidr_v6"), [("10.0.0.0/30", None), ("10.0.0.0/28", "fd00::/126")])
def test_a_pool_needs_room_in_both_families(cidr: str, cidr_v6: str | None) -> None:
    if cidr_v6 is None:
        assert LeasePool(IPv4Network(cidr)).capacity == 1
        with pytest.raises(ValueError, match="no room"):
            LeasePool(IPv4Network("10.0.0.0/31"))
    else:
        with pytest.raises(ValueError, match="fewer addresses"):
            LeasePool(IPv4Network(cidr), IPv6Network(cidr_v6))


class AnyOrder(RuleBasedStateMachine):
    """Whatever the order of logins, goodbyes and forgetting: never two holders, never a reserved address, never one
    with somebody else's leftovers, and nothing gets lost."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[IPv4Address, str] = {}
        self.resting: dict[IPv4Address, str] = {}
        self.forgetting: dict[IPv4Address, str] = {}
        self.last: dict[str, IPv4Address] = {}

    @initialize(remembered=st.sampled_from([1, 3, 100]))
    def start(self, remembered: int) -> None:
        self.pool = LeasePool(TINY, remembered_users=remembered)

    @rule(user=st.sampled_from([f"user{n}" for n in range(20)]))
    def login(self, user: str) -> None:
        before = {**self.held, **self.resting, **self.forgetting}
        remembered = self.pool._last_of_user.get(user)
        try:
            address = self.pool.acquire(user)
        except PoolFull:
            assert len(before) == self.pool.capacity
            assert user not in self.resting.values() or remembered is None or self.last[user] not in self.resting
            return
        assert self.resting.pop(address, user) == user
        assert address not in self.held and address not in self.forgetting
        if remembered is not None and before.get(self.last[user], user) == user and self.last[user] not in self.held:
            assert address == self.last[user] or self.last[user] in self.forgetting
        self.held[address] = user
        self.last[user] = address

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.held)))
        self.pool.release(address)
        self.resting[address] = self.held.pop(address)

    @precondition(lambda self: not self.forgetting)
    @rule()
    def begin(self) -> None:
        begun = self.pool.begin_forgetting()
        assert begun == list(self.resting)[: (len(self.resting) + 1) // 2]
        self.forgetting = {address: self.resting.pop(address) for address in begun}

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        left = data.draw(st.sets(st.sampled_from(sorted(self.forgetting)))) if self.forgetting else set()
        self.pool.end_forgetting(left)
        self.resting |= {address: user for address, user in self.forgetting.items() if address in left}
        self.forgetting = {}

    @rule(address=st.sampled_from(list(TINY)))
    def release_what_may_not_be_leased(self, address: IPv4Address) -> None:
        if address not in self.held:
            with pytest.raises(NotLeased):
                self.pool.release(address)

    @invariant()
    def the_pool_knows_the_same(self) -> None:
        assert dict(self.pool.leases()) == self.held
        assert self.pool.free == self.pool.capacity - len(self.held)
        assert not self.held.keys() & {TINY[0], TINY[1], TINY[-1]}
        deck = [self.pool._offset_at(place) for place in range(self.pool.capacity)]
        assert sorted(deck) == list(range(self.pool.capacity))
        taken = self.held.keys() | self.resting.keys() | self.forgetting.keys()
        assert {TINY[offset + 2] for offset in deck[self.pool._clean :]} == taken


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
test_leases_hold_in_any_order = AnyOrder.TestCase
