"""Distinguished names, compared as RFC 5280 section 7.1 asks."""

from __future__ import annotations

from typing import NewType

from cryptography import x509

CanonicalName = NewType("CanonicalName", str)
"""Equal for equal names."""


def canonical_name(name: x509.Name) -> CanonicalName:
    """Letter case, runs of spaces and the string type do not distinguish names: "Acme CA" as UTF8String in the CRL is
    "ACME  CA" as PrintableString in a certificate. Comparing the bytes would let that certificate's revocation slip."""
    parts = []
    for rdn in name.rdns:
        attributes = sorted((a.oid.dotted_string, _canonical_value(a.value)) for a in rdn)
        parts.append("+".join(f"{oid}={value}" for oid, value in attributes))
    return CanonicalName(",".join(parts))


def _canonical_value(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return "#" + value.hex()
    # Quoted and escaped by repr(), so that a "," or "=" in one value cannot pose as a second attribute.
    return repr(" ".join(value.split()).casefold())
