"""A clock that nobody sets, and marks in place of times.

What is remembered has times of the wall clock, which may be wrong at this very moment. So it is remembered as if it had
come about now, when the steady clock begins with 0: nothing is forgotten too early. Tokens of before have no mark, and
those of users whose logins were ended are refused."""

import secrets
import time

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

LONGEST_S = 3600
"""For which a RADIUS code or an answer of an identity provider could be good (``code_once_s``, ``login_time_s``)."""


def upgrade() -> None:
    clock = op.create_table(
        "steady_clock",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="steady_clock_once"), primary_key=True,
                  autoincrement=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("wall", sa.Double, nullable=False),
    )  # fmt: skip
    op.bulk_insert(clock, [{"id": 1, "seconds": 0.0, "wall": time.time()}])
    subjects = [row.subject for row in op.get_bind().execute(sa.text("SELECT subject FROM revoked_login"))]
    op.drop_table("revoked_login")
    revoked = op.create_table(
        "revoked_login",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("mark", sa.LargeBinary, nullable=False),
    )
    op.bulk_insert(revoked, [{"subject": each, "at": 0.0, "mark": secrets.token_bytes(6)} for each in subjects])
    op.execute("UPDATE client_token SET created_at = 0")
    op.execute("UPDATE api_request SET at = 0")
    for name in ("radius_code", "saml_spent"):
        op.execute(sa.table(name, sa.column("until")).update().values(until=LONGEST_S))
