"""Logins at an identity provider, as far as a connection has to do with them.

AWS's client makes two connections: the first says where it listens for its browser and is sent there, the second brings
what the browser got. Whoever has logged in comes back by token, as after any other login; as nobody can ask an identity
provider about somebody, their account is then what it was at the login."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING

from cvpnd.auth.challenge import DYNAMIC
from cvpnd.auth.directory import Account
from cvpnd.auth.identity import Refused
from cvpnd.auth.saml.logins import FIRST, SamlLogins
from cvpnd.auth.saml.model import Assertion
from cvpnd.auth.saml.provider import SamlProvider
from cvpnd.auth.saml.state import Visitor
from cvpnd.auth.tokens import LIFETIME_S, Token
from cvpnd.config import AuthenticationConfig
from cvpnd.policy.model import Identity
from cvpnd.reasons import Refusal
from cvpnd.server.admission import prefixes
from cvpnd.server.denied import Denied
from cvpnd.server.web_login import log_in_by_browser
from cvpnd.wire.events import CredentialsReceived

if TYPE_CHECKING:
    from cvpnd.server.connection import Connection
    from cvpnd.server.control import ControlPlane


def owner_name(method: AuthenticationConfig) -> str:
    """What tokens of such logins are bound to in place of a directory."""
    return f"saml {method.saml_provider}"


async def ask_browser(
    control: ControlPlane, connection: Connection, credentials: CredentialsReceived, identity: Identity, within_s: float
) -> Account | Refused:
    """Whom the identity provider has let in. ``Challenged``: the client is told to open the browser and to come back;
    others than AWS's wait for theirs here. Raises ``Denied``."""
    method, saml = connection.endpoint.settings.user_method, control.saml
    if method is None or method.saml_provider is None or saml is None:
        return Refused(Refusal.SAML_UNAVAILABLE, "the endpoint has no identity provider")
    visitor = Visitor(
        connection.endpoint.id,
        method.saml_provider,
        identity.certificate_fingerprint,
        _source(method, connection.link.remote.host),
    )
    if credentials.password.startswith(FIRST.encode()):
        return saml.send_away(visitor, credentials.password.text())
    if not credentials.password.startswith(DYNAMIC):
        found = saml.provider(method.provider_of_pages or method.saml_provider)
        if isinstance(found, Refused):
            return found
        return await log_in_by(control, saml, connection, found, await log_in_by_browser(control, connection, found.id))
    brought = saml.taken_back(visitor, credentials.password)
    if isinstance(brought, Refused):
        return brought
    provider = brought.provider
    source, _ = prefixes(connection.link.remote.host)
    assertion = await saml.accept(provider, brought.response, brought.request, source=source, within_s=within_s)
    if isinstance(assertion, Refused):
        return assertion
    left_at = brought.left_at - control.clock.apart_s  # it may be another gateway that says when
    if control.revoked_logins.begin(connection.endpoint.id, left_at).is_ended("", assertion.name):
        return Refused(Refusal.TERMINATED, f"the logins of {assertion.name} were ended while their browser was away")
    connection.username = assertion.name
    control.on_assertion(connection)
    connection.assertion_digest = _digest(credentials)
    return await log_in_by(control, saml, connection, provider, assertion)


async def log_in_by(
    control: ControlPlane, saml: SamlLogins, connection: Connection, provider: SamlProvider, assertion: Assertion
) -> Account:
    """Begin a login that the client's token goes back to: it ends with the session timeout, or when the identity
    provider says that it does. Raises ``Denied``: what it said counts no more."""
    if (refused := saml.disowned(provider.id, assertion)) is not None:
        raise Denied(refused.refusal, refused.detail)
    now = time.time()
    lifetime_s = connection.endpoint.settings.session_timeout_s or LIFETIME_S
    if assertion.session_ends_at is not None:
        lifetime_s = min(lifetime_s, max(0, int(assertion.session_ends_at - now)))
    account = Account(assertion.name, assertion.groups)
    connection.vouched_by = provider
    mark = control.revoked_logins.mark(connection.endpoint.id, "", account.name)
    connection.token = Token.new(now, lifetime_s, steady=control.clock.now(), mark=mark)
    connection.logged_in_at = control.clock.now()
    await saml.remember(connection.token.login_id, provider, account, now + lifetime_s)
    return account


def says_again(control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> bool:
    """Whether this connection, which is let in, has said the same before: a client that takes no token says it with
    each key. It lasts no longer than a token would."""
    token, digest = connection.token, connection.assertion_digest
    if token is None or not digest or not hmac.compare_digest(digest, _digest(credentials)):
        return False
    return control.clock.now() - connection.logged_in_at < token.lifetime_s


def _digest(credentials: CredentialsReceived) -> bytes:
    return hashlib.sha256(credentials.password.view()).digest()


async def recall(control: ControlPlane, connection: Connection, credentials: CredentialsReceived) -> Account | None:
    """Who has logged in, by the token that the client came back with, which is still to be checked. Its user name says
    nothing: AWS's client has none."""
    method, claimed = connection.endpoint.settings.user_method, Token.claimed(credentials.password.text())
    if control.saml is None or method is None or claimed is None:
        return None
    for provider_id in (method.saml_provider, method.portal_saml_provider):
        if provider_id is not None and (found := await control.saml.recall(claimed.login_id, provider_id)) is not None:
            account, connection.vouched_by = found
            return account
    return None


def _source(method: AuthenticationConfig, host: str) -> str:
    near, far = prefixes(host)
    return {"address": near, "network": far, "any": ""}[method.login_source]
