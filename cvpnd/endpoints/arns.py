"""ARNs: the names that AWS's tools have for things here."""

from __future__ import annotations

ACCOUNT = "000000000000"
"""Stands where ARNs have the account: there is only one here."""
LOCAL_REGION = "local"


def saml_provider_arn(name: str) -> str:
    """Of one that was made at run time by its name, of one of the file by its id."""
    return f"arn:aws:iam::{ACCOUNT}:saml-provider/{name}"
