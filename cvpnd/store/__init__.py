"""What must survive a restart: authorization rules added at run time, which client keys were handed out,
and who changed what.

Endpoints and rules of the TOML file are not here; they belong to the file. ``tables.py`` says what the tables look like
now, ``migrations/`` how a database of any earlier version gets there (run at every open).
"""

from cvpnd.store.actor import Actor, acting
from cvpnd.store.store import (
    AuditRecord,
    DuplicateRule,
    NoSuchRule,
    SchemaTooNew,
    Store,
    StoredClientKey,
    StoredRule,
    StoreError,
)

__all__ = [
    "Actor",
    "AuditRecord",
    "DuplicateRule",
    "NoSuchRule",
    "SchemaTooNew",
    "Store",
    "StoreError",
    "StoredClientKey",
    "StoredRule",
    "acting",
]
