"""Who a client certificate says its holder is.

The name is the common name of the subject. When a subject carries several, the last one counts, as OpenVPN's
``--x509-username-field CN`` does, so that a PKI behaves here as it did there. Nothing else in the certificate is ever a
name: no subjectAltName, no e-mail address, no other attribute (CVE-2026-63650 was such a mix-up).

A name is compared, logged, put in file names and shown to people. What could make two names look or compare alike is
refused rather than repaired: control and format characters, surrounding spaces, more than 64 characters (RFC 5280
ub-common-name, and OpenVPN's own limit)."""

import unicodedata
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from cvpnd.reasons import Refusal
from cvpnd.remembered import remembered

MAX_NAME_CHARACTERS = 64
MAX_USER_NAME_CHARACTERS = 255
"""In a directory, and as people type it, with its realm perhaps."""

# Cc control, Cf format (bidirectional overrides), Cs surrogates, Co private, Cn unassigned, Zl and Zp line ends.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(frozen=True)
class Refused:
    """A refusal and the sentence that goes with it in the log."""

    refusal: Refusal
    detail: str


@remembered
def common_name(certificate: x509.Certificate) -> str | Refused:
    """The identity in a certificate, or why there is none. Never raises for what a certificate contains. Asked several
    times while it logs in."""
    try:
        attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError) as error:  # both, of cryptography 50, for an attribute of an unfit ASN.1 type
        return Refused(Refusal.CERTIFICATE_INVALID, f"the subject cannot be read: {error}")
    if not attributes:
        return Refused(Refusal.CERTIFICATE_NO_COMMON_NAME, "the subject has no common name")
    value = attributes[-1].value
    if not isinstance(value, str):
        return Refused(Refusal.CERTIFICATE_INVALID, "the common name is not text")
    if not value.strip():
        return Refused(Refusal.CERTIFICATE_NO_COMMON_NAME, "the common name is empty")
    if (problem := problem_with_name(value)) is not None:
        return Refused(Refusal.CERTIFICATE_INVALID, f"the common name {problem}")
    return value


def problem_with_name(name: str) -> str | None:
    """What forbids ``name`` as an identity, as the end of a sentence; None when nothing does."""
    if len(name) > MAX_NAME_CHARACTERS:
        return f"has {len(name)} characters; at most {MAX_NAME_CHARACTERS} are allowed"
    return problem_with_characters(name)


def problem_with_user_name(name: str) -> str | None:
    """The same for a name of a directory."""
    if len(name) > MAX_USER_NAME_CHARACTERS:
        return f"has {len(name)} characters; at most {MAX_USER_NAME_CHARACTERS} are allowed"
    return problem_with_characters(name)


def problem_with_characters(name: str) -> str | None:
    """The same for a name that may be longer."""
    for character in name:
        if unicodedata.category(character) in _REFUSED_CATEGORIES:
            return f"contains the character U+{ord(character):04X}, which no name may contain"
    if name != name.strip():
        return "begins or ends with a space"
    if not name:
        return "is empty"
    return None
