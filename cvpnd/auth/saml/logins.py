"""Logins by SAML from the event loop: bounded in number, in time, and in how often anything counts.

Looking at a response takes a tenth of a second of a thread and two short-lived programs, so few threads do it and
whoever comes when too many wait is told to come again. A request is used up by the first response to it, good or not,
and an assertion by the first login: the store remembers both until they would be refused anyway, so that neither counts
twice on any gateway and after any restart."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol
from urllib.parse import unquote

from cvpnd.auth.challenge import Challenged, split_dynamic
from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.metadata import key_of
from cvpnd.auth.saml.model import Assertion, PendingRequest
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.saml.quoting import is_dear
from cvpnd.auth.saml.state import States, Visitor
from cvpnd.ops.histogram import Histogram
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret

log = logging.getLogger(__name__)

THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))
MOST_PENDING = 256
MOST_PENDING_OF_SOURCE = 64
BOUNDS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
NOBODY = "N/A"
"""What AWS's client has for a user name."""
FIRST = "ACS::"


class LoginRecord(Protocol):
    """Somebody who has logged in, as the store has it."""

    @property
    def username(self) -> str: ...
    @property
    def groups(self) -> tuple[str, ...]: ...


class Records(Protocol):
    """Where it is remembered (``store``). Called from threads; raises if it cannot tell, and then nobody gets in."""

    def spend_saml(self, key: str, until: float, now: float) -> bool:
        """False: it has been spent before. Times are those of the steady clock."""
        ...

    def remember_saml_login(
        self, login_id: str, provider: str, username: str, groups: tuple[str, ...], until: float, now: float
    ) -> None: ...

    def saml_login(self, login_id: str, provider: str, now: float) -> LoginRecord | None: ...


class Brought(NamedTuple):
    """What a client came back with."""

    provider: SamlProvider
    response: str
    request: PendingRequest
    left_at: float
    """When it was sent away, on the steady clock."""


