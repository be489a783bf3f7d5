"""What the portal's self-service pages ask of the gateway: the login is the VPN's own, with its throttle and its second
factor or its identity provider, and the profile is that of ``cvpnctl profile`` or of the API's export."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TypeGuard

from cvpnd.auth.challenge import Asker
from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused, problem_with_name
from cvpnd.auth.logins import MOST_PENDING
from cvpnd.auth.revoked_logins import LoginUnderWay
from cvpnd.auth.saml.logins import MOST_PENDING as MOST_RESPONSES
from cvpnd.auth.saml.model import Assertion, PendingRequest
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.config import EndpointConfig
from cvpnd.endpoints.gateway import Gateway
from cvpnd.profile import ProfileError, render_export, render_profile
from cvpnd.reasons import Refusal
from cvpnd.secret import Secret
from cvpnd.server.admission import FAILED_LOGINS, SourceLimits, prefixes
from cvpnd.server.control import ControlPlane
from cvpnd.server.denied import Denied
from cvpnd.server.endpoint import ServedEndpoint
from cvpnd.server.user_method import LOGIN_SHARE, second_factor
from cvpnd.store import StoreError

log = logging.getLogger(__name__)

NO_CERTIFICATE = "self-service"
"""In the place of a client certificate's fingerprint: a question that was put to a browser cannot be answered by a VPN
client, nor the other way round."""
MOST_PENDING_HERE = MOST_PENDING // 2
"""Logins under way at one directory: anybody can knock here, and the other places are for clients of the VPN."""
MOST_RESPONSES_HERE = MOST_RESPONSES // 2
"""The same of identity providers' answers that are looked at, or wait for that."""
ACCEPT_S = 30.0
"""How long an identity provider's answer may wait for a thread."""


