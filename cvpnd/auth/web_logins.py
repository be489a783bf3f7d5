"""Logins that a person completes in a browser while the client waits: what has happened in each so far.

    offered ─ open ─▶ opened ─ check ─▶ checking ─ prove ─▶ proven ─ decide ─▶ over
                        │ ▲                  └─ end ─▶ over
                        └─┘ again, by the browser that opened it

A link that somebody else sends us to must not log their client in with our name. So a login belongs to the first
browser that opens it, and what this browser brings from the identity provider is worth something only to it: the one
that posts the assertion gets a ticket, and consent takes that ticket, the browser's own cookie, and a word that stands
on the consent page alone. The page shows which device is being let in.

Every secret here is random, good for one login and as long as that; nothing outlives the process, as the connection
that waits does not either. Times are the caller's monotonic seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.model import Assertion, PendingRequest
from cvpnd.reasons import PortalRefusal, Refusal

LOGIN_PATH = "/saml/login/"
SECRET_BYTES = 32
SECRET_CHARACTERS = 43
"""Of one as ``token_urlsafe`` writes it."""
MOST_OPENINGS = 5
"""By one browser: each is a request to the identity provider that has to be remembered."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The connection that waits, as the person is shown it before consenting."""

    endpoint: str
    device: str
    address: str
    certificate: str
    """Its common name; empty without one."""


class Stage(Enum):
    OFFERED = auto()
    OPENED = auto()
    CHECKING = auto()
    PROVEN = auto()
    OVER = auto()


@dataclass(slots=True, eq=False)
class WebLogin:
    """Changed by ``WebLogins`` only. ``outcome`` is for the connection that waits."""

    provider: str
    """Id of the identity provider."""
    connection_id: str
    waiting: Waiting
    until: float
    outcome: asyncio.Future[Assertion | Refused]
    on_proven: Callable[[], None]
    """Told when the identity provider's answer was in order, which is before consent."""
    secret: str = field(default_factory=lambda: _new_secret(), repr=False)
    """The last part of the link, which the client opens in a browser."""
    stage: Stage = Stage.OFFERED
    openings: int = 0
    browser: str = field(default="", repr=False)
    """The cookie's value, once a browser has opened the link."""
    relay_state: str = field(default="", repr=False)
    """What the identity provider gives back beside its answer to the latest request."""
    request: PendingRequest | None = None
    """The latest one."""
    ticket: str = field(default="", repr=False)
    consent: str = field(default="", repr=False)
    assertion: Assertion | None = None

    @property
    def cookie(self) -> str:
        """Its name: several logins may be under way in one browser."""
        return f"__Host-cvpn-{_digest(self.secret).hex()[:16]}"

    def is_browser(self, cookies: Mapping[str, str]) -> bool:
        return bool(self.browser) and _same(self.browser, cookies.get(self.cookie, ""))


