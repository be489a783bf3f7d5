"""Which revocation lists of files were in force."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "crl_edition",
        sa.Column("endpoint_id", sa.Text, primary_key=True),
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("this_update", sa.Double, nullable=False),
        sa.Column("number", sa.Text),
        sa.Column("at", sa.Double, nullable=False),
    )
