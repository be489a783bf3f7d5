"""tls-crypt-v2 client keys that were handed out."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "client_key",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("endpoint_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("serial", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_index("client_key_endpoint", "client_key", ["endpoint_id"])
