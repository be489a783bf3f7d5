"""Authorities that divide their revocation lists: a certificate is judged by those that are about it, and no others."""

from __future__ import annotations

import pytest
from cryptography import x509
from helpers import certs
from helpers.handshake import client_context, shake_hands

from cvpnd.auth.crl import read_crl
from cvpnd.auth.watch import TrustKeeper
from cvpnd.reasons import Refusal
from cvpnd.wire.presented import NO_PATH, CertificationPath

AUTHORITY, MIDDLE = certs.authority(), certs.intermediate()
START, DAY = certs.START, certs.DAY
ONE, TWO = "http://ca.example.com/1.crl", "http://ca.example.com/2.crl"
RELATIVE = x509.RelativeDistinguishedName([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Part One")])


def _scope(*urls: str, users: bool = False, authorities: bool = False, relative=None) -> x509.IssuingDistributionPoint:
    full = [x509.UniformResourceIdentifier(url) for url in urls] or None
    return x509.IssuingDistributionPoint(full, relative, users, authorities, None, False, False)


def _list(scope: x509.IssuingDistributionPoint | None, *revoked: certs.TestCertificate, issuer=AUTHORITY, **edition):
    extensions = [] if scope is None else [(scope, True)]
    return certs.certificate_revocation_list(issuer, revoked, extensions=extensions, **edition)


def _point(full=None, relative=None, reasons=None, crl_issuer=None) -> x509.DistributionPoint:
    return x509.DistributionPoint(
        None if full is None else [x509.UniformResourceIdentifier(url) for url in full], relative, reasons, crl_issuer
    )


def _client(name: str, *points: x509.DistributionPoint, issuer=AUTHORITY) -> certs.TestCertificate:
    return certs.issue(
        issuer, certs.common_name(name), extensions=[(x509.CRLDistributionPoints(points), False)] if points else []
    )


def _refusal(trust, client: certs.TestCertificate) -> Refusal | None:
    """By a login."""
    return shake_hands(trust.ssl_context, client_context(client)).verdict.refusal


def test_lists_of_two_distribution_points_count_both_whatever_their_dates(trust):
    alice, bob = _client("alice", _point([ONE])), _client("bob", _point([TWO]))
    carol, nobody = _client("carol", _point([ONE])), _client("nobody")
    third = _client("third", _point(["http://ca.example.com/3.crl"]))
    for order in (1, -1):
        lists = (_list(_scope(ONE), alice, number=7), _list(_scope(TWO), bob, start=START - 9 * DAY))[::order]
        both = trust(*lists)
        assert both.crl.problem is None
        assert _refusal(both, alice) is Refusal.CERTIFICATE_REVOKED
        assert _refusal(both, bob) is Refusal.CERTIFICATE_REVOKED
        assert _refusal(both, carol) is None
        for unknown in (third, nobody):
            assert _refusal(both, unknown) is Refusal.CRL_UNUSABLE
    detail = shake_hands(both.ssl_context, client_context(third)).verdict.detail
    assert "crl.pem" in detail and "http://ca.example.com/3.crl" in detail and "add the one that is" in detail


def test_the_newest_of_one_distribution_point_counts_and_its_end_is_that_of_whom_it_is_about(trust):
    alice, bob = _client("alice", _point([ONE])), _client("bob", _point([TWO]))
    old = _list(_scope(ONE), start=START - 9 * DAY, end=START - DAY)
    new = _list(_scope(ONE), alice, number=2)
    for lists in ((old, new), (new, old)):
        part = trust(*lists, _list(_scope(TWO), end=START + DAY))
        assert _refusal(part, alice) is Refusal.CERTIFICATE_REVOKED
    later = trust(new, _list(_scope(TWO), end=START + DAY), now=START + 2 * DAY)
    assert _refusal(later, bob) is Refusal.CRL_EXPIRED
    assert _refusal(later, _client("carol", _point([ONE]))) is None
    same_day = [_list(_scope(ONE), number=1), _list(_scope(ONE), alice, number=2)]
    for order in (1, -1):
        assert _refusal(trust(*same_day[::order]), alice) is Refusal.CERTIFICATE_REVOKED, "the higher number is newer"


def test_a_list_of_authorities_says_nothing_of_users_and_that_of_users_nothing_of_authorities(trust):
    alice, below = _client("alice"), _client("below", issuer=MIDDLE)
    of_cas, of_users = _list(_scope(authorities=True), MIDDLE), _list(_scope(users=True), alice)
    both = trust(of_cas, of_users)
    assert _refusal(both, alice) is Refusal.CERTIFICATE_REVOKED
    assert _refusal(both, below) is Refusal.CERTIFICATE_REVOKED
    assert _refusal(both, certs.client("carol")) is None
    alone = trust(_list(_scope(authorities=True)))
    assert _refusal(alone, alice) is Refusal.CRL_UNUSABLE, "nobody knows"
    assert _refusal(alone, below) is None
    assert _refusal(trust(_list(_scope(users=True))), below) is Refusal.CRL_UNUSABLE


@pytest.mark.parametrize(
    ("point", "scope", "about_it"),
    [
        (_point([TWO, ONE]), _scope(ONE, "ldap://ca.example.com/1"), True),
        (_point([ONE.upper()]), _scope(ONE), False),
        (_point(relative=RELATIVE), _scope(relative=RELATIVE), True),
        (
            x509.DistributionPoint(
                [x509.DirectoryName(x509.Name([*AUTHORITY.certificate.subject.rdns, RELATIVE]))], None, None, None
            ),
            _scope(relative=RELATIVE),
            True,
        ),
        (_point([ONE], reasons=frozenset([x509.ReasonFlags.key_compromise])), _scope(ONE), False),
        (
            _point([ONE], crl_issuer=[x509.DirectoryName(certs.common_name("Someone Else"))]),
            _scope(ONE),
            False,
        ),
    ],
)
def test_a_distribution_point_is_known_by_any_of_its_names_and_only_for_all_reasons(trust, point, scope, about_it):
    refusal = _refusal(trust(_list(scope)), _client("alice", point))
    assert refusal is (None if about_it else Refusal.CRL_UNUSABLE)


def test_a_part_that_goes_back_or_is_gone_keeps_those_in_force(settings):
    alice, bob = _client("alice", _point([ONE])), _client("bob", _point([TWO]))

    def write(*lists):
        made.crl.write_bytes(certs.crl_pem(*lists))
        return keeper.reload() is not None

    made = settings(_list(_scope(ONE), alice, number=5), _list(_scope(TWO), bob, number=2))
    keeper = TrustKeeper(made)
    before = keeper.current
    for lists in (
        [_list(_scope(ONE), number=4), _list(_scope(TWO), bob, number=3)],
        [_list(_scope(ONE), alice, number=6)],
        [_list(_scope(TWO), bob, number=9)],
        [_list(None, number=1)],
    ):
        assert not write(*lists) and keeper.current is before
        assert "crl-goes-back" in str(keeper.last_error) and "CN=Test CA" in str(keeper.last_error)
    write(_list(_scope(TWO), bob, number=9))
    assert f"({ONE}), which is in force, is not in it any more" in str(keeper.last_error)
    assert write(_list(_scope(ONE), alice, number=6), _list(_scope(TWO), bob, number=2))
    assert write(_list(None, alice, bob, number=7)), "its authority has joined them"
    assert write(_list(_scope(ONE), alice, number=8), _list(_scope(TWO), bob, number=8)), "and divided them again"
    assert not write(_list(_scope(ONE), number=8), _list(_scope(TWO), number=6)), "no way back leads over either"
    assert not write(_list(None, number=7))
    assert _refusal(keeper.current, alice) is _refusal(keeper.current, bob) is Refusal.CERTIFICATE_REVOKED


def test_no_part_of_a_list_that_was_divided_is_older_than_that(settings):
    """By one that was signed before somebody was revoked he would come in again, however new the other parts are."""
    bob = _client("bob", _point([TWO]))
    whole = read_crl(certs.crl_pem(_list(None, bob, number=5)), (AUTHORITY.certificate,)).editions()
    one, two = _list(_scope(ONE), number=6), _list(_scope(TWO), bob, number=5)
    for stale in (_list(_scope(TWO), number=4), _list(_scope(TWO), number=5, start=START - 9 * DAY)):
        for lists in ((one, stale), (stale, one)):
            keeper = TrustKeeper(settings(*lists), known=whole)
            assert "crl-goes-back" in str(keeper.last_error) and f"({TWO}) in it" in str(keeper.last_error)
            assert _refusal(keeper.current, bob) is Refusal.CRL_UNUSABLE
    keeper = TrustKeeper(settings(one, two), known=whole)
    assert keeper.last_error is None and _refusal(keeper.current, bob) is Refusal.CERTIFICATE_REVOKED
    settings(one, _list(_scope(TWO), number=4))
    assert keeper.reload() is None and "crl-goes-back" in str(keeper.last_error), "from then on each counts"


UNREADABLE = x509.UnrecognizedExtension(x509.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3007a505a1030c0141"))
"""An ediPartyName, which OpenSSL reads."""


def test_of_whom_nobody_can_tell_which_list_is_about_it_is_refused_and_hides_no_one_who_is_revoked(trust):
    point = (x509.CRLDistributionPoints([_point([ONE])]), False)
    alice = certs.issue(AUTHORITY, certs.common_name("alice"), extensions=[(UNREADABLE, False), point])
    middle = certs.issue(
        AUTHORITY, certs.common_name("Odd CA"), is_ca=True, end=START + 1000 * DAY, extensions=[(UNREADABLE, False)]
    )
    below = certs.client("below", issuer=middle)
    path = CertificationPath((middle.certificate, AUTHORITY.certificate), ())
    for parts in ([_scope(ONE)], [_scope(users=True)], [_scope(users=True), _scope(authorities=True)]):
        divided = trust(*map(_list, parts))
        assert divided.check(alice.certificate, NO_PATH).refusal is Refusal.CERTIFICATE_INVALID
        assert divided.check(below.certificate, path).refusal is Refusal.CERTIFICATE_INVALID
        assert _refusal(divided, alice) is _refusal(divided, below) is Refusal.CERTIFICATE_INVALID
    revoked = trust(_list(_scope(ONE), alice, middle))
    assert revoked.check(alice.certificate, NO_PATH).refusal is Refusal.CERTIFICATE_REVOKED
    assert revoked.check(below.certificate, path).refusal is Refusal.CERTIFICATE_REVOKED
    whole = trust(_list(None))
    assert _refusal(whole, alice) is _refusal(whole, below) is None, "that is about everybody"
