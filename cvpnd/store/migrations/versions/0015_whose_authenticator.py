"""Whose authenticators are: not of whoever has the name later."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("authenticator", sa.Column("person", sa.LargeBinary))
