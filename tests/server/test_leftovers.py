"""Who waits for an address whose last holder's connections are still tracked, and who does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network

import pytest
from helpers import certs
from helpers.served import Client, Served, wait_until

from cvpnd.auth.revoked_logins import RevokedLogins
from cvpnd.host.errors import HostError
from cvpnd.policy.leases import LeasePool, PoolFull
from cvpnd.reasons import Refusal
from cvpnd.server import leftovers
from cvpnd.server.leftovers import Leftovers

ADDRESSES = 5


class Kernel:
    """Forgets when it is let, in the thread that asks for it."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked: list[set[IPv4Address]] = []
        self.fails = False
        self.keeps: set[IPv4Address] = set()

    def forget(self, _leases: LeasePool, addresses: Collection[IPv4Address]) -> set[IPv4Address]:
        self.asked.append(set(addresses))
        assert self.may.wait(10)
        if self.fails:
            raise HostError("connection tracking: out of order")
        return self.keeps & set(addresses)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
async def served(serve, kernel: Kernel, monkeypatch) -> Served:
    """All addresses but one are leased."""
    monkeypatch.setattr(leftovers, "AGAIN_S", 0.05)
    served = serve()
    pool = served.endpoint.leases = LeasePool(IPv4Network("10.100.0.0/29"))
    served.endpoint.leftovers = Leftovers(pool, kernel.forget)
    for n in range(ADDRESSES - 1):
        pool.acquire(f"other{n}")
    return served


async def connect(served: Served, name: str) -> tuple[Client, IPv4Address]:
    client = await Client(served.udp, certificate=certs.client(name)).connect()
    return client, served.established[-1].grant.lease.v4


async def leave(served: Served, client: Client) -> None:
    client.light.exit()
    before = len(served.ended)
    assert await client.until(lambda: len(served.ended) > before)
    client.close()


async def test_the_next_one_waits_until_the_kernel_has_forgotten_and_nobody_else_does(served, kernel):
    alice, address = await connect(served, "alice")
    await leave(served, alice)
    assert await wait_until(lambda: kernel.asked == [{address}])
    bob = Client(served.udp, certificate=certs.client("bob"))
    assert not await bob.until(lambda: bob.light.connected, 0.3)
    assert len(served.established) == 1
    kernel.may.set()
    await bob.connect()
    assert served.established[-1].grant.lease.v4 == address
    bob.close()


async def test_whose_logins_are_ended_while_they_wait_does_not_get_in(served, kernel):
    alice, _ = await connect(served, "alice")
    await leave(served, alice)
    assert await wait_until(lambda: kernel.asked)
    bob = Client(served.udp, certificate=certs.client("bob"))
    assert not await bob.until(lambda: bob.light.connected, 0.3)
    control = served.control
    control.revoked_logins.add(RevokedLogins.new_marks({RevokedLogins.of_user("bob")}), control.clock.now())
    kernel.may.set()
    assert await bob.until(lambda: bob.light.failed is not None)
    assert served.ended[-1].end_reason is Refusal.TERMINATED
    bob.close()
    bob, _ = await connect(served, "bob")
    bob.close()


async def test_the_pool_is_full_for_others_while_the_kernel_cannot_forget(served, kernel, monkeypatch, caplog):
    monkeypatch.setattr(leftovers, "PATIENCE_S", 0.3)
    monkeypatch.setattr(leftovers, "_warn", leftovers.RateLimited(leftovers.log))
    kernel.fails = True
    kernel.may.set()
    alice, address = await connect(served, "alice")
    await leave(served, alice)
    bob = Client(served.udp, certificate=certs.client("bob"))
    assert await bob.until(lambda: bob.light.failed is not None)
    assert served.ended[-1].end_reason is Refusal.ADDRESS_POOL_FULL
    assert served.ended[-1].end_detail == "all 5 addresses of 10.100.0.0/29 are leased; 1 of them rest"
    assert "addresses that clients left rest: connection tracking: out of order" in caplog.text
    bob.close()
    kernel.fails = False
    bob, bobs = await connect(served, "bob")
    assert bobs == address
    bob.close()


async def test_address_of_which_something_stays_tracked_waits_for_its_last_holder(served, kernel, monkeypatch):
    """Who does not wait for it: others are given time until the kernel has forgotten."""
    monkeypatch.setattr(leftovers, "PATIENCE_S", 60)
    kernel.may.set()
    alice, address = await connect(served, "alice")
    kernel.keeps = {address}
    await leave(served, alice)
    assert await wait_until(lambda: kernel.asked == [{address}])
    pool = served.endpoint.leases
    other, _ = next(pool.leases())
    pool.release(other)
    bob, bobs = await connect(served, "bob")
    assert bobs == other
    alice, again = await connect(served, "alice")
    assert again == address
    await leave(served, alice)
    kernel.may.clear()
    looks = len(kernel.asked)
    assert await wait_until(lambda: len(kernel.asked) > looks)
    alice = Client(served.udp, certificate=certs.client("alice"))
    assert not await alice.until(lambda: alice.light.connected, 0.3), "while it is looked at, it is nobody's"
    kernel.may.set()
    await alice.connect()
    assert served.established[-1].grant.lease.v4 == address
    for client in (alice, bob):
        client.close()


async def test_looks_that_leave_something_are_a_small_part_of_the_time_however_long_they_take(
    served, kernel, monkeypatch
):
    monkeypatch.setattr(leftovers, "REST", 50)
    kernel.fails = True
    alice, _ = await connect(served, "alice")
    await leave(served, alice)
    assert await wait_until(lambda: kernel.asked)
    await asyncio.sleep(0.1)
    kernel.may.set()
    await asyncio.sleep(1)
    assert len(kernel.asked) == 1, "the next look is due after some 5 s"


async def test_closing_leaves_what_rests_resting(served, kernel):
    alice, address = await connect(served, "alice")
    await leave(served, alice)
    assert await wait_until(lambda: kernel.asked == [{address}])
    served.endpoint.leftovers.close()
    await asyncio.sleep(0.05)
    kernel.may.set()
    pool = served.endpoint.leases
    with pytest.raises(PoolFull):
        pool.acquire("bob")
    assert pool.acquire("alice") == address