class SamlLogins:
    """On the event loop's thread only."""

    def __init__(
        self,
        records: Records,
        key: bytes,
        steady: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        unavailable: type[Exception] = OSError,
    ) -> None:
        """``key``: of state ids. ``clock``: the wall clock, by which identity providers say when an answer is good.
        What was used is remembered by the steady one. ``unavailable``: what ``records`` raise while they cannot be
        asked."""
        self._records = records
        self._unavailable = unavailable
        self._states = States(key)
        self._steady = steady
        self._clock = clock
        self._providers: dict[str, SamlProvider] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="saml")
        self._pending = 0
        self._waiting: Counter[str] = Counter()
        self._responses: dict[str, tuple[Histogram, Counter[str]]] = {}

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def replace(self, providers: Mapping[str, SamlProvider]) -> None:
        """By id. An answer is judged by the keys of the moment in which it comes, whenever it was asked for: a key may
        have been withdrawn because somebody else has it."""
        self._providers = dict(providers)
        self._responses = {name: of_it for name, of_it in self._responses.items() if name in providers}

    def responses(self, provider_id: str) -> tuple[Histogram, Counter[str]]:
        """How long they took, and what became of them: "accepted", or a ``Refusal``."""
        return self._responses.setdefault(provider_id, (Histogram(BOUNDS_S), Counter()))

    @property
    def pending(self) -> int:
        return self._pending

    def provider(self, provider_id: str) -> SamlProvider | Refused:
        """Refused: its metadata could not be had so far, or has expired."""
        provider = self._providers.get(provider_id)
        if provider is None:
            return Refused(Refusal.SAML_UNAVAILABLE, f"there is no metadata of SAML provider {provider_id} yet")
        if provider.idp.expired(self._clock()):
            return Refused(Refusal.SAML_METADATA_EXPIRED, f"the metadata of SAML provider {provider_id} has expired")
        return provider

    def disowned(self, provider_id: str, assertion: Assertion) -> Refused | None:
        """Why an assertion that was accepted before lets nobody in any more, as when a person consented late: its
        provider is gone or another, or a key that signed it was withdrawn. What else changed there is no matter."""
        provider = self.provider(provider_id)
        if isinstance(provider, Refused):
            return provider
        idp = provider.idp
        if assertion.issuer != idp.entity_id:
            return Refused(Refusal.SAML_WRONG_ISSUER, f"{assertion.issuer} was replaced during the login")
        if not assertion.signed_by or not assertion.signed_by <= set(map(key_of, idp.certificates)):
            return Refused(Refusal.SAML_SIGNATURE_INVALID, f"a key of {idp.entity_id} was withdrawn during the login")
        return None

    # -- any flow -------------------------------------------------------------------------------------------

    async def accept(
        self, provider: SamlProvider, response: str, request: PendingRequest, *, source: str, within_s: float
    ) -> Assertion | Refused:
        """Whom the response lets in. Uses up the request. ``source``: what counts as one place that they come from."""
        begun = time.monotonic()
        latency, results = self.responses(provider.id)
        if self._pending >= MOST_PENDING or self._waiting[source] >= MOST_PENDING_OF_SOURCE:
            results[Refusal.TOO_MANY_LOGINS] += 1
            return Refused(Refusal.TOO_MANY_LOGINS, f"{self._pending} responses are being looked at")
        self._pending += 1
        self._waiting[source] += 1
        asked = asyncio.wrap_future(self._threads.submit(self._accept, provider, response, request))

        def leave(done: asyncio.Future[Assertion | Refused]) -> None:  # not before the thread is free again
            latency.add(time.monotonic() - begun)
            results[_result(done)] += 1
            self._leave(done, source)

        asked.add_done_callback(leave)
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.shield(asked)
        except TimeoutError:
            return Refused(Refusal.TOO_MANY_LOGINS, f"not looked at within {within_s:g} s")

    def _leave(self, done: asyncio.Future[Assertion | Refused], source: str) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("a response cannot be looked at", exc_info=error)
        self._pending -= 1
        self._waiting[source] -= 1
        if not self._waiting[source]:
            del self._waiting[source]

    def _accept(self, provider: SamlProvider, response: str, request: PendingRequest) -> Assertion | Refused:
        try:
            return self._judge(provider, response, request)
        except self._unavailable as error:
            return Refused(Refusal.DATABASE_UNAVAILABLE, str(error))

    def _judge(self, provider: SamlProvider, response: str, request: PendingRequest) -> Assertion | Refused:
        now = self._clock()
        if now >= request.good_until:
            return Refused(Refusal.SAML_REQUEST_EXPIRED, f"{now - request.good_until:.0f} s too late")
        if not self._spend(f"request {request.id}", request.good_until - now):
            return Refused(Refusal.SAML_REQUEST_USED, "there was a response to this request before")
        answer = provider.accept(response, request, now)
        if isinstance(answer, Refused):
            return answer
        if not self._spend(f"assertion {provider.idp.entity_id} {answer.id}", answer.expires_at - self._clock()):
            return Refused(Refusal.SAML_REPLAYED, f"assertion {answer.id} has let somebody in before")
        return answer

    def _spend(self, key: str, good_for_s: float) -> bool:
        now = self._steady()
        return self._records.spend_saml(key, now + good_for_s, now)

    async def remember(self, login_id: bytes, provider: SamlProvider, account: Account, until: float) -> None:
        """For whoever comes back with the token of this login."""
        groups = tuple(sorted(account.groups))
        await asyncio.to_thread(
            self._records.remember_saml_login,
            login_id.hex(), _source_of(provider), account.name, groups, until, self._clock(),
        )  # fmt: skip

    async def recall(self, login_id: bytes, provider_id: str) -> tuple[Account, SamlProvider] | None:
        """As the identity provider described them then: it cannot be asked again without a browser. What it said is
        worth nothing once another one stands under its id, or none."""
        provider = self._providers.get(provider_id)
        if provider is None:
            return None
        found = await asyncio.to_thread(self._records.saml_login, login_id.hex(), _source_of(provider), self._clock())
        return None if found is None else (Account(found.username, frozenset(found.groups)), provider)

    def replaced(self, vouched: SamlProvider) -> bool:
        """Whether another identity provider stands under the id of the one that vouched for somebody. One whose
        metadata cannot be had is none."""
        now = self._providers.get(vouched.id)
        return now is not None and now.idp.entity_id != vouched.idp.entity_id

    # -- AWS's client (openvpn-wire.md section 17) ------------------------------------------------------------

    def send_away(self, visitor: Visitor, password: str) -> Challenged | Refused:
        """The first connection: ``password`` says at which port its browser is listened for."""
        provider = self.provider(visitor.provider)
        if isinstance(provider, Refused):
            return provider
        digits = password.removeprefix(FIRST)
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 65_535):
            return Refused(Refusal.CHALLENGE_UNEXPECTED, f"{digits[:20]!r} is no port")
        state, request_id = self._states.new(visitor, int(digits), self._steady())
        _, url = provider.begin(self._clock(), _acs_url(int(digits)), request_id=request_id)
        nobody = base64.b64encode(NOBODY.encode()).decode()
        return Challenged(
            Refusal.WAITING_FOR_ASSERTION,
            f"{request_id} asked of {provider.idp.entity_id}",
            f"CRV1:R:{state}:{nobody}:{url}",
        )

    def taken_back(self, visitor: Visitor, password: Secret) -> Brought | Refused:
        """The second connection, from wherever to whichever gateway: what ``accept`` is to be asked."""
        provider = self.provider(visitor.provider)
        if isinstance(provider, Refused):
            return provider
        parts = split_dynamic(password)
        visit = None if parts is None else self._states.read(parts[0], visitor)
        if parts is None or visit is None:
            return Refused(
                Refusal.SAML_REQUEST_UNKNOWN, "its state id is none of ours, or of another endpoint or certificate"
            )
        if not visit.same_source:
            return Refused(Refusal.SAML_OTHER_ADDRESS, "its state id was given to another address")
        if is_dear(quoted := parts[1].text()):
            return Refused(Refusal.SAML_MALFORMED, "not percent-encoded as base64 is")
        request = visit.request(_acs_url(visit.port), provider.login_time_s, steady=self._steady(), wall=self._clock())
        return Brought(provider, unquote(quoted), request, visit.made_at)


def _result(done: asyncio.Future[Assertion | Refused]) -> str:
    if done.cancelled() or done.exception() is not None:
        return Refusal.INTERNAL_ERROR
    answer = done.result()
    return answer.refusal if isinstance(answer, Refused) else "accepted"


def _source_of(provider: SamlProvider) -> str:
    """Whose word a login is. Keys are not in it: identity providers change them, and go on being who they are."""
    return f"{provider.id} {provider.idp.entity_id}"


def _acs_url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
