"""Authorization rules and the audit record."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "authorization_rule",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("endpoint_id", sa.Text, nullable=False),
        sa.Column("network", sa.Text, nullable=False),
        sa.Column("group_name", sa.Text),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.CheckConstraint("group_name <> ''", name="authorization_rule_group_not_empty"),
    )
    op.create_index(
        "authorization_rule_unique",
        "authorization_rule",
        ["endpoint_id", "network", sa.text("coalesce(group_name, '')")],
        unique=True,
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_index("audit_at", "audit", ["at"])
