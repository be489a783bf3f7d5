"""Endpoints that are made at run time, and what the AWS-compatible API keeps beside them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "endpoint",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("server_certificate", sa.Text, nullable=False),
        sa.Column("client_certificate", sa.Text, nullable=False),
        sa.Column("vpc", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "crl",
        sa.Column("endpoint_id", sa.Text, sa.ForeignKey("endpoint.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("pem", sa.Text, nullable=False),
        sa.Column("imported_at", sa.Double, nullable=False),
    )
    op.create_table(
        "association",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("endpoint_id", sa.Text, sa.ForeignKey("endpoint.id"), nullable=False),
        sa.Column("subnet", sa.Text, nullable=False),
        sa.Column("nat", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.UniqueConstraint("endpoint_id", "subnet", name="association_unique"),
    )
    op.create_table(
        "route",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("endpoint_id", sa.Text, sa.ForeignKey("endpoint.id"), nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.UniqueConstraint("endpoint_id", "destination", "target", name="route_unique"),
    )
    op.create_table(
        "sealing",
        sa.Column(
            "id", sa.Integer, sa.CheckConstraint("id = 1", name="sealing_once"), primary_key=True, autoincrement=False
        ),
        sa.Column("proof", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "certificate",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("arn", sa.Text, nullable=False, unique=True),
        sa.Column("certificate", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("private_key", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("imported_at", sa.Double, nullable=False),
    )
    op.create_table(
        "access_key",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "tag",
        sa.Column("resource", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "client_token",
        sa.Column("action", sa.Text, primary_key=True),
        sa.Column("token", sa.Text, primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "log_group",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "log_stream",
        sa.Column("log_group", sa.Text, sa.ForeignKey("log_group.name"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "saml_provider",
        sa.Column("arn", sa.Text, primary_key=True),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("valid_until", sa.Double),
        sa.Column("created_at", sa.Double, nullable=False),
    )
