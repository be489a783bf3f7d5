"""``Store``: every noun, each in a file of its own. Every change is one transaction together with its audit record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from cvpnd.store.access_keys import AccessKeyStore
from cvpnd.store.api_requests import ApiRequestStore
from cvpnd.store.authenticators import AuthenticatorStore
from cvpnd.store.certificates import CertificateStore
from cvpnd.store.client_keys import ClientKeyStore
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
from cvpnd.store.tables import audit
from cvpnd.store.tags import TagStore

REFUSED = "refused"
"""The action of an audit record behind which nothing has changed."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    at: float
    who: str
    action: str
    source: str
    details: Mapping[str, Any]


class Store(
    RuleStore,
    ClientKeyStore,
    EndpointStore,
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
):
    """Synchronous; call it from a thread (``asyncio.to_thread``). Any number of threads may."""

    def record_refusal(self, details: Mapping[str, Any]) -> None:
        """Somebody known asked for a change that is not made."""
        with self._write() as connection:
            self._record(connection, REFUSED, details)

    def latest_change(self) -> int:
        """Another number after each change, whoever made it."""
        with self._read() as connection:
            latest = select(func.max(audit.c.id)).where(audit.c.action != REFUSED)
            return connection.execute(latest).scalar() or 0

    def audit_records(self, limit: int = 100) -> list[AuditRecord]:
        """The latest changes, newest first."""
        with self._read() as connection:
            rows = connection.execute(select(audit).order_by(audit.c.id.desc()).limit(limit))
            return [AuditRecord(row.at, row.who, row.action, row.source, row.details) for row in rows]
