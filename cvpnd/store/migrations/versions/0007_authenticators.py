"""Authenticator apps of users, with recovery codes."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "authenticator",
        sa.Column("directory", sa.Text, primary_key=True),
        sa.Column("username", sa.Text, primary_key=True),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("last_step", sa.Integer, nullable=False),
        sa.Column("recovery", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
