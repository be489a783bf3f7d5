"""What was deleted lately, for who waits for that at any gateway; and answers found by their age."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "gone",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("view", sa.JSON, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("client_token_created", "client_token", ["created_at"])
