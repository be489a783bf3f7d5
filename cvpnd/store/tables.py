"""The tables as they are now. A change here needs a migration beside it; a test compares the two.

Times are seconds since the epoch, except where they are of the steady clock: what has been used and what was ended is
remembered for a while, whatever day it is said to be. Networks are canonical text: the databases have no common type
for them, and longest-prefix questions are answered by the compiled tables, never here.

What bounds each table, so that years of use cost nothing:

| tables | rows go |
|---|---|
| authorization_rule, route, association, crl | with their endpoint, and by hand; ``[quotas]`` |
| endpoint, certificate, access_key, local_user, saml_provider, log_group | by hand; endpoints: ``[quotas]`` |
| log_stream | by hand; that of an endpoint's own after it, and after ``audit.keep_days`` without an entry |
| tag | with what has it, of which each has at most 50 |
| client_key | when the endpoint has 10,000 later ones |
| crl_edition | 400 days after the file was in use last |
| audit | ``audit.keep_days`` and ``audit.keep_entries`` |
| client_token, gone | after a day and an hour |
| api_request | after a week, when there are 20,000 later ones |
| radius_code, saml_spent, saml_login, kept_password | when what they are about is over (``until``) |
| saml_metadata | 400 days after it was fetched last |
| revoked_login | of a login: after 31 days; of a user, one row for each: never, or with the endpoint |
| authenticator | by hand, one of each user |
| sealing, gateway_secret, steady_clock | never, a handful |
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
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

# Revocation lists that were in force, each of a file: an older one in its place is not taken after a restart either.
crl_edition = Table(
    "crl_edition",
    metadata,
    Column("endpoint_id", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("source", Text, primary_key=True),  # digest of its authority's name and key
    Column("issuer", Text, nullable=False),
    Column("this_update", Double, nullable=False),
    Column("number", Text),  # in hexadecimal, as it may have 160 bits; NULL = its authority does not count
    Column("at", Double, nullable=False),  # steady, when it was in force last
)

# -- managed endpoints: those that no file declares ---------------------------------------------------------

endpoint = Table(
    "endpoint",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False, unique=True),
    # as one [[endpoint]] table of the file, without certificates, associations, routes and rules
    Column("settings", JSON, nullable=False),
    Column("server_certificate", Text, nullable=False),  # ARN
    Column(
        "client_certificate", Text, nullable=False
    ),  # ARN, of the authority that clients' certificates come from, or ''
    Column("vpc", Text, nullable=False),  # '' until the first association
    Column("created_at", Double, nullable=False),
)

crl = Table(
    "crl",
    metadata,
    Column("endpoint_id", Text, ForeignKey("endpoint.id", ondelete="CASCADE"), primary_key=True),
    Column("pem", Text, nullable=False),
    Column("imported_at", Double, nullable=False),
)

association = Table(
    "association",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("endpoint_id", Text, ForeignKey("endpoint.id"), nullable=False),
    Column("subnet", Text, nullable=False),
    Column("nat", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("endpoint_id", "subnet", name="association_unique"),
)

route = Table(
    "route",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("endpoint_id", Text, ForeignKey("endpoint.id"), nullable=False),
    Column("destination", Text, nullable=False),
    Column("target", Text, nullable=False),  # subnet id, or local
    Column("description", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("endpoint_id", "destination", "target", name="route_unique"),
)

# -- what the AWS-compatible API keeps beside them ----------------------------------------------------------

# Secrets are sealed (sealing.py): this row tells the right key file from others.
sealing = Table(
    "sealing",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="sealing_once"), primary_key=True, autoincrement=False),
    Column("proof", LargeBinary, nullable=False),
)

certificate = Table(
    "certificate",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("arn", Text, nullable=False, unique=True),
    Column("certificate", Text, nullable=False),
    Column("chain", Text, nullable=False),  # '' if there is none
    Column("private_key", LargeBinary, nullable=False),  # sealed
    Column("created_at", Double, nullable=False),
    Column("imported_at", Double, nullable=False),
)

access_key = Table(
    "access_key",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("created_at", Double, nullable=False),
)

tag = Table(
    "tag",
    metadata,
    Column("resource", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# For how long gateways on this database have run (server/steady_clock.py), and what their wall clock said then.
steady_clock = Table(
    "steady_clock",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="steady_clock_once"), primary_key=True, autoincrement=False),
    Column("seconds", Double, nullable=False),
    Column("wall", Double, nullable=False),
)

# What was answered to a request that may be repeated.
client_token = Table(
    "client_token",
    metadata,
    Column("action", Text, primary_key=True),
    Column("token", Text, primary_key=True),
    Column("request", Text, nullable=False),  # digest of its parameters
    Column("answer", JSON, nullable=False),
    Column("created_at", Double, nullable=False),  # steady
)

Index("client_token_created", client_token.c.created_at)

# What was deleted lately, as it is shown for a while to who waits for that.
gone = Table(
    "gone",
    metadata,
    Column("id", Text, primary_key=True),
    Column("view", JSON, nullable=False),
    Column("at", Double, nullable=False),
)

# Changes that were taken, each by its signature, for as long as that is good.
api_request = Table(
    "api_request",
    metadata,
    Column("signature", Text, primary_key=True),
    Column("sender", Text, nullable=False),  # the connection that it came by
    Column("at", Double, nullable=False),  # steady
)

Index("api_request_at", api_request.c.at)

log_group = Table(
    "log_group",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", Double, nullable=False),
)

log_stream = Table(
    "log_stream",
    metadata,
    Column("log_group", Text, ForeignKey("log_group.name"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("created_at", Double, nullable=False),
)

# Secrets of the gateway itself.
gateway_secret = Table(
    "gateway_secret",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False),  # sealed
)

# A user, their account in one directory, or one login, whose tokens with another mark are refused.
revoked_login = Table(
    "revoked_login",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("at", Double, nullable=False),  # steady
    Column("mark", LargeBinary, nullable=False),
)

# The directory "local", besides the users of the file.
local_user = Table(
    "local_user",
    metadata,
    Column("name", Text, primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("groups", JSON, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
)

# What an authenticator app shares with us, for users of any directory.
authenticator = Table(
    "authenticator",
    metadata,
    Column("directory", Text, primary_key=True),
    Column("username", Text, primary_key=True),
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("last_step", Integer, nullable=False),  # of the latest code that was taken; none up to it is taken again
    Column("recovery", JSON, nullable=False),  # digests of the recovery codes that are left
    Column("created_at", Double, nullable=False),
    Column("person", LargeBinary),  # who had the name then, as the directory tells them apart; NULL = it does not
)

# Codes that RADIUS servers have found right.
radius_code = Table(
    "radius_code",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("until", Double, nullable=False, index=True),  # steady; then it may be right again
)

# Passwords of logins at directories without a service account: who has no token of the login cannot open them.
kept_password = Table(
    "kept_password",
    metadata,
    Column("login_id", Text, primary_key=True),
    Column("directory", Text, nullable=False),
    Column("username", Text, nullable=False),  # as the directory writes it
    Column("sealed", LargeBinary, nullable=False),
    Column("logged_in_at", Double, nullable=False),
    Column("until", Double, nullable=False, index=True),
)

saml_provider = Table(
    "saml_provider",
    metadata,
    Column("arn", Text, primary_key=True),
    Column("metadata", Text, nullable=False),
    Column("valid_until", Double),
    Column("created_at", Double, nullable=False),
)

# Requests to identity providers and assertions of theirs that have been used.
saml_spent = Table(
    "saml_spent",
    metadata,
    Column("key", Text, primary_key=True),
    Column("until", Double, nullable=False, index=True),  # steady; then it would be refused anyway
)

# Who logged in there, for those who come back with the token of that login.
saml_login = Table(
    "saml_login",
    metadata,
    Column("login_id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("username", Text, nullable=False),
    Column("groups", JSON, nullable=False),
    Column("until", Double, nullable=False, index=True),
)

# Metadata as it was fetched last, for a start while nobody answers.
saml_metadata = Table(
    "saml_metadata",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("fetched_at", Double, nullable=False),
)
