"""Reading revocation lists: what counts as one, which CA signed it, whom it revokes."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID, NameOID
from helpers import certs

from cvpnd.auth.crl import CrlEdition, certificate_key, parse_crls, read_crl
from cvpnd.auth.names import canonical_name

AUTHORITY = certs.authority()
MIDDLE = certs.intermediate()
BUNDLE = (AUTHORITY.certificate, MIDDLE.certificate)
START, DAY = certs.START, certs.DAY


def key_of(certificate: certs.TestCertificate):
    return certificate_key(certificate.certificate)


def test_pem_and_der_are_the_same_list():
    crl = certs.certificate_revocation_list(revoked=[certs.client("bob")])
    pem = read_crl(certs.crl_pem(crl), BUNDLE)
    assert pem == read_crl(crl.public_bytes(serialization.Encoding.DER), BUNDLE)
    assert pem.problem is None
    assert certs.revoked_by(pem) == {key_of(certs.client("bob"))}


def test_twenty_thousand_entries_are_all_found():
    crl = read_crl(certs.crl_pem(certs.large_revocation_list(20_000, certs.client("bob"))), BUNDLE)
    revoked = certs.revoked_by(crl)
    assert len(revoked) == 20_001
    assert key_of(certs.client("bob")) in revoked
    assert key_of(certs.client("alice")) not in revoked


def test_a_serial_number_is_revoked_only_for_its_issuer():
    serial = certs.client("bob").certificate.serial_number
    namesake = certs.issue(MIDDLE, certs.common_name("other"), serial=serial)
    crl = read_crl(certs.crl_pem(certs.certificate_revocation_list(revoked=[serial])), BUNDLE)
    assert certs.revoked_by(crl) == {key_of(certs.client("bob"))}
    assert key_of(namesake) not in certs.revoked_by(crl)


def test_text_around_the_lists_is_skipped():
    data = b"Acme's list, by hand\n" + certs.crl_pem(certs.certificate_revocation_list()) + b"\nend\n"
    assert len(parse_crls(data)) == 1


def test_the_newest_list_of_one_authority_counts():
    old = certs.certificate_revocation_list(revoked=[certs.client("old")], start=START - 9 * DAY, end=START - DAY)
    new = certs.certificate_revocation_list(revoked=[certs.client("bob")], number=2)
    for order in ((old, new), (new, old)):
        crl = read_crl(certs.crl_pem(*order), BUNDLE)
        assert certs.revoked_by(crl) == {key_of(certs.client("bob"))}
        assert crl.next_update() == START + 30 * DAY


def test_two_authorities_of_one_name_keep_both_their_lists():
    renewed = certs.issue(None, AUTHORITY.certificate.subject, is_ca=True)
    lists = (
        certs.certificate_revocation_list(revoked=[1001]),
        certs.certificate_revocation_list(renewed, revoked=[1002]),
    )
    crl = read_crl(certs.crl_pem(*lists), (AUTHORITY.certificate, renewed.certificate))
    name = canonical_name(AUTHORITY.certificate.subject)
    assert certs.revoked_by(crl) == {(name, 1001), (name, 1002)}


@pytest.mark.parametrize(
    ("in_crl", "in_certificate", "same"),
    [
        ("Acme CA", "ACME  ca", True),
        (" Acme CA", "Acme CA ", True),
        ("Acme CA", "Acme CB", False),
        ("Straße", "STRASSE", True),
    ],
)
def test_issuer_names_compare_without_case_spaces_and_string_type(in_crl, in_certificate, same):
    def name(text: str, kind: _ASN1Type) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, kind, _validate=False)])

    one, other = name(in_crl, _ASN1Type.UTF8String), name(in_certificate, _ASN1Type.BMPString)
    assert (canonical_name(one) == canonical_name(other)) is same


def test_one_attribute_cannot_pose_as_two():
    one = certs.common_name("a',2.5.4.3='b")
    two = certs.common_name("a", "b")
    assert canonical_name(one) != canonical_name(two)


DELTA = (x509.DeltaCRLIndicator(1), True)
INDIRECT = (
    x509.IssuingDistributionPoint(
        None, None, False, False, None, indirect_crl=True, only_contains_attribute_certs=False
    ),
    True,
)
SOME_REASONS = (
    x509.IssuingDistributionPoint(None, None, False, False, frozenset([x509.ReasonFlags.key_compromise]), False, False),
    True,
)
ATTRIBUTES = (x509.IssuingDistributionPoint(None, None, False, False, None, False, True), True)
UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.2"), b"\x05\x00"), True)
NO_CRL_SIGN = certs.issue(
    None, certs.common_name("Signs no CRL"), is_ca=True, key_usage=certs.key_usage(key_cert_sign=True)
)


EDI_PARTY = bytes.fromhex("3007a505a1030c0141")
UNREADABLE_POINT = (
    x509.UnrecognizedExtension(ExtensionOID.ISSUING_DISTRIBUTION_POINT, bytes.fromhex("300ba009a007a505a1030c0141")),
    True,
)


def _with_an_entry(*extensions: tuple[x509.ExtensionType, bool]) -> x509.CertificateRevocationList:
    """Another entry follows it."""
    entry = x509.RevokedCertificateBuilder(7, START)
    for extension, critical in extensions:
        entry = entry.add_extension(extension, critical=critical)
    builder = x509.CertificateRevocationListBuilder(AUTHORITY.certificate.subject, START, START + DAY)
    for revoked in (entry.build(), x509.RevokedCertificateBuilder(8, START).build()):
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(AUTHORITY.private_key, hashes.SHA256())


def _with_an_entry_of_another_issuer() -> x509.CertificateRevocationList:
    return _with_an_entry((x509.CertificateIssuer([x509.DirectoryName(MIDDLE.certificate.subject)]), True))


def _with_two_reasons() -> x509.CertificateRevocationList:
    other = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), b"\x0a\x01\x01")
    made = _with_an_entry((x509.CRLReason(x509.ReasonFlags.key_compromise), False), (other, False))
    to_sign = made.tbs_certlist_bytes.replace(bytes.fromhex("0603551d63"), bytes.fromhex("0603551d15"))
    signature = b"\0" + AUTHORITY.private_key.sign(to_sign, ec.ECDSA(hashes.SHA256()))
    body = to_sign + bytes.fromhex("300a06082a8648ce3d040302") + bytes([3, len(signature)]) + signature
    return x509.load_der_x509_crl(b"\x30\x81" + bytes([len(body)]) + body)


@pytest.mark.parametrize(
    "make",
    [
        lambda: _with_an_entry((x509.UnrecognizedExtension(CRLEntryExtensionOID.CRL_REASON, b"\x0a\x01\x07"), False)),
        lambda: _with_an_entry((x509.UnrecognizedExtension(CRLEntryExtensionOID.CRL_REASON, b"\x05\x00"), False)),
        _with_two_reasons,
    ],
)
def test_an_entry_that_says_more_than_can_be_read_revokes_and_the_others_too(make, caplog):
    crl = read_crl(certs.crl_pem(make()), BUNDLE)
    assert crl.problem is None
    assert crl.names_serial(7) and crl.names_serial(8)
    (record,) = caplog.records
    assert "CRL of CN=Test CA" in record.getMessage() and "serial 7" in record.getMessage()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: certs.certificate_revocation_list(extensions=[DELTA]), "it is a delta CRL"),
        (lambda: certs.certificate_revocation_list(extensions=[INDIRECT]), "it is an indirect CRL"),
        (lambda: certs.certificate_revocation_list(extensions=[SOME_REASONS]), "it covers only some reasons"),
        (lambda: certs.certificate_revocation_list(extensions=[ATTRIBUTES]), "or attribute certificates"),
        (lambda: _with_an_entry_of_another_issuer(), "an entry of it has the unknown critical extension 2.5.29.29"),
        (
            lambda: _with_an_entry(
                (x509.UnrecognizedExtension(CRLEntryExtensionOID.CERTIFICATE_ISSUER, EDI_PARTY), True)
            ),
            "its entry with serial 7 cannot be read, and may be of another issuer",
        ),
        (
            lambda: certs.certificate_revocation_list(extensions=[UNREADABLE_POINT]),
            "CN=Test CA: it has an extension that cannot be read",
        ),
        (
            lambda: certs.certificate_revocation_list(extensions=[UNKNOWN]),
            "unknown critical extension 1.3.6.1.4.1.55555.2",
        ),
        (
            lambda: certs.certificate_revocation_list(certs.authority("Another CA")),
            "CN=Another CA: no certificate auth",
        ),
        (lambda: certs.certificate_revocation_list(signer=MIDDLE), "no certificate authority in the bundle signed it"),
        (lambda: certs.certificate_revocation_list(NO_CRL_SIGN), "no certificate authority in the bundle signed it"),
    ],
)
def test_a_list_that_must_not_be_relied_upon_makes_the_file_unusable(make, problem):
    good = certs.certificate_revocation_list(MIDDLE)
    crl = read_crl(certs.crl_pem(good, make()), (*BUNDLE, NO_CRL_SIGN.certificate))
    assert problem in crl.problem
    assert not certs.revoked_by(crl)


def test_a_signature_that_was_tampered_with_makes_the_file_unusable():
    der = bytearray(
        certs.certificate_revocation_list(revoked=[certs.client("bob")]).public_bytes(serialization.Encoding.DER)
    )
    position = bytes(der).index(certs.client("bob").certificate.serial_number.to_bytes(20, "big").lstrip(b"\0"))
    der[position + 3] ^= 1
    assert "no certificate authority in the bundle signed it" in read_crl(bytes(der), BUNDLE).problem


@pytest.mark.parametrize("keep", [0, 1, 10, 0.3, 0.99])
def test_a_file_that_is_cut_off_raises(keep):
    lists = certs.crl_pem(certs.certificate_revocation_list(MIDDLE), certs.certificate_revocation_list())
    length = int(len(lists) * keep) if isinstance(keep, float) else keep
    with pytest.raises(ValueError):
        read_crl(lists[:length], BUNDLE)


@pytest.mark.parametrize("length", [1, 40, 200, -1])
def test_der_that_is_cut_off_raises(length):
    der = certs.certificate_revocation_list(revoked=[1, 2, 3]).public_bytes(serialization.Encoding.DER)
    with pytest.raises(ValueError):
        read_crl(der[:length], BUNDLE)


# --- going back -------------------------------------------------------------------------------------------------------


def _list(*, days: float = 1, number: int = 1, issuer: certs.TestCertificate = AUTHORITY):
    crl = certs.certificate_revocation_list(issuer, start=START - days * DAY, number=number)
    return read_crl(certs.crl_pem(crl), BUNDLE)


@pytest.mark.parametrize(
    ("days", "number", "goes_back"),
    [
        (10, 5, False),  # the same
        (9, 6, False),
        (9, 5, False),  # by a CA that does not count
        (10, 6, False),
        (9, 1, False),  # by a CA that was set up anew
        (11, 6, False),  # by a CA whose clock was put right
        (11, 4, True),
        (11, 5, True),
        (10, 4, True),
    ],
)
def test_a_list_goes_back_where_nothing_of_it_is_later_and_something_earlier(days, number, goes_back):
    known = _list(days=10, number=5).editions()
    problem = _list(days=days, number=number).goes_back_from(known)
    assert (problem is not None) == goes_back
    if goes_back:
        assert f"number {number} of " in problem and "number 5 of " in problem and "CN=Test CA" in problem


@pytest.mark.parametrize("numbers", [(None, 5), (5, None), (None, None)])
def test_where_one_of_two_lists_has_no_number_their_dates_alone_count(numbers):
    """A CA that has begun to count, or has left off."""
    one, other = (CrlEdition("CN=Test CA", START + days * DAY, number) for days, number in enumerate(numbers))
    assert one.older_than(other) and not other.older_than(one)
    assert not CrlEdition("CN=Test CA", START, numbers[1]).older_than(one), "of the same moment"
    assert str(CrlEdition("CN=Test CA", START, None)).startswith("of 20")


def test_going_back_is_a_matter_of_each_authority_and_of_what_is_not_there_any_more():
    both = certs.crl_pem(certs.certificate_revocation_list(), certs.certificate_revocation_list(MIDDLE))
    known = read_crl(both, BUNDLE).editions()
    assert len(known) == 2
    assert "CN=Test Intermediate CA, which is in force, is not in it" in _list().goes_back_from(known)
    assert read_crl(both, BUNDLE).goes_back_from(_list(days=2, issuer=MIDDLE).editions()) is None
    rekeyed = certs.issue(None, AUTHORITY.certificate.subject, is_ca=True)
    theirs = certs.crl_pem(certs.certificate_revocation_list(rekeyed, start=START - 5 * DAY, number=0))
    bundle = (*BUNDLE, rekeyed.certificate)
    assert "is not in it" in read_crl(theirs, bundle).goes_back_from(_list().editions())
    assert read_crl(theirs + certs.crl_pem(certs.certificate_revocation_list()), bundle).goes_back_from(
        _list().editions()
    ) is None  # fmt: skip
