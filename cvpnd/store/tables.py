"""The tables as they are now. A change here needs a migration beside it; a test compares the two.

Times are seconds since the epoch, as everywhere. Networks are canonical text: the databases that are to come have no
common type for them, and longest-prefix questions are answered by the compiled tables, never here.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    func,
)

metadata = MetaData()

authorization_rule = Table(
    "authorization_rule",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("endpoint_id", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("group_name", Text),  # NULL = all users
    Column("description", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    CheckConstraint("group_name <> ''", name="authorization_rule_group_not_empty"),
)

# a plain unique constraint would take two NULL groups for different ones; '' is free to stand for NULL (check above)
Index(
    "authorization_rule_unique",
    authorization_rule.c.endpoint_id,
    authorization_rule.c.network,
    func.coalesce(authorization_rule.c.group_name, ""),
    unique=True,
)

# What was handed out, for people: whether a key is accepted, the CRL says (wire/wrap/client_key.py).
client_key = Table(
    "client_key",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("endpoint_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("serial", Text, nullable=False),  # of its certificate, in hexadecimal: 160 bits are no integer here
    Column("created_at", Double, nullable=False),
)

Index("client_key_endpoint", client_key.c.endpoint_id)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("details", JSON, nullable=False),
)

Index("audit_at", audit.c.at)