class WebLogins:
    """On the event loop's thread only. Secrets are looked up by their digests, so that no search tells how much of one
    was right."""

    def __init__(self, url: str, login_s: float) -> None:
        """``url``: the portal's. ``login_s``: how long a person may take."""
        self._url = url
        self.login_s = login_s
        self._by_secret: dict[bytes, WebLogin] = {}

    def __len__(self) -> int:
        return len(set(map(id, self._by_secret.values())))

    # -- the connection's side

    def offer(self, login: WebLogin) -> None:
        self._by_secret[_digest(login.secret)] = login

    def link(self, login: WebLogin) -> str:
        return f"{self._url}{LOGIN_PATH}{login.secret}"

    def withdraw(self, login: WebLogin) -> None:
        """Nobody waits any more. Idempotent."""
        login.stage = Stage.OVER
        for secret in (login.secret, login.relay_state, login.ticket):
            self._by_secret.pop(_digest(secret), None)
        login.assertion = login.request = None

    # -- the browser's side

    def find(self, secret: str, cookies: Mapping[str, str], now: float) -> WebLogin | PortalRefusal:
        """By the link. Only the first browser that comes gets any further."""
        login = self._find(secret, now)
        if login is None or not _same(login.secret, secret):
            return PortalRefusal.LINK_UNKNOWN
        if login.stage is Stage.OFFERED:
            return login
        if not login.is_browser(cookies):
            return PortalRefusal.BROWSER_MISMATCH
        if login.stage is not Stage.OPENED or login.openings >= MOST_OPENINGS:
            return PortalRefusal.LINK_USED
        return login

    def open(self, login: WebLogin) -> str:
        """A browser begins, or begins again; its relay state. ``ask`` comes next."""
        login.browser = login.browser or _new_secret()
        self._by_secret.pop(_digest(login.relay_state), None)
        login.relay_state = _new_secret()
        self._by_secret[_digest(login.relay_state)] = login
        login.openings += 1
        login.stage = Stage.OPENED
        return login.relay_state

    def ask(self, login: WebLogin, relay_state: str, request: PendingRequest) -> bool:
        """The identity provider is asked this now. False: it is not, as the login went on or ended meanwhile."""
        if login.stage is not Stage.OPENED or login.relay_state != relay_state:
            return False
        login.request = request
        return True

    def check(self, relay_state: str, now: float) -> WebLogin | PortalRefusal:
        """An answer came back from the identity provider. Each request takes one, whatever becomes of it."""
        login = self._find(relay_state, now)
        if (
            login is None
            or login.stage is not Stage.OPENED
            or login.request is None
            or not _same(login.relay_state, relay_state)
        ):
            return PortalRefusal.RELAY_STATE_UNKNOWN
        login.stage = Stage.CHECKING
        return login

    def prove(self, login: WebLogin, assertion: Assertion) -> str | None:
        """The answer was in order: the ticket of the browser that brought it. None: nobody waits any more."""
        if login.stage is not Stage.CHECKING:
            return None
        login.stage, login.assertion = Stage.PROVEN, assertion
        login.ticket, login.consent = _new_secret(), _new_secret()
        self._by_secret[_digest(login.ticket)] = login
        login.on_proven()
        return login.ticket

    def proven(self, ticket: str, cookies: Mapping[str, str], now: float) -> WebLogin | PortalRefusal:
        """The browser with the ticket wants to consent. If it is not the one that opened the link, somebody was sent
        here by somebody else, and the login is over."""
        login = self._find(ticket, now)
        if login is None or login.stage is not Stage.PROVEN or not _same(login.ticket, ticket):
            return PortalRefusal.LINK_UNKNOWN
        if not login.is_browser(cookies):
            self.end(login, Refused(Refusal.BROWSER_MISMATCH, "another browser came back from the identity provider"))
            return PortalRefusal.BROWSER_MISMATCH
        return login

    def decide(self, login: WebLogin, consent: str, allowed: bool, disowned: Refused | None = None) -> bool:
        """What the person said on the page that has ``consent`` in it. False: it did not come from there.
        ``disowned``: why their yes comes too late."""
        if login.assertion is None or not _same(login.consent, consent):
            return False
        declined = Refused(Refusal.LOGIN_DECLINED, "the person said no on the consent page")
        self.end(login, (disowned or login.assertion) if allowed else declined)
        return True

    def end(self, login: WebLogin, outcome: Assertion | Refused) -> None:
        self.withdraw(login)
        if not login.outcome.done():
            login.outcome.set_result(outcome)

    def _find(self, secret: str, now: float) -> WebLogin | None:
        if len(secret) != SECRET_CHARACTERS or not secret.isascii():
            return None
        login = self._by_secret.get(_digest(secret))
        return login if login is not None and now < login.until else None


def _new_secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(_encoded(secret)).digest()


def _same(ours: str, theirs: str) -> bool:
    return hmac.compare_digest(_encoded(ours), _encoded(theirs))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
