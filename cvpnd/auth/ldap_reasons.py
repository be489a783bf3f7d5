"""Why a directory server refused a bind, in our words."""

from __future__ import annotations

import re

from pyasn1.codec.ber import decoder
from pyasn1.error import PyAsn1Error
from pyasn1.type import namedtype, tag, univ

from cvpnd.auth.ldap import SUCCESS, BindAnswer
from cvpnd.reasons import Refusal

_AD_DATA = re.compile(r"\bdata ([0-9a-f]{3,4})\b")
_AD_REASONS = {
    "525": Refusal.USER_UNKNOWN,
    "52e": Refusal.WRONG_PASSWORD,
    "530": Refusal.LOGON_HOURS,
    "531": Refusal.LOGON_HOURS,  # not from this workstation
    "532": Refusal.PASSWORD_EXPIRED,
    "533": Refusal.ACCOUNT_DISABLED,
    "701": Refusal.ACCOUNT_EXPIRED,
    "773": Refusal.MUST_CHANGE_PASSWORD,
    "775": Refusal.ACCOUNT_LOCKED,
}
_POLICY_REASONS = {
    0: Refusal.PASSWORD_EXPIRED,
    1: Refusal.ACCOUNT_LOCKED,
    2: Refusal.MUST_CHANGE_PASSWORD,
}


def bind_refusal(answer: BindAnswer) -> Refusal | None:
    """None: the password is right, and good for a login. Whatever is not understood is a wrong password."""
    policy = _POLICY_REASONS.get(_policy_error(answer.policy))
    if answer.code == SUCCESS:
        return policy  # OpenLDAP lets in whoever must change the password, to do that and nothing else
    found = _AD_DATA.search(answer.message)
    return policy or (_AD_REASONS.get(found[1]) if found else None) or Refusal.WRONG_PASSWORD


class _Warning(univ.Choice):  # type: ignore[misc]
    componentType = namedtype.NamedTypes(
        namedtype.NamedType("left_s", univ.Integer().subtype(implicitTag=tag.Tag(tag.tagClassContext, 0, 0))),
        namedtype.NamedType("graces", univ.Integer().subtype(implicitTag=tag.Tag(tag.tagClassContext, 0, 1))),
    )


class _PolicyResponse(univ.Sequence):  # type: ignore[misc]
    """draft-behera-ldap-password-policy, section 6.2"""

    componentType = namedtype.NamedTypes(
        namedtype.OptionalNamedType("warning", _Warning().subtype(explicitTag=tag.Tag(tag.tagClassContext, 32, 0))),
        namedtype.OptionalNamedType("error", univ.Enumerated().subtype(implicitTag=tag.Tag(tag.tagClassContext, 0, 1))),
    )


def _policy_error(value: bytes) -> int:
    """-1: none."""
    if not value:
        return -1
    try:
        response, _ = decoder.decode(value, asn1Spec=_PolicyResponse())
    except PyAsn1Error:
        return -1
    return int(response["error"]) if response["error"].isValue else -1
