"""The self-service pages: a person logs in, here or at the endpoint's identity provider (``sign_on.py``), and downloads
the profile of an endpoint.

Every form carries a word that belongs to the browser's cookie, the login form too, so that nobody is logged in as
somebody else; a login gets a new cookie. A profile holds nothing that is the person's own, but the key that all clients
of an endpoint share may be in it: it is for those who may log in there and nobody else. An endpoint without these pages
and one that does not exist look alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cvpnd.auth.challenge import Asked
from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.revoked_logins import LoginUnderWay
from cvpnd.config import EndpointConfig
from cvpnd.config.portal import SELF_SERVICE_PATH as PATH
from cvpnd.portal.pages import HEADERS, page, redirect
from cvpnd.portal.requests import is_click, read_form
from cvpnd.portal.sessions import ASKED_S, SESSION_S, Session, Sessions, is_cookie, new_cookie
from cvpnd.portal.sign_on import COME_AGAIN, SignOn, SignOnDesk
from cvpnd.reasons import PortalRefusal, Refusal
from cvpnd.secret import Secret

log = logging.getLogger(__name__)

LONGEST_FORM = 4096
COOKIE = "__Host-self-service-"
"""And the endpoint's id. Browsers take this prefix only over https, for this host alone and without a Domain."""
WRONG = "This did not work. Look at the user name, the password and the code, and try again."
LATER = "The login service takes no more logins at this moment. Try again later."
PASSES_BY_ITSELF = COME_AGAIN.keys() | {
    Refusal.DIRECTORY_TIMEOUT,
    Refusal.DIRECTORY_UNAVAILABLE,
    Refusal.RADIUS_UNAVAILABLE,
    Refusal.RADIUS_UNVERIFIED,
    Refusal.SHUTTING_DOWN,
}
"""Of logins with a password; for any other reason people hear ``WRONG``."""


class Download(NamedTuple):
    kind: str
    title: str
    how: str


DOWNLOADS = (
    Download("openvpn", "OpenVPN (Linux, Windows)", "On Linux: sudo openvpn --config, and the file; or cvpn-connect, "
             "and the file, which asks for password and code. On Windows: import the file into OpenVPN GUI by its icon "
             "in the task bar, then Connect."),
    Download("connect", "OpenVPN Connect (phones, Windows, macOS)", "Open the file with OpenVPN Connect, or upload it "
             "there under Add profile, then switch it on."),
    Download("tunnelblick", "Tunnelblick (macOS)", "Open the file: Tunnelblick installs it. Then choose it from the "
             "icon in the menu bar."),
    Download("networkmanager", "NetworkManager (Linux)", "Settings, Network, VPN, import from a file; or "
             "nmcli connection import type openvpn file, and the file."),
    Download("aws", "AWS VPN Client", "File, Manage profiles, Add profile: choose the file, then Connect."),
)  # fmt: skip
SIGN_ON_DOWNLOADS = (
    Download("openvpn", "OpenVPN (Linux, Windows)", "On Linux: cvpn-connect, and the file; it opens your browser. On "
             "Windows: import the file into OpenVPN GUI by its icon in the task bar, then Connect."),
    *(download for download in DOWNLOADS if download.kind not in ("openvpn", "networkmanager")),
)  # fmt: skip
"""For programs that open a browser."""


class Desk(SignOnDesk, Protocol):
    """What the pages ask of the gateway."""

    def find(self, endpoint_id: str) -> EndpointConfig | None:
        """None: it does not exist, or has no self-service."""
        ...

    async def log_in(
        self, login: LoginUnderWay, username: str, password: Secret, *, host: str
    ) -> Account | Refused: ...

    def still_lets_in(self, login: LoginUnderWay, account: Account) -> bool: ...

    async def profile(self, endpoint_id: str, account: Account, kind: str) -> str | None:
        """None: it cannot be made, and the log says why."""
        ...

    def handed_out(self, endpoint_id: str) -> None:
        """A profile."""
        ...


