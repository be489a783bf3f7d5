"""``Store``: every noun, each in a file of its own. Every change is one transaction together with its audit record."""

from __future__ import annotations

from cvpnd.store.access_keys import AccessKeyStore
from cvpnd.store.api_requests import ApiRequestStore
from cvpnd.store.audit import AuditStore
from cvpnd.store.authenticators import AuthenticatorStore
from cvpnd.store.certificates import CertificateStore
from cvpnd.store.client_keys import ClientKeyStore
from cvpnd.store.crl_editions import CrlEditionStore
from cvpnd.store.endpoints import EndpointStore
from cvpnd.store.gone import GoneStore
from cvpnd.store.kept_passwords import KeptPasswordStore
from cvpnd.store.local_users import LocalUserStore
from cvpnd.store.log_groups import LogGroupStore
from cvpnd.store.radius_codes import RadiusCodeStore
from cvpnd.store.revoked_logins import RevokedLoginStore
from cvpnd.store.rules import RuleStore
from cvpnd.store.saml_logins import SamlLoginStore
from cvpnd.store.saml_providers import SamlProviderStore
from cvpnd.store.secrets import SecretStore
from cvpnd.store.steady_clock import SteadyClockStore
from cvpnd.store.tags import TagStore


class Store(
    RuleStore,
    ClientKeyStore,
    EndpointStore,
    CrlEditionStore,
    CertificateStore,
    AccessKeyStore,
    ApiRequestStore,
    TagStore,
    LogGroupStore,
    LocalUserStore,
    SamlProviderStore,
    SamlLoginStore,
    RadiusCodeStore,
    KeptPasswordStore,
    SecretStore,
    RevokedLoginStore,
    AuthenticatorStore,
    GoneStore,
    AuditStore,
    SteadyClockStore,
):
    """Synchronous; call it from a thread (``asyncio.to_thread``). Any number of threads may."""
