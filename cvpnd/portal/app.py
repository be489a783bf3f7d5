"""The portal's pages; see the room's text for their order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.logins import SamlLogins
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.web_logins import LOGIN_PATH, WebLogin, WebLogins
from cvpnd.config import PortalConfig
from cvpnd.config.portal import SELF_SERVICE_PATH
from cvpnd.ops.logs import RateLimited
from cvpnd.portal.pages import HEADERS, message, page, redirect
from cvpnd.portal.requests import Malformed, SourceRate, is_click, read_form
from cvpnd.portal.self_service import Desk, SelfService
from cvpnd.portal.sign_on import COME_AGAIN
from cvpnd.reasons import PortalRefusal
from cvpnd.server.admission import prefixes
from cvpnd.server.memory import Reserve, Share

log = logging.getLogger(__name__)
_warn = RateLimited(log)

ACS_PATH = "/saml/acs"
CONSENT_PATH = "/saml/consent/"
LONGEST_ANSWER = 262_144
"""A form with a response of 128 kB, in base64 and with some of that percent-encoded."""
LONGEST_CONSENT = 1024
AGAIN = "Close this page and start the connection again on your device."
TEXTS = {
    PortalRefusal.LINK_UNKNOWN: (404, "This link is over", f"It is good for one login and a few minutes. {AGAIN}"),
    PortalRefusal.LINK_USED: (409, "This link was used", f"A login takes it once. {AGAIN}"),
    PortalRefusal.BROWSER_MISMATCH: (
        403, "This login belongs to another browser",
        "If somebody sent you here, they want to connect a device of theirs in your name: tell your administrator. "
        f"If not: {AGAIN[0].lower()}{AGAIN[1:]}",
    ),
    PortalRefusal.RELAY_STATE_UNKNOWN: (403, "Nobody waits for this login", AGAIN),
    PortalRefusal.ASSERTION_REFUSED: (
        403, "This login was refused",
        "What your identity provider says of you is not accepted here. Start the connection again on your device; "
        "if that does not help, your administrator finds the reason in the gateway's connection log.",
    ),
    PortalRefusal.CONSENT_FORGED: (403, "This answer did not come from our page", AGAIN),
    PortalRefusal.FORM_FORGED: (
        403, "This form is not ours, or too old", "Open the page again, and allow cookies for it.",
    ),
    PortalRefusal.SESSION_UNKNOWN: (403, "You are not logged in", "Open the page again and log in."),
    PortalRefusal.SELF_SERVICE_UNKNOWN: (404, "Nothing here", "Ask your administrator for the right address."),
    PortalRefusal.LOGIN_REFUSED: (403, "You are not logged in", "Open the page again and log in."),
    PortalRefusal.DATABASE_UNAVAILABLE: (503, "Nobody can log in now", f"Wait some minutes. {AGAIN}"),
    PortalRefusal.REQUEST_MALFORMED: (400, "This request cannot be understood", AGAIN),
    PortalRefusal.REQUEST_TOO_LARGE: (413, "This request is too large", AGAIN),
    PortalRefusal.REQUEST_TOO_SLOW: (408, "This request took too long", AGAIN),
    PortalRefusal.TOO_MANY_REQUESTS: (429, "Too many requests", "Wait a minute and try again."),
}  # fmt: skip
_ANEW = "Close this page, open the one for your VPN's profile again, and log in there."
LAST_OF_CONNECTION = {
    PortalRefusal.REQUEST_MALFORMED,
    PortalRefusal.REQUEST_TOO_LARGE,
    PortalRefusal.REQUEST_TOO_SLOW,
    PortalRefusal.TOO_MANY_REQUESTS,
}
"""The rest of it is not read, or nobody knows where it ends; or who sends a thousand requests at once would have us
refuse each of them."""
SELF_SERVICE_ADVICE = {
    PortalRefusal.DATABASE_UNAVAILABLE: f"Wait some minutes. {_ANEW}",
    PortalRefusal.BROWSER_MISMATCH: f"If somebody sent you here, tell your administrator. If not: {_ANEW[0].lower()}"
    f"{_ANEW[1:]}",
    PortalRefusal.REQUEST_MALFORMED: _ANEW,
    PortalRefusal.REQUEST_TOO_LARGE: _ANEW,
    PortalRefusal.REQUEST_TOO_SLOW: _ANEW,
}
"""There no device waits."""


class Portal:
    """An ASGI application. ``refusals`` counts what it said no to."""

    def __init__(
        self,
        config: PortalConfig,
        logins: WebLogins,
        saml: Callable[[], SamlLogins | None],
        clock: Callable[[], float] = time.monotonic,
        desk: Desk | None = None,
    ) -> None:
        """``desk``: of the self-service pages; None: there are none."""
        assert config.url is not None  # noqa: S101 - a portal that listens has one
        self.refusals: Counter[PortalRefusal] = Counter()
        self._url = config.url
        self._logins = logins
        self._saml = saml
        self._clock = clock
        self._rate = SourceRate(config.requests_per_source_per_min, clock)
        self._reserve = Reserve()
        """For answers that are being read: whoever sends one has proven nothing yet."""
        self.self_service = (
            None if desk is None else SelfService(desk, self._url + ACS_PATH, self._is_own_form, self._refuse, clock)
        )
        nothing = self._guard(self._nothing)

        async def wrong_method(request: Request, _error: Exception) -> Response:
            return await nothing(request)

        self._app = Starlette(
            routes=[
                Route(LOGIN_PATH + "{secret}", self._guard(self._login), methods=["GET"]),
                Route(ACS_PATH, self._guard(self._answer), methods=["POST"]),
                Route(CONSENT_PATH + "{ticket}", self._guard(self._consent), methods=["GET", "POST"]),
                *(() if self.self_service is None else self.self_service.routes(self._guard)),
                Route("/{path:path}", nothing),
            ],
            exception_handlers={HTTPException: wrong_method},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    # -- the pages ----------------------------------------------------------------------------------------

    async def _login(self, request: Request) -> Response:
        if not is_click(request):  # nothing else may use the link up
            return Response(status_code=405, headers=HEADERS)
        login = self._logins.find(request.path_params["secret"], request.cookies, self._clock())
        if isinstance(login, PortalRefusal):
            return self._refuse(request, login)
        relay_state = self._logins.open(login)
        _, provider = self._provider_of(login)
        if isinstance(provider, Refused):
            return self._refuse_login(request, login, provider)
        asked, url = await asyncio.to_thread(  # the first one loads pysaml2
            provider.begin, time.time(), self._url + ACS_PATH, relay_state=relay_state
        )
        if not self._logins.ask(login, relay_state, asked):
            return self._refuse(request, PortalRefusal.LINK_USED)
        answer = redirect(url)
        answer.set_cookie(
            login.cookie,
            login.browser,
            max_age=max(1, int(login.until - self._clock())),
            secure=True,
            httponly=True,
            samesite="lax",  # it comes along with the redirect to the consent page, not with the foreign form before
        )
        return answer

    async def _answer(self, request: Request) -> Response:
        memory = Share(self._reserve, prefixes(_host(request))[0])
        try:
            fields = await read_form(request, LONGEST_ANSWER, memory.hold)
        finally:
            memory.close()
        relay_state, response = fields.get("RelayState", ""), fields.get("SAMLResponse", "")
        if self.self_service is not None:
            theirs = await self.self_service.come_back(request, relay_state, response)
            if theirs is not None:
                return theirs
        login = self._logins.check(relay_state, self._clock())
        if isinstance(login, PortalRefusal):
            return self._refuse(request, login)
        saml, provider = self._provider_of(login)
        if isinstance(provider, Refused):
            return self._refuse_login(request, login, provider)
        assert login.request is not None  # noqa: S101 - check() has looked
        assertion = await saml.accept(
            provider,
            response,
            login.request,
            source=prefixes(_host(request))[0],
            within_s=max(0.0, login.until - self._clock()),
        )
        if isinstance(assertion, Refused):
            return self._refuse_login(request, login, assertion)
        ticket = self._logins.prove(login, assertion)
        if ticket is None:
            return self._refuse(request, PortalRefusal.LINK_UNKNOWN)
        return redirect(f"{self._url}{CONSENT_PATH}{ticket}")

    async def _consent(self, request: Request) -> Response:
        login = self._logins.proven(request.path_params["ticket"], request.cookies, self._clock())
        if isinstance(login, PortalRefusal):
            return self._refuse(request, login)
        assert login.assertion is not None  # noqa: S101 - that is what proven means
        assertion, account = login.assertion, login.assertion.name
        if request.method != "POST":
            return page(
                "consent",
                account=account,
                full_name=f"{login.assertion.first_name} {login.assertion.last_name}".strip(),
                waiting=login.waiting,
                elsewhere=_elsewhere(_host(request), login.waiting.address),
                consent=login.consent,
            )
        fields = await read_form(request, LONGEST_CONSENT)
        if not self._is_own_form(request):
            return self._refuse(request, PortalRefusal.CONSENT_FORGED)
        allowed = {"allow": True, "deny": False}.get(fields.get("decision", ""))
        saml, _ = self._provider_of(login)
        refused = saml.disowned(login.provider, assertion) if allowed else None
        if allowed is None or not self._logins.decide(login, fields.get("consent", ""), allowed, refused):
            return self._refuse(request, PortalRefusal.CONSENT_FORGED)
        if refused is not None:
            return self._refuse_login(request, login, refused)
        log.info(
            "%s: %s %s the login in a browser at %s",
            login.connection_id, account, "confirmed" if allowed else "declined", _host(request),
        )  # fmt: skip
        if allowed:
            answer = message("Connected", "The device goes on by itself. You can close this page.")
        else:
            answer = message(
                "Not connected",
                "The device was refused. If somebody sent you a link, tell your administrator. "
                "You can close this page.",
            )
        answer.delete_cookie(login.cookie, secure=True, httponly=True, samesite="lax")
        return answer

    async def _nothing(self, _request: Request) -> Response:
        return message("Nothing here", "Start the connection on your device: it opens the right page.", 404)

    # -- around them --------------------------------------------------------------------------------------

    def _provider_of(self, login: WebLogin) -> tuple[SamlLogins, SamlProvider | Refused]:
        saml = self._saml()
        assert saml is not None  # noqa: S101 - there is one as long as somebody waits for it
        return saml, saml.provider(login.provider)

    def _refuse_login(self, request: Request, login: WebLogin, refused: Refused) -> Response:
        """The identity provider's answer lets nobody in: the client hears no, and the log why."""
        self._logins.end(login, refused)
        word = COME_AGAIN.get(refused.refusal, PortalRefusal.ASSERTION_REFUSED)
        return self._refuse(request, word, f"{refused.refusal}: {refused.detail}")

    def _is_own_form(self, request: Request) -> bool:
        """Browsers say where a form was; the word in it is what counts, and this comes on top."""
        site = request.headers.get("sec-fetch-site", "same-origin")
        return request.headers.get("origin", self._url) == self._url and site == "same-origin"

    def _guard(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if not self._rate.take(_host(request)):
                return self._refuse(request, PortalRefusal.TOO_MANY_REQUESTS)
            try:
                return await handler(request)
            except Malformed as error:
                return self._refuse(request, error.refusal)
            except Exception:
                log.exception("the portal cannot answer %s", request.scope["path"].partition("/saml/")[1] or "/")
                pages = request.scope["path"].startswith(SELF_SERVICE_PATH)
                return message("Something went wrong here", _ANEW if pages else AGAIN, 500)

        return guarded

    def _refuse(self, request: Request, refusal: PortalRefusal, detail: str = "") -> Response:
        self.refusals[refusal] += 1
        _warn.warning(refusal, "portal: %s from %s %s", refusal, _host(request), detail)
        status, title, advice = TEXTS[refusal]
        if request.scope["path"].startswith(SELF_SERVICE_PATH):
            advice = SELF_SERVICE_ADVICE.get(refusal, advice)
        answer = message(title, advice, status)
        if refusal in LAST_OF_CONNECTION:
            answer.headers["Connection"] = "close"
        return answer


def _host(request: Request) -> str:
    assert request.client is not None  # noqa: S101 - it came over TCP
    return request.client.host


def _elsewhere(browser: str, device: str) -> str:
    """The browser's address if it is another one; nothing can be told of one that uses IPv4 and one that uses IPv6."""
    one_family = (":" in browser) is (":" in device)
    return browser if one_family and prefixes(browser)[0] != prefixes(device)[0] else ""