class SelfService:
    def __init__(
        self,
        desk: Desk,
        acs_url: str,
        is_own_form: Callable[[Request], bool],
        refuse: Callable[[Request, PortalRefusal, str], Response],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._is_own_form = is_own_form
        self._refuse = refuse
        self._clock = clock
        self._sessions = Sessions()
        self.sign_on = SignOn(desk, acs_url, refuse, clock)

    def routes(self, guard: Callable[[Callable[[Request], Awaitable[Response]]], Callable[..., object]]) -> list[Route]:
        place = PATH + "{id}"
        return [
            Route(place, guard(self._start), methods=["GET"]),
            Route(place + "/login", guard(self._log_in), methods=["POST"]),
            Route(place + "/login", guard(self._sign_on), methods=["GET"]),
            Route(place + "/signed-on/{ticket}", guard(self._signed_on), methods=["GET"]),
            Route(place + "/code", guard(self._answer), methods=["POST"]),
            Route(place + "/logout", guard(self._log_out), methods=["POST"]),
            Route(place + "/profile/{kind}", guard(self._download), methods=["GET"]),
        ]

    # -- the pages ----------------------------------------------------------------------------------------

    async def _start(self, request: Request) -> Response:
        endpoint = self._desk.find(request.path_params["id"])
        if endpoint is None:
            return self._refuse(request, PortalRefusal.SELF_SERVICE_UNKNOWN, "")
        session = self._session(request, endpoint)
        if session is None and _is_federated(endpoint):
            return page("sign_on", endpoint=endpoint, place=PATH + endpoint.id)
        if session is None:
            return self._login_page(request, endpoint)
        if isinstance(session.proof, Asked):
            return self._code_page(request, endpoint, session.proof)
        return page(
            "self_service",
            endpoint=endpoint,
            account=session.proof.name,
            downloads=_downloads(endpoint),
            federated=_is_federated(endpoint),
            place=PATH + endpoint.id,
            word=self._sessions.form_word(_cookie(request, endpoint), endpoint.id),
        )

    async def _sign_on(self, request: Request) -> Response:
        """A link and not a form, because a page of ours may send forms nowhere else. Being sent to log in as oneself
        does nobody harm."""
        if not is_click(request):
            return Response(status_code=405, headers=HEADERS)
        endpoint = self._desk.find(request.path_params["id"])
        if endpoint is None or not _is_federated(endpoint):
            return self._refuse(request, PortalRefusal.SELF_SERVICE_UNKNOWN, "")
        return await self.sign_on.leave(request, endpoint)

    async def come_back(self, request: Request, relay_state: str, response: str) -> Response | None:
        """From an identity provider. None: not to these pages."""
        departed = self.sign_on.departed(relay_state)
        if departed is None:
            return None
        ticket = await self.sign_on.come_back(request, departed, response, _host(request))
        if isinstance(ticket, Response):
            return ticket
        return redirect(f"{PATH}{departed.endpoint.id}/signed-on/{ticket}")

    async def _signed_on(self, request: Request) -> Response:
        if not is_click(request):
            return Response(status_code=405, headers=HEADERS)
        endpoint = self._desk.find(request.path_params["id"])
        if endpoint is None:
            return self._refuse(request, PortalRefusal.SELF_SERVICE_UNKNOWN, "")
        session = self.sign_on.redeem(request, endpoint, request.path_params["ticket"])
        if isinstance(session, PortalRefusal):
            return self._refuse(request, session, f"at {endpoint.name}")
        cookie = self._sessions.open(session, self._clock())
        log.info("self-service: %s logged in at %s from %s", session.username, endpoint.name, _host(request))
        place = PATH + endpoint.id
        # no redirect: it would still be the identity provider's navigation, along with which no strict cookie comes
        answer = page("signed_on", headers={"Refresh": f"0; url={place}"}, endpoint=endpoint, place=place)
        self.sign_on.forget(answer, session)
        return _with_cookie(answer, endpoint, cookie)

    async def _log_in(self, request: Request) -> Response:
        endpoint = self._desk.find(request.path_params["id"])
        if endpoint is None or _is_federated(endpoint):
            return self._refuse(request, PortalRefusal.SELF_SERVICE_UNKNOWN, "")
        fields = await self._form(request, endpoint)
        if fields is None:
            return self._refuse(request, PortalRefusal.FORM_FORGED, "")
        return await self._judge(
            request,
            endpoint,
            self._desk.begin(endpoint.id),
            fields.get("username", ""),
            Secret.of_text(fields.get("password", "")),
        )

    async def _answer(self, request: Request) -> Response:
        endpoint = self._desk.find(request.path_params["id"])
        if endpoint is None:
            return self._refuse(request, PortalRefusal.SELF_SERVICE_UNKNOWN, "")
        fields = await self._form(request, endpoint)
        if fields is None:
            return self._refuse(request, PortalRefusal.FORM_FORGED, "")
        session = self._session(request, endpoint)
        if session is None or not isinstance(session.proof, Asked):
            return self._refuse(request, PortalRefusal.SESSION_UNKNOWN, "")
        self._sessions.close(_cookie(request, endpoint))  # one answer to each question, also of two at once
        return await self._judge(
            request,
            endpoint,
            session.login,
            session.username,
            session.proof.answered(Secret.of_text(fields.get("code", ""))),
        )

    async def _judge(
        self, request: Request, endpoint: EndpointConfig, login: LoginUnderWay, username: str, password: Secret
    ) -> Response:
        host = _host(request)
        answer = await self._desk.log_in(login, username, password, host=host)
        if isinstance(answer, Refused) and not isinstance(answer, Asked):
            self._refuse(request, PortalRefusal.LOGIN_REFUSED, f"at {endpoint.name}: {answer.refusal}: "
                         f"{answer.detail[:200]!r}")  # fmt: skip
            return self._login_page(request, endpoint, LATER if answer.refusal in PASSES_BY_ITSELF else WRONG, 403)
        lifetime_s = ASKED_S if isinstance(answer, Asked) else SESSION_S
        now = self._clock()
        name = answer.name if isinstance(answer, Account) else username  # an answer has to come under the same as it
        cookie = self._sessions.open(Session(endpoint.id, endpoint.methods, name, answer, now + lifetime_s, login), now)
        if isinstance(answer, Account):
            log.info("self-service: %s logged in at %s from %s", answer.name, endpoint.name, host)
        return _with_cookie(redirect(PATH + endpoint.id), endpoint, cookie)

    async def _log_out(self, request: Request) -> Response:
        endpoint = self._desk.find(request.path_params["id"])
        if endpoint is None:
            return self._refuse(request, PortalRefusal.SELF_SERVICE_UNKNOWN, "")
        if await self._form(request, endpoint) is None:
            return self._refuse(request, PortalRefusal.FORM_FORGED, "")
        self._sessions.close(_cookie(request, endpoint))
        return _with_cookie(redirect(PATH + endpoint.id), endpoint, "")

    async def _download(self, request: Request) -> Response:
        if request.method != "GET":
            return Response(status_code=405, headers=HEADERS)
        endpoint, kind = self._desk.find(request.path_params["id"]), request.path_params["kind"]
        if endpoint is None or kind not in {download.kind for download in _downloads(endpoint)}:
            return self._refuse(request, PortalRefusal.SELF_SERVICE_UNKNOWN, "")
        session = self._session(request, endpoint)
        if session is None or not isinstance(session.proof, Account):
            return self._refuse(request, PortalRefusal.SESSION_UNKNOWN, "")
        account = session.proof
        text = await self._desk.profile(endpoint.id, account, kind)
        if self._session(request, endpoint) is not session:  # it has taken its time
            return self._refuse(request, PortalRefusal.SESSION_UNKNOWN, "")
        if text is None:
            return page("message", 500, title="There is no such profile", advice="Ask your administrator for one.")
        self._desk.handed_out(endpoint.id)
        log.info(
            "self-service: %s took the profile of %s (%s) at %s", account.name, endpoint.name, kind, _host(request)
        )
        headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{endpoint.name}.ovpn"'}
        return Response(text, headers=headers, media_type="application/x-openvpn-profile")

    # -- around them --------------------------------------------------------------------------------------

    def _session(self, request: Request, endpoint: EndpointConfig) -> Session | None:
        cookie = _cookie(request, endpoint)
        session = self._sessions.find(cookie, endpoint.id, self._clock())
        if session is None:
            return None
        good = isinstance(session.proof, Asked) or self._desk.still_lets_in(session.login, session.proof)
        if not good or session.methods != endpoint.methods:
            self._sessions.close(cookie)
            return None
        return session

    async def _form(self, request: Request, endpoint: EndpointConfig) -> dict[str, str] | None:
        """None: it is not from a page that we showed this browser."""
        fields = await read_form(request, LONGEST_FORM)
        known = self._sessions.is_form_word(fields.get("word", ""), _cookie(request, endpoint), endpoint.id)
        return fields if known and self._is_own_form(request) else None

    def _login_page(self, request: Request, endpoint: EndpointConfig, problem: str = "", status: int = 200) -> Response:
        cookie = _cookie(request, endpoint) or new_cookie()  # the same in every tab; a login makes another
        word = self._sessions.form_word(cookie, endpoint.id)
        shown = page("login", status, endpoint=endpoint, place=PATH + endpoint.id, word=word, problem=problem)
        return _with_cookie(shown, endpoint, cookie)

    def _code_page(self, request: Request, endpoint: EndpointConfig, asked: Asked) -> Response:
        word = self._sessions.form_word(_cookie(request, endpoint), endpoint.id)
        return page("code", endpoint=endpoint, place=PATH + endpoint.id, word=word, asked=asked)


def _is_federated(endpoint: EndpointConfig) -> bool:
    return endpoint.user_method is not None and endpoint.user_method.is_federated


def _downloads(endpoint: EndpointConfig) -> tuple[Download, ...]:
    return SIGN_ON_DOWNLOADS if _is_federated(endpoint) else DOWNLOADS


def _cookie(request: Request, endpoint: EndpointConfig) -> str:
    """Empty for what we have not made."""
    cookie = request.cookies.get(COOKIE + endpoint.id, "")
    return cookie if is_cookie(cookie) else ""


def _with_cookie(answer: Response, endpoint: EndpointConfig, cookie: str) -> Response:
    lifetime_s = int(SESSION_S) if cookie else 0
    answer.set_cookie(COOKIE + endpoint.id, cookie, max_age=lifetime_s, secure=True, httponly=True, samesite="strict")
    return answer


def _host(request: Request) -> str:
    assert request.client is not None  # noqa: S101 - it came over TCP
    return request.client.host
