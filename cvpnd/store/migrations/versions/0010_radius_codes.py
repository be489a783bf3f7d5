"""Codes that RADIUS servers have found right, so that none counts twice."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "radius_code",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("until", sa.Double, nullable=False),
    )
    op.create_index("ix_radius_code_until", "radius_code", ["until"])