class SelfServiceDesk:
    """The portal's ``Desk``."""

    def __init__(self, gateway: Gateway, control: ControlPlane) -> None:
        self._gateway = gateway
        self._control = control

    def find(self, endpoint_id: str) -> EndpointConfig | None:
        served = self._served(endpoint_id)
        return None if served is None else served.settings

    def begin(self, endpoint_id: str, ago_s: float = 0.0) -> LoginUnderWay:
        return self._control.revoked_logins.begin(endpoint_id, self._control.clock.now() - ago_s)

    async def log_in(self, login: LoginUnderWay, username: str, password: Secret, *, host: str) -> Account | Refused:
        sources = self._control.sources  # a wrong password counts for them as a VPN client's failure does
        if (throttled := _throttled(sources, host)) is not None:
            return throttled
        try:
            answer = await self._log_in(login, username, password, host)
        except StoreError as error:
            return Refused(Refusal.DATABASE_UNAVAILABLE, str(error))
        if _has_failed(answer, sources, host):
            log.warning(
                "self-service: %r is not let in at %s from %s: %s",
                username[:100], login.endpoint_id, host, answer.refusal,
            )  # fmt: skip
        return answer

    async def _log_in(self, login: LoginUnderWay, username: str, password: Secret, host: str) -> Account | Refused:
        served = self._served(login.endpoint_id)
        method = None if served is None else served.settings.user_method
        if served is None or method is None or method.directory is None:
            return Refused(Refusal.INTERNAL_ERROR, "the endpoint went while somebody logged in")
        control, directory = self._control, method.directory
        if (pending := control.users.pending()[directory]) >= MOST_PENDING_HERE:
            return Refused(Refusal.TOO_MANY_LOGINS, f"{pending} are under way; the other places are for VPN clients")
        within_s = served.settings.hand_window_s * LOGIN_SHARE
        source, _ = prefixes(host)
        try:
            factor = None
            if method.mfa != "off":
                asker = Asker(login.endpoint_id, directory, NO_CERTIFICATE, login)
                factor = second_factor(control, method.mfa, asker, host, within_s)
            answer = await control.users.log_in(
                directory, username, password, source=source, within_s=within_s, second_factor=factor
            )
        except Denied as denied:
            return Refused(denied.refusal, denied.detail)
        if isinstance(answer, Account) and not self.still_lets_in(login, answer):
            return Refused(Refusal.WRONG_PASSWORD, "it was changed, or logins ended, while this one was under way")
        return answer

    def handed_out(self, endpoint_id: str) -> None:
        self._control.tally.downloads[endpoint_id] += 1

    def still_lets_in(self, login: LoginUnderWay, account: Account) -> bool:
        """As its directory has said last, and nobody has ended the user's logins."""
        served = self._served(login.endpoint_id)
        method = None if served is None else served.settings.user_method
        if method is None or login.is_ended(method.directory or "", account.name):
            return False
        if served is not None and method is not None and method.is_federated:
            provider = self.provider(served.settings)
            return isinstance(provider, SamlProvider) and _stamp(provider) == account.stamp
        if method.directory is None:
            return False
        now = self._control.users.look_up(method.directory, account.name)
        return isinstance(now, Account) and now.stamp == account.stamp

    def federated(self) -> Iterator[EndpointConfig]:
        for served in self._gateway.endpoints:
            method = served.settings.user_method
            pages = served.settings.self_service_portal and not served.closing
            if pages and method is not None and method.is_federated:
                yield served.settings

    def provider(self, endpoint: EndpointConfig) -> SamlProvider | Refused:
        saml, method = self._control.saml, endpoint.user_method
        if saml is None or method is None or method.provider_of_pages is None:
            return Refused(Refusal.SAML_UNAVAILABLE, "the endpoint has no identity provider")
        return saml.provider(method.provider_of_pages)

    async def accept(
        self, provider: SamlProvider, response: str, request: PendingRequest, *, host: str
    ) -> Assertion | Refused:
        saml = self._control.saml
        if saml is None:
            return Refused(Refusal.SAML_UNAVAILABLE, "the identity provider went while somebody logged in")
        if (throttled := _throttled(self._control.answering, host)) is not None:
            return throttled
        if saml.pending >= MOST_RESPONSES_HERE:
            return Refused(Refusal.TOO_MANY_LOGINS, f"{saml.pending} wait; the other places are for VPN clients")
        source, _ = prefixes(host)
        answer = await saml.accept(provider, response, request, source=source, within_s=ACCEPT_S)
        _has_failed(answer, self._control.answering, host)
        return answer

    def vouched(self, provider: SamlProvider, assertion: Assertion) -> Account:
        return Account(assertion.name, assertion.groups, _stamp(provider))

    async def profile(self, endpoint_id: str, account: Account, kind: str) -> str | None:
        served = self._served(endpoint_id)
        if served is None:
            return None
        # identity providers have longer names than certificates, and files a name without slashes
        fits = problem_with_name(account.name) is None and "/" not in account.name
        name = account.name if fits else "client"
        try:
            if kind == "aws":
                return await asyncio.to_thread(render_export, served.settings, served.trust)
            return await asyncio.to_thread(render_profile, served.settings, served.trust, name, kind=kind)
        except ProfileError as error:
            log.error("self-service: no %s profile of %s for %s: %s", kind, served.settings.name, account.name, error)
            return None

    def _served(self, endpoint_id: str) -> ServedEndpoint | None:
        found = (each for each in self._gateway.endpoints if each.id == endpoint_id and not each.closing)
        return next((each for each in found if each.settings.self_service_portal), None)


def _throttled(sources: SourceLimits, host: str) -> Refused | None:
    if not sources.has_failed_too_often(host, asyncio.get_running_loop().time()):
        return None
    return Refused(Refusal.LOGIN_THROTTLED, "its address had too many failed logins, see [daemon.strangers]")


def _has_failed(answer: object, sources: SourceLimits, host: str) -> TypeGuard[Refused]:
    failed = isinstance(answer, Refused) and answer.refusal in FAILED_LOGINS
    if failed:
        sources.failed(host, asyncio.get_running_loop().time())
    return failed


def _stamp(provider: SamlProvider) -> bytes:
    """Whose word an account is: worth nothing once another one stands in its place."""
    return f"{provider.id} {provider.idp.entity_id}".encode()
