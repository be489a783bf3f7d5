"""What every operation builds on: one change at a time, in the store and in force or not at all.

A change is one transaction of the store that stays open while it is put in force: first the store takes it (so that a
full disk or a duplicate is found before anything happens), then the kernel, and then the store says that it is kept. If
any of that fails, the transaction is rolled back and what was before is put back in force. A process that dies in
between starts again from what the store has, which nobody was told anything else of.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any, ParamSpec, TypeVar

from cvpnd.config.values import parse_network
from cvpnd.endpoints.gateway import Gateway, GatewayError
from cvpnd.endpoints.model import AssociationView, EndpointView, OperationError, RouteView, RuleView
from cvpnd.host.nft import one_change
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.store import Answered, Store, StoredEndpoint, StoreError, StoreUnavailable, Transaction

P = ParamSpec("P")
V = TypeVar("V", EndpointView, AssociationView, RouteView, RuleView)
T = TypeVar("T")

log = logging.getLogger(__name__)

ASTRAY = -1
"""No change of the store: what is in force here is of none of its moments."""
LONGEST_TEXT = 255
MOST_TAGS = 50
LONGEST_TAG = (128, 256)
"""Key and value, in characters."""

_rehearsing: ContextVar[bool] = ContextVar("rehearsing", default=False)


class Rehearsed(Exception):
    """The change would have been made (AWS's DryRun)."""


def end_rehearsal() -> None:
    """Called before the first step that somebody would notice. Raises ``Rehearsed`` if nothing is to be done."""
    if _rehearsing.get():
        raise Rehearsed


class Change:
    """A change under way. ``undo`` is what to do if it comes to nothing, the last first."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], Awaitable[None] | None]] = []

    def undo(self, step: Callable[[], Awaitable[None] | None]) -> None:
        """Say so before the step that may need it. A rehearsal ends here: all has been checked, nothing is done."""
        end_rehearsal()
        self._undo.append(step)

    async def take_back(self) -> None:
        for step in reversed(self._undo):
            waiting = step()
            if waiting is not None:
                await waiting


_under_way: ContextVar[Change | None] = ContextVar("under_way", default=None)


class OperationsBase:
    """Raises ``OperationError``; after an error nothing has changed."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._changing = asyncio.Lock()
        """Held by whatever changes the store or what is in force, so that the two cannot drift apart."""
        self._changing_to: dict[tuple[str | None, ...], str] = {}
        """By what it is the state's word of: what a change under way is about to take away."""
        self._followed: int | None = None
        """The store's latest change that is in force here, or ``ASTRAY``."""

    @property
    def _stored(self) -> Store:
        return self._gateway.store

    def steady_now(self) -> float:
        return self._gateway.control.clock.now()

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Changes inside are checked and not made: they end with ``Rehearsed``."""
        token = _rehearsing.set(True)
        try:
            yield
        finally:
            _rehearsing.reset(token)

    async def once(
        self, action: str, token: str, request: Mapping[str, Any], do: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Do it, unless this token's request has been done already: then the answer is the one that it got."""
        digest = hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()
        async with self._change():
            before = await self._store(self._stored.answered, action, token, self.steady_now())
            if before is not None and before.request != digest:
                raise OperationError(
                    "IdempotentParameterMismatch", "the client token was used before, with other parameters"
                )
            if before is not None:
                return before.answer
            answer = await do()
            answered = Answered(digest, answer)
            await self._store(self._stored.remember_answer, action, token, answered, self.steady_now())
            return answer

    def together(self) -> AbstractAsyncContextManager[Change]:
        """The changes inside are one: all of them, or none."""
        return self._change()

    @asynccontextmanager
    async def _change(self, *, following: bool = True) -> AsyncIterator[Change]:
        """Inside another change it is a part of that one. Not ``following``: it is checked against nothing that another
        gateway may have changed, and so waits for none of that to come into force here."""
        if (outer := _under_way.get()) is not None:
            yield outer
            return
        async with self._changing:
            with one_change():
                if following:
                    await self._follow_others()
                change = Change()
                transaction = await self._store(self._stored.begin)
                mark = _under_way.set(change)
                try:
                    with transaction.joined():
                        if following:
                            await self._catch_up()
                        before = await self._latest_change()
                        yield change
                        latest = await self._latest_change()
                    end_rehearsal()
                    await self._store(transaction.commit)
                    if self._followed == before:
                        self._followed = latest
                except BaseException:
                    await asyncio.shield(self._take_back(transaction.rollback, change))
                    raise
                finally:
                    _under_way.reset(mark)

    async def _latest_change(self) -> int | None:
        """None where nobody else makes any."""
        return await self._store(self._stored.latest_change) if self._stored.is_shared else None

    async def _follow_others(self) -> None:
        """What other gateways on the same store have changed comes into force here. Where clients are given time to
        hear of it that takes seconds, in which nobody else is kept from the store."""
        if not self._stored.is_shared or await self._latest_change() == self._followed:
            return
        transaction = await self._store(self._stored.begin_reading)
        try:
            with transaction.joined():
                await self._catch_up()
        finally:
            await asyncio.shield(asyncio.to_thread(self._end_reading, transaction))

    def _end_reading(self, transaction: Transaction) -> None:
        """It is over like one that is stored, also if not all of it could be put in force: what could goes on."""
        with contextlib.suppress(StoreError):
            transaction.commit()
        transaction.committed = True  # a listener that was made in it asks the store for itself from now on

    async def _catch_up(self) -> None:
        """The same inside a transaction, so that it is whole and stays as it is meanwhile."""
        latest = await self._latest_change()
        if latest != self._followed:
            await self._follow()
            self._followed = latest

    async def _follow(self) -> None:
        await _done(self._gateway.follow(), "what another gateway has changed cannot be put in force here")

    async def _come_back(self) -> None:
        await _done(self._gateway.come_back(), "what was before a change that failed cannot be put back")

    async def _take_back(self, rollback: Callable[[], None], change: Change) -> None:
        try:
            await asyncio.to_thread(rollback)
        finally:
            try:
                await change.take_back()
            except GatewayError as error:
                self._followed = ASTRAY
                log.critical("what was in force before a change that failed cannot be put back yet: %s", error)

    async def _put_in_force(self, change: Change) -> None:
        """What the store says inside the change."""
        change.undo(self._gateway.refresh)
        try:
            await self._gateway.refresh()
        except GatewayError as error:
            raise OperationError(_code(error, "InvalidParameterValue"), str(error)) from error

    async def _store(self, change: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(change, *args, **kwargs)
        except StoreUnavailable as error:
            raise OperationError("Unavailable", str(error)) from error
        except StoreError as error:
            raise OperationError("InternalError", str(error)) from error

    @contextmanager
    def _shown_as(self, status: str, *what: str | None) -> Iterator[None]:
        """While it lasts, whoever looks at it sees that."""
        self._changing_to[what] = status
        try:
            yield
        finally:
            del self._changing_to[what]

    def _as_now(self, view: V, *what: str | None) -> V:
        found = self._changing_to.get(what)
        return view if found is None else replace(view, status=found)

    # -- endpoints by name or id ----------------------------------------------------------------------------

    def _endpoint(self, name_or_id: str) -> ServedEndpoint:
        endpoints = self._gateway.endpoints
        called = {each.settings.name: each for each in endpoints} | {each.id: each for each in endpoints}
        if (served := called.get(name_or_id)) is not None:  # an id, where that is somebody's name too
            return served
        known = ", ".join(e.settings.name for e in self._gateway.endpoints) or "none"
        raise OperationError("InvalidClientVpnEndpointId.NotFound", f"no endpoint {name_or_id}; there are: {known}")

    def _only_endpoint(self, name_or_id: str | None) -> ServedEndpoint:
        if name_or_id is not None:
            return self._endpoint(name_or_id)
        if len(self._gateway.endpoints) != 1:
            known = ", ".join(e.settings.name for e in self._gateway.endpoints)
            raise OperationError("MissingParameter", f"say which endpoint with --endpoint: {known}")
        return next(iter(self._gateway.endpoints))

    def _chosen(self, endpoint: str | None) -> list[ServedEndpoint]:
        return list(self._gateway.endpoints) if endpoint is None else [self._endpoint(endpoint)]

    async def _managed(self, name_or_id: str) -> tuple[ServedEndpoint, StoredEndpoint]:
        """One that may be changed. Raises ``OperationError`` for one that is the file's."""
        served = self._endpoint(name_or_id)
        if (why := self._gateway.set_aside.get(served.id)) is not None:
            raise OperationError("IncorrectState", f"it cannot be served here as it is; change it elsewhere: {why}")
        if not self._gateway.is_managed(served):
            raise OperationError(
                "IncorrectState",
                f"endpoint {served.settings.name} is declared in {self._gateway.config.path}; change it there, reload",
            )
        for stored in await self._store(self._stored.managed_endpoints):
            if stored.id == served.id:
                return served, stored
        raise OperationError("InternalError", f"endpoint {served.settings.name} is not in the store any more")


async def _done(step: Awaitable[None], problem: str) -> None:
    try:
        await step
    except GatewayError as error:
        raise OperationError(_code(error, "InternalError"), f"{problem}: {error}") from error


def _code(error: GatewayError, otherwise: str) -> str:
    return "Unavailable" if isinstance(error.__cause__, StoreUnavailable) else otherwise


def network(text: str) -> IPv4Network | IPv6Network:
    try:
        return parse_network(text)
    except ValueError as error:
        raise OperationError("InvalidParameterValue", str(error)) from None


def one_line(what: str, text: str) -> str:
    """Of people's words, or a directory's: it is shown in tables, logs and profiles. Raises ``OperationError``."""
    if len(text) > LONGEST_TEXT or any(c < " " or c == "\x7f" for c in text):
        raise OperationError(
            "InvalidParameterValue", f"{what} has at most {LONGEST_TEXT} characters, and is one line of text"
        )
    return text


def check_tags(tags: Mapping[str, str]) -> None:
    """All of a resource. Raises ``OperationError``."""
    for key, value in tags.items():
        if not 1 <= len(key) <= LONGEST_TAG[0] or len(value) > LONGEST_TAG[1]:
            raise OperationError(
                "InvalidParameterValue",
                f"tag {key[:40]!r}: a key has 1 to {LONGEST_TAG[0]} characters, a value at most {LONGEST_TAG[1]}",
            )
    if len(tags) > MOST_TAGS:
        raise OperationError("TagLimitExceeded", f"a resource has at most {MOST_TAGS} tags")
