"""Logins at the self-service pages by way of an endpoint's identity provider.

1. ``…/login`` sends the browser there, with a cookie of this login's own. Nothing is kept of those who go, who may be
   anybody: the relay state says itself what it is good for (``auth/saml/state.py``), under a key of this process.
2. The answer comes to the place where those of VPN logins come to, too. Relay state and request id are of one kind of
   login each, so that an answer for one is worth nothing for the other.
3. Whoever brings a good answer gets a ticket. The first browser that comes with it uses it up, and it is worth a
   session only to the one with the cookie: nobody is logged in by what another browser brought, in either direction.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from starlette.requests import Request
from starlette.responses import Response

from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.revoked_logins import LoginUnderWay
from cvpnd.auth.saml.model import Assertion, PendingRequest
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.saml.state import States, Visit, Visitor
from cvpnd.config import EndpointConfig
from cvpnd.portal.pages import redirect
from cvpnd.portal.sessions import SESSION_S, Session, Sessions
from cvpnd.reasons import PortalRefusal, Refusal

NO_CLIENT = "self-service"
"""In the place of a client certificate's fingerprint."""
COME_AGAIN = {
    Refusal.DATABASE_UNAVAILABLE: PortalRefusal.DATABASE_UNAVAILABLE,
    Refusal.LOGIN_THROTTLED: PortalRefusal.TOO_MANY_REQUESTS,
    Refusal.TOO_MANY_LOGINS: PortalRefusal.TOO_MANY_REQUESTS,
}
"""What people are told to come again for, whichever way they log in; and as what the portal counts that."""


class SignOnDesk(Protocol):
    """What these logins ask of the gateway."""

    def federated(self) -> Iterable[EndpointConfig]:
        """Endpoints that have these pages and an identity provider."""
        ...

    def provider(self, endpoint: EndpointConfig) -> SamlProvider | Refused: ...

    async def accept(
        self, provider: SamlProvider, response: str, request: PendingRequest, *, host: str
    ) -> Assertion | Refused:
        """Whom the response lets in; once."""
        ...

    def vouched(self, provider: SamlProvider, assertion: Assertion) -> Account: ...

    def begin(self, endpoint_id: str, ago_s: float = 0.0) -> LoginUnderWay:
        """A login, so many seconds ago."""
        ...


class Departed(NamedTuple):
    """Somebody who was sent to the identity provider, as their relay state says."""

    endpoint: EndpointConfig
    visit: Visit


class SignOn:
    """On the event loop's thread only."""

    def __init__(
        self,
        desk: SignOnDesk,
        acs_url: str,
        refuse: Callable[[Request, PortalRefusal, str], Response],
        clock: Callable[[], float],
    ) -> None:
        """``acs_url``: where identity providers send their answers."""
        self._desk = desk
        self._acs_url = acs_url
        self._refuse = refuse
        self._clock = clock
        self._states = States(secrets.token_bytes(32))
        self._cookie_key = secrets.token_bytes(32)
        self._tickets = Sessions()
        """Of people who have proven who they are; each becomes a session of the pages."""

    async def leave(self, request: Request, endpoint: EndpointConfig) -> Response:
        provider = self._desk.provider(endpoint)
        if isinstance(provider, Refused):
            return self._refuse_login(request, endpoint, provider)
        relay_state, request_id = self._states.new(_visitor(endpoint), 0, self._clock())
        _, url = await asyncio.to_thread(  # the first one loads pysaml2
            provider.begin, time.time(), self._acs_url, request_id=request_id, relay_state=relay_state
        )
        answer = redirect(url)
        answer.set_cookie(
            _cookie_name(request_id),
            self._cookie(request_id),
            max_age=int(provider.login_time_s),
            secure=True,
            httponly=True,
            samesite="lax",  # it comes along with the redirect to the ticket, not with the foreign form before
        )
        return answer

    def departed(self, relay_state: str) -> Departed | None:
        """None: it is not of a login here, or the endpoint has another identity provider now, or no pages."""
        for endpoint in self._desk.federated():
            if (visit := self._states.read(relay_state, _visitor(endpoint))) is not None:
                return Departed(endpoint, visit)
        return None

    async def come_back(self, request: Request, departed: Departed, response: str, host: str) -> str | Response:
        """With the identity provider's answer. The ticket, or a refusal."""
        endpoint, visit = departed
        provider = self._desk.provider(endpoint)
        if isinstance(provider, Refused):
            return self._refuse_login(request, endpoint, provider)
        login = self._desk.begin(endpoint.id, self._clock() - visit.made_at)
        asked = visit.request(self._acs_url, provider.login_time_s, steady=self._clock(), wall=time.time())
        assertion = await self._desk.accept(provider, response, asked, host=host)
        if isinstance(assertion, Refused):
            return self._refuse_login(request, endpoint, assertion)
        account, now, lasts_s = self._desk.vouched(provider, assertion), self._clock(), SESSION_S
        if assertion.session_ends_at is not None:
            lasts_s = min(lasts_s, assertion.session_ends_at - time.time())
        return self._tickets.open(
            Session(endpoint.id, endpoint.methods, account.name, account, now + lasts_s, login, asked.id), now
        )

    def redeem(self, request: Request, endpoint: EndpointConfig, ticket: str) -> Session | PortalRefusal:
        session = self._tickets.find(ticket, endpoint.id, self._clock())
        if session is None:
            return PortalRefusal.SESSION_UNKNOWN
        self._tickets.close(ticket)
        theirs = request.cookies.get(_cookie_name(session.request_id), "")
        if not hmac.compare_digest(self._cookie(session.request_id).encode(), theirs.encode("utf-8", "surrogatepass")):
            return PortalRefusal.BROWSER_MISMATCH
        return session

    def forget(self, answer: Response, session: Session) -> None:
        """The login's own cookie has done its work."""
        answer.delete_cookie(_cookie_name(session.request_id), secure=True, httponly=True, samesite="lax")

    def _cookie(self, request_id: str) -> str:
        return hmac.new(self._cookie_key, request_id.encode(), hashlib.sha256).hexdigest()

    def _refuse_login(self, request: Request, endpoint: EndpointConfig, refused: Refused) -> Response:
        detail = f"at {endpoint.name}: {refused.refusal}: {refused.detail[:200]!r}"
        return self._refuse(request, COME_AGAIN.get(refused.refusal, PortalRefusal.LOGIN_REFUSED), detail)


def _visitor(endpoint: EndpointConfig) -> Visitor:
    method = endpoint.user_method
    provider = None if method is None else method.provider_of_pages
    return Visitor(endpoint.id, provider or "", NO_CLIENT, "")


def _cookie_name(request_id: str) -> str:
    """Several logins may be under way in one browser."""
    return f"__Host-sign-on-{hashlib.sha256(request_id.encode()).hexdigest()[:16]}"
