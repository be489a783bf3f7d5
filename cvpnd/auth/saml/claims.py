"""What a signed assertion says, and whether it says it to us, now, and in answer to what we asked.

Only called with a document whose signatures are good. Each condition that fails has a reason of its own, because the
administrator's remedy is another one each time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from xml.etree.ElementTree import Element

from cvpnd.auth.identity import problem_with_characters
from cvpnd.auth.saml.document import Document
from cvpnd.auth.saml.model import (
    ASSERTION,
    BEARER,
    MAX_GROUP_CHARACTERS,
    MAX_GROUPS,
    MAX_NAME_CHARACTERS,
    PROTOCOL,
    SUCCESS,
    TRANSIENT,
    XML_SPACE,
    Assertion,
    NotAccepted,
    PendingRequest,
)
from cvpnd.reasons import Refusal

_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", re.ASCII)
_KNOWN_CONDITIONS = ("AudienceRestriction", "OneTimeUse", "ProxyRestriction")


def read_claims(
    document: Document, request: PendingRequest, *, issuer: str, audience: str, now: float, skew_s: float
) -> Assertion:
    """Raises ``NotAccepted``. ``issuer``, ``audience``: entity ids of the identity provider and of ourselves."""
    response, assertion = document.response, document.assertion
    _check_response(response, request, issuer, now + skew_s)
    if assertion.get("Version") != "2.0":
        raise NotAccepted(Refusal.SAML_MALFORMED, f"an assertion of version {assertion.get('Version', '')[:10]!r}")
    _check_issuer(assertion, issuer)
    ends = [_check_subject(assertion, request, now, skew_s), _check_conditions(assertion, audience, now, skew_s)]
    session_ends_at = _session_end(assertion, now, skew_s)
    attributes = _attributes(assertion)
    return Assertion(
        id=document.assertion_id,
        name=_name(assertion),
        groups=_groups(attributes),
        first_name=_first(attributes, "FirstName"),
        last_name=_first(attributes, "LastName"),
        attributes=attributes,
        session_ends_at=session_ends_at,
        expires_at=max(ends) + skew_s,
    )


def _check_response(response: Element, request: PendingRequest, issuer: str, latest: float) -> None:
    if response.get("Version") != "2.0":
        raise NotAccepted(Refusal.SAML_MALFORMED, f"a response of version {response.get('Version', '')[:10]!r}")
    _check_issuer(response, issuer)
    if (to := response.get("Destination")) != request.acs_url:
        raise NotAccepted(Refusal.SAML_WRONG_DESTINATION, f"for {_shown(to)}, not for {request.acs_url}")
    if (asked := response.get("InResponseTo")) != request.id:
        raise NotAccepted(Refusal.SAML_WRONG_REQUEST, f"the response answers {_shown(asked)}, not {request.id}")
    codes = response.findall(f"{{{PROTOCOL}}}Status/{{{PROTOCOL}}}StatusCode")
    if [code.get("Value") for code in codes] != [SUCCESS]:
        words = [element.get("Value", "").rpartition(":")[2] for element in response.iter(f"{{{PROTOCOL}}}StatusCode")]
        said = response.findtext(f"{{{PROTOCOL}}}Status/{{{PROTOCOL}}}StatusMessage") or ""
        raise NotAccepted(Refusal.SAML_NO_SUCCESS, f"the identity provider says {' '.join(words)} {said}"[:200].strip())
    if _moment(response, "IssueInstant") > latest:
        raise NotAccepted(Refusal.SAML_NOT_YET_VALID, "it was issued later than now; compare the clocks")


def _check_issuer(element: Element, issuer: str) -> None:
    found = _text(element.find(f"{{{ASSERTION}}}Issuer"))
    if found != issuer:
        raise NotAccepted(Refusal.SAML_WRONG_ISSUER, f"issued by {_shown(found)}, not by {issuer}")


def _check_subject(assertion: Element, request: PendingRequest, now: float, skew_s: float) -> float:
    """When its confirmation ends."""
    confirmations = _only(assertion, "Subject").findall(f"{{{ASSERTION}}}SubjectConfirmation")
    if [each.get("Method") for each in confirmations] != [BEARER]:
        raise NotAccepted(Refusal.SAML_MALFORMED, "its subject has not one bearer confirmation")
    data = _only(confirmations[0], "SubjectConfirmationData")
    if (to := data.get("Recipient")) != request.acs_url:
        raise NotAccepted(Refusal.SAML_WRONG_RECIPIENT, f"for {_shown(to)}, not for {request.acs_url}")
    if (asked := data.get("InResponseTo")) != request.id:
        raise NotAccepted(Refusal.SAML_WRONG_REQUEST, f"the assertion answers {_shown(asked)}, not {request.id}")
    return _check_times(data, "its subject's confirmation", now, skew_s, needs_begin=False)


def _check_conditions(assertion: Element, audience: str, now: float, skew_s: float) -> float:
    """When they end."""
    conditions = _only(assertion, "Conditions")
    restrictions = conditions.findall(f"{{{ASSERTION}}}AudienceRestriction")
    named = [[_text(each) for each in one.findall(f"{{{ASSERTION}}}Audience")] for one in restrictions]
    if not named or not all(audience in names for names in named):
        shown = ", ".join(_shown(name) for names in named for name in names)[:200]
        raise NotAccepted(Refusal.SAML_WRONG_AUDIENCE, f"for {shown or 'nobody'}, not for {audience}")
    for condition in conditions:
        if condition.tag not in {f"{{{ASSERTION}}}{name}" for name in _KNOWN_CONDITIONS}:
            raise NotAccepted(Refusal.SAML_MALFORMED, f"a condition that is not known: {condition.tag[:80]}")
    return _check_times(conditions, "it", now, skew_s, needs_begin=True)


def _check_times(element: Element, what: str, now: float, skew_s: float, *, needs_begin: bool) -> float:
    begin = _moment(element, "NotBefore") if needs_begin or "NotBefore" in element.attrib else now
    end = _moment(element, "NotOnOrAfter")
    if now + skew_s < begin:
        raise NotAccepted(Refusal.SAML_NOT_YET_VALID, f"{what} is valid in {begin - now:.0f} s")
    if now - skew_s >= end:
        raise NotAccepted(Refusal.SAML_EXPIRED, f"{what} has expired {now - end:.0f} s ago")
    return end


def _session_end(assertion: Element, now: float, skew_s: float) -> float | None:
    statements = assertion.findall(f"{{{ASSERTION}}}AuthnStatement")
    if not statements:
        raise NotAccepted(Refusal.SAML_MALFORMED, "it does not say that somebody has logged in")
    ends = [_moment(each, "SessionNotOnOrAfter") for each in statements if "SessionNotOnOrAfter" in each.attrib]
    if ends and min(ends) <= now - skew_s:
        raise NotAccepted(Refusal.SAML_EXPIRED, f"the login has ended {now - min(ends):.0f} s ago")
    return min(ends, default=None)


def _name(assertion: Element) -> str:
    element = _only(_only(assertion, "Subject"), "NameID", Refusal.SAML_NO_NAME)
    name = _text(element) or ""
    if element.get("Format") == TRANSIENT:
        raise NotAccepted(
            Refusal.SAML_NO_NAME, "its NameID is transient, so it names nobody; let it be the e-mail address"
        )
    if len(name) > MAX_NAME_CHARACTERS:  # cut, it might be another's
        raise NotAccepted(
            Refusal.SAML_NO_NAME,
            f"its NameID has {len(name)} characters; let it be the e-mail address, of up to {MAX_NAME_CHARACTERS}",
        )
    if not name or (problem := problem_with_characters(name)) is not None:
        raise NotAccepted(Refusal.SAML_NO_NAME, f"its NameID {problem if name else 'is empty'}")
    return name


def _attributes(assertion: Element) -> dict[str, tuple[str, ...]]:
    """Those with values, which are text: others are none of ours."""
    found: dict[str, tuple[str, ...]] = {}
    for attribute in assertion.iterfind(f"{{{ASSERTION}}}AttributeStatement/{{{ASSERTION}}}Attribute"):
        texts = [_text(value) for value in attribute.findall(f"{{{ASSERTION}}}AttributeValue")]
        values = tuple(text for text in texts if text)
        if (name := attribute.get("Name", "")) and values:
            found[name] = found.get(name, ()) + values
    if not found:
        raise NotAccepted(
            Refusal.SAML_NO_ATTRIBUTES, "it has no attribute; let the identity provider send FirstName, or memberOf"
        )
    return found


def _groups(attributes: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """In the order of the assertion, so that everybody knows which ones are too many. One whose name is too long is
    left out: cut, it might be another."""
    return frozenset(each for each in attributes.get("memberOf", ())[:MAX_GROUPS] if len(each) <= MAX_GROUP_CHARACTERS)


def _first(attributes: Mapping[str, tuple[str, ...]], name: str) -> str:
    return attributes.get(name, ("",))[0]


# -- elements -----------------------------------------------------------------------------------------------


def _only(parent: Element, name: str, refusal: Refusal = Refusal.SAML_MALFORMED) -> Element:
    found = parent.findall(f"{{{ASSERTION}}}{name}")
    if len(found) != 1:
        raise NotAccepted(refusal, f"{len(found)} of {name} in it")
    return found[0]


def _text(element: Element | None) -> str | None:
    """None unless it is text and nothing else."""
    return None if element is None or len(element) else (element.text or "").strip(XML_SPACE)


def _moment(element: Element, name: str) -> float:
    """Seconds since the epoch."""
    found = _MOMENT.fullmatch(element.get(name, ""))
    try:
        if found is not None:
            return datetime.fromisoformat(f"{found[1]}+00:00").timestamp()
    except ValueError:
        pass
    raise NotAccepted(Refusal.SAML_MALFORMED, f"{name} is {_shown(element.get(name))}")


def _shown(text: str | None) -> str:
    return "nothing" if text is None else repr(text[:120])
