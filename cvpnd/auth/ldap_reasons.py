"""Why a directory lets somebody not in, in our words: what it answers to a bind, and what the entry itself says."""

from __future__ import annotations

import re
import time
from datetime import datetime

from ldap3.protocol.formatters.formatters import format_time
from pyasn1.codec.ber import decoder
from pyasn1.error import PyAsn1Error
from pyasn1.type import namedtype, tag, univ

from cvpnd.auth.ldap import SUCCESS, BindAnswer, Entry
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
DISABLED_BIT = 2
"""Of userAccountControl."""
NEVER = (0, 0x7FFF_FFFF_FFFF_FFFF)
"""Of accountExpires."""
FILETIME_EPOCH_S = 11_644_473_600
LOCKED_FOR_GOOD = "000001010000Z"
"""Of pwdAccountLockedTime: by an administrator."""


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


def entry_refusal(entry: Entry) -> Refusal | None:
    """What it says against its account. Of what is no number nobody knows whether it says so."""
    control, expires, now = entry.text("userAccountControl"), entry.text("accountExpires"), time.time()
    if control and not (control.isdecimal() and not int(control) & DISABLED_BIT):
        return Refusal.ACCOUNT_DISABLED
    if expires.isdecimal() and int(expires) not in NEVER and int(expires) / 1e7 - FILETIME_EPOCH_S < now:
        return Refusal.ACCOUNT_EXPIRED
    begins, ends = _moment(entry, "pwdStartTime", now), _moment(entry, "pwdEndTime", float("inf"))
    if not begins <= now < ends:
        return Refusal.ACCOUNT_EXPIRED
    locked = entry.text("pwdAccountLockedTime") == LOCKED_FOR_GOOD or entry.text("nsAccountLock").lower() == "true"
    return Refusal.ACCOUNT_DISABLED if locked else None


def _moment(entry: Entry, attribute: str, otherwise: float) -> float:
    """Of a GeneralizedTime. One that nobody can read is no time at which anybody may log in."""
    values = entry.attributes.get(attribute.lower())
    if not values:
        return otherwise
    moment = format_time(values[0])
    return moment.timestamp() if isinstance(moment, datetime) else float("nan")
