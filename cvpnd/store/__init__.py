"""What must survive a restart: endpoints, rules and whatever else is made at run time, and who changed what.

Endpoints and rules of the TOML file are not here; they belong to the file. ``tables.py`` says what the tables look like
now, ``migrations/`` how a database of any earlier version gets there (run at every open). ``database.py`` has the
transactions, ``sqlite.py`` and ``postgresql.py`` what is under them, ``outage.py`` says when that cannot be used,
``sealing.py`` keeps private keys and access keys secret, every other file is one noun.
"""

from cvpnd.store.access_keys import StoredAccessKey
from cvpnd.store.actor import Actor, acting
from cvpnd.store.api_requests import SeenRequest
from cvpnd.store.audit import AuditExtent, AuditRecord, fair_share
from cvpnd.store.authenticators import StoredAuthenticator
from cvpnd.store.certificates import StoredCertificate
from cvpnd.store.client_keys import StoredClientKey
from cvpnd.store.crl_editions import StoredCrlEdition
from cvpnd.store.database import SchemaTooNew, StoreError, StoreUnavailable, Transaction
from cvpnd.store.endpoints import StoredAssociation, StoredEndpoint, StoredRoute
from cvpnd.store.local_users import StoredLocalUser
from cvpnd.store.log_groups import StoredLogGroup
from cvpnd.store.revoked_logins import RevokedLogin
from cvpnd.store.rules import DuplicateRule, NoSuchRule, StoredRule
from cvpnd.store.saml_logins import StoredSamlLogin
from cvpnd.store.saml_providers import StoredSamlProvider
from cvpnd.store.store import Store
from cvpnd.store.tags import Answered

__all__ = [
    "Actor",
    "Answered",
    "AuditExtent",
    "AuditRecord",
    "DuplicateRule",
    "NoSuchRule",
    "RevokedLogin",
    "SchemaTooNew",
    "SeenRequest",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "StoredAccessKey",
    "StoredAssociation",
    "StoredAuthenticator",
    "StoredCertificate",
    "StoredClientKey",
    "StoredCrlEdition",
    "StoredEndpoint",
    "StoredLocalUser",
    "StoredLogGroup",
    "StoredRoute",
    "StoredRule",
    "StoredSamlLogin",
    "StoredSamlProvider",
    "Transaction",
    "acting",
    "fair_share",
]
