"""The table of subjects and the name, or the refusal, that each gives (CVE-2026-63650: a wrong field as identity)."""

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from helpers import certs

from cvpnd.auth.identity import Refused, common_name
from cvpnd.reasons import Refusal

CN, ORG, OU, EMAIL, UID = (
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.ORGANIZATIONAL_UNIT_NAME,
    NameOID.EMAIL_ADDRESS,
    NameOID.USER_ID,
)
NONE, BAD = Refusal.CERTIFICATE_NO_COMMON_NAME, Refusal.CERTIFICATE_INVALID


def subject(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value, _validate=False) for oid, value in attributes])


def encoded(value: str, kind: _ASN1Type) -> x509.Name:
    return x509.Name([x509.NameAttribute(CN, value, kind, _validate=False)])


SUBJECTS = [
    pytest.param(subject((CN, "alice")), "alice", id="one"),
    pytest.param(subject((CN, "first"), (CN, "last")), "last", id="the-last-of-two"),
    pytest.param(
        subject((CN, "alice"), (ORG, "Acme"), (EMAIL, "bob@example.com"), (UID, "carol")), "alice", id="others"
    ),
    pytest.param(
        x509.Name(
            [
                x509.RelativeDistinguishedName(
                    [x509.NameAttribute(CN, "alice"), x509.NameAttribute(OU, "together in one RDN")]
                ),
                x509.RelativeDistinguishedName([x509.NameAttribute(ORG, "after")]),
            ]
        ),
        "alice",
        id="multi-valued-rdn",
    ),
    pytest.param(subject((CN, "Zoë Łódź 王")), "Zoë Łódź 王", id="unicode"),
    pytest.param(subject((CN, "a=b, CN=c/d\\e\"f'")), "a=b, CN=c/d\\e\"f'", id="punctuation-is-only-text"),
    pytest.param(subject((CN, "x" * 64)), "x" * 64, id="64-characters"),
    pytest.param(encoded("alice", _ASN1Type.PrintableString), "alice", id="printable-string"),
    pytest.param(encoded("alice", _ASN1Type.IA5String), "alice", id="ia5-string"),
    pytest.param(encoded("Zoë", _ASN1Type.BMPString), "Zoë", id="bmp-string"),
    pytest.param(subject((ORG, "Acme")), NONE, id="no-cn"),
    pytest.param(x509.Name([]), NONE, id="empty-subject"),
    pytest.param(subject((EMAIL, "alice@example.com"), (UID, "alice")), NONE, id="only-other-names"),
    pytest.param(subject((CN, " ")), NONE, id="only-a-space"),
    pytest.param(subject((CN, "alice"), (CN, " ")), NONE, id="the-last-is-blank"),
    pytest.param(subject((CN, "x" * 65)), BAD, id="65-characters"),
    pytest.param(subject((CN, "admin\0.example.com")), BAD, id="nul"),
    pytest.param(subject((CN, "alice\n2026 forged log line")), BAD, id="newline"),
    pytest.param(subject((CN, "alice\x1b[2J")), BAD, id="escape"),
    pytest.param(subject((CN, "alice\x7f")), BAD, id="delete"),
    pytest.param(subject((CN, "alice\x85")), BAD, id="c1-control"),
    pytest.param(subject((CN, "alice\u202ebob")), BAD, id="right-to-left-override"),
    pytest.param(subject((CN, "ali\u200bce")), BAD, id="zero-width-space"),
    pytest.param(subject((CN, "alice\u2028")), BAD, id="line-separator"),
    pytest.param(subject((CN, " alice")), BAD, id="leading-space"),
    pytest.param(subject((CN, "alice ")), BAD, id="trailing-space"),
]


@pytest.mark.parametrize(("name", "expected"), SUBJECTS)
def test_identity_table(name, expected):
    certificate = certs.client_with_subject(name).certificate
    result = common_name(x509.load_der_x509_certificate(certificate.public_bytes(certs.serialization.Encoding.DER)))
    if isinstance(expected, Refusal):
        assert isinstance(result, Refused), result
        assert result.refusal is expected
        assert result.detail.isprintable(), "what a log line holds must not carry the characters that were refused"
    else:
        assert result == expected


def test_an_alternative_name_is_never_an_identity():
    names = [x509.DNSName("admin"), x509.RFC822Name("admin@example.com")]
    nameless = certs.issue(
        certs.authority(), subject((ORG, "Acme")), names=names, usage=(ExtendedKeyUsageOID.CLIENT_AUTH,)
    )
    assert common_name(nameless.certificate) == Refused(NONE, "the subject has no common name")
    alice = certs.issue(certs.authority(), subject((CN, "alice")), names=names)
    assert common_name(alice.certificate) == "alice"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x0c\x05alice", b"\x0c\x05al\xff\xfee"),  # not UTF-8
        (b"\x0c\x05alice", b"\x03\x05\x00lice"),  # a bit string
    ],
)
def test_a_name_that_is_no_text_is_refused_and_raises_nothing(old, new):
    der = certs.client_with_subject(subject((CN, "alice"))).certificate.public_bytes(certs.serialization.Encoding.DER)
    assert der.count(old) == 1
    result = common_name(x509.load_der_x509_certificate(der.replace(old, new)))
    assert isinstance(result, Refused), result
    assert result.refusal is BAD
