"""A certificate after the login: what still stands behind it, and what becomes of a trust that is replaced."""

import dataclasses
import gc
import subprocess
import warnings
import weakref

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from helpers import certs
from helpers.handshake import both_versions, client_context, login, shake_hands

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.identity import Refused
from cvpnd.reasons import Refusal
from cvpnd.wire import presented
from cvpnd.wire.presented import NO_PATH, CertificationPath, certification_path

AUTHORITY = certs.authority()
START, DAY = certs.START, certs.DAY

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning:cvpnd")


def test_reload_makes_a_new_trust(settings):
    old = CertificateTrust.load(settings(certs.certificate_revocation_list(revoked=[certs.client("bob")])))
    alice = certs.client("alice").certificate
    assert old.check(alice, NO_PATH) is None
    known = [login(old, certs.client("alice")).verdict.accepted for _ in range(2)]
    assert known[0] is known[1], "it is read once"
    old.settings.crl.write_bytes(
        certs.crl_pem(certs.certificate_revocation_list(revoked=[certs.client("bob"), certs.client("alice")]))
    )
    new = old.reload()
    assert new.check(alice, NO_PATH).refusal is Refusal.CERTIFICATE_REVOKED
    assert login(new, certs.client("alice")).verdict.refusal is Refusal.CERTIFICATE_REVOKED, "as well known as it is"
    assert old.check(alice, NO_PATH) is None, "the old trust did not change"


def test_a_session_is_checked_for_its_own_end_and_for_the_crl_as_a_whole(trust):
    alice = certs.client("alice").certificate
    crl = certs.certificate_revocation_list(end=START + 30 * DAY)
    assert trust(crl).check(alice, NO_PATH) is None
    assert trust().check(alice, NO_PATH) is None
    assert trust(now=alice.not_valid_after_utc + DAY).check(alice, NO_PATH).refusal is Refusal.CERTIFICATE_EXPIRED
    assert trust(crl, now=START + 31 * DAY).check(alice, NO_PATH).refusal is Refusal.CRL_EXPIRED
    forged = certs.certificate_revocation_list(signer=certs.authority("Another CA"))
    assert trust(forged).check(alice, NO_PATH).refusal is Refusal.CRL_UNUSABLE


def test_a_session_is_checked_for_all_that_it_stands_on(trust):
    """What is revoked is so whatever else is wrong, of any link and on any list."""
    first = certs.issue(AUTHORITY, certs.common_name("First CA"), is_ca=True)
    second = certs.issue(first, certs.common_name("Second CA"), is_ca=True, end=START + 100 * DAY)
    bob = certs.client("bob", issuer=second)
    path = CertificationPath((second.certificate, first.certificate, AUTHORITY.certificate), ())
    bundle = (AUTHORITY, first, second)
    empty = [certs.certificate_revocation_list(each, end=START + 500 * DAY) for each in bundle]

    def judged(*lists, now=START):
        refused = trust(*lists, authorities=bundle, now=now).check(bob.certificate, path)
        return refused and refused.refusal

    assert judged(*empty) is None
    for issuer, revoked in zip(bundle, (first, second, bob), strict=True):
        for others_end in (START + 500 * DAY, START + 2 * DAY):
            lists = [certs.certificate_revocation_list(each, end=others_end) for each in bundle if each is not issuer]
            lists.append(certs.certificate_revocation_list(issuer, [revoked], end=START + 2 * DAY))
            for now in (START, START + 3 * DAY, START + 101 * DAY, START + 400 * DAY):
                assert judged(*lists, now=now) is Refusal.CERTIFICATE_REVOKED
    assert judged(*empty, now=START + 101 * DAY) is Refusal.CERTIFICATE_EXPIRED, "an authority in the middle"
    assert f"{second.certificate.serial_number:x}" in trust(now=START + 101 * DAY).check(bob.certificate, path).detail
    stale = [certs.certificate_revocation_list(first, end=START + DAY), empty[0], empty[2]]
    assert judged(*stale, now=START + 2 * DAY) is Refusal.CRL_EXPIRED
    own = [certs.certificate_revocation_list(AUTHORITY, [AUTHORITY])]
    assert judged(*own) is None, "a root is trusted by being in the bundle"


@both_versions
def test_what_the_second_of_two_namesakes_revokes_is_revoked_whatever_the_first_lets_expire(trust, version):
    renewed = certs.issue(None, AUTHORITY.certificate.subject, is_ca=True)
    bob = certs.issue(renewed, certs.common_name("bob"))
    lists = (
        certs.certificate_revocation_list(start=START - 9 * DAY, end=START - DAY),
        certs.certificate_revocation_list(renewed, revoked=[bob]),
    )
    for order in (1, -1):
        both = trust(*lists[::order], authorities=(AUTHORITY, renewed))
        assert login(both, bob, version).verdict.refusal is Refusal.CERTIFICATE_REVOKED
        assert both.check(bob.certificate, NO_PATH).refusal is Refusal.CERTIFICATE_REVOKED


@both_versions
def test_a_revoked_vouching_for_an_authoritys_next_key_takes_its_clients_with_it(trust, version):
    """It is issued under its own name, and signed by the key before: no root."""
    renewed = certs.issue(AUTHORITY, AUTHORITY.certificate.subject, is_ca=True)
    renewed = dataclasses.replace(renewed, intermediates=())
    bob = dataclasses.replace(certs.issue(renewed, certs.common_name("bob")), intermediates=(renewed.certificate,))
    assert login(trust(), bob, version).accepted
    revoked = trust(certs.certificate_revocation_list(revoked=[renewed]))
    assert login(revoked, bob, version).verdict.refusal is Refusal.CERTIFICATE_REVOKED
    path = CertificationPath((renewed.certificate, AUTHORITY.certificate), (renewed.certificate,))
    assert revoked.check(bob.certificate, path).refusal is Refusal.CERTIFICATE_REVOKED


@both_versions
def test_the_path_is_what_leads_from_a_client_to_an_authority(trust, version, monkeypatch):
    other, middle = certs.authority("Another CA"), certs.intermediate()
    below, alice, root = certs.client("bob", issuer=middle), certs.client("alice"), AUTHORITY.certificate

    def shown(at, client, *sent):
        handshake = login(at, dataclasses.replace(client, intermediates=sent), version)
        assert handshake.accepted
        return certification_path(handshake.server)

    for _ in range(2):  # what was found is kept
        assert shown(trust(), alice) == ((root,), ())
        assert shown(trust(), alice, root) == ((root,), (root,)), "OpenVPN's client sends its root"
        assert shown(trust(), alice, other.certificate, middle.certificate) == ((root,), ())
        long = (middle.certificate, root)
        assert shown(trust(), below, other.certificate, middle.certificate) == (long, (middle.certificate,))
        assert shown(trust(), below, middle.certificate, root) == (long, long)
        assert shown(trust(authorities=(AUTHORITY, middle)), below) == (long, ())
        assert shown(trust(authorities=(middle,)), below, root, middle.certificate) == (long[:1], long[:1])
        monkeypatch.setattr(presented, "_SHA256", None)  # as of a pyOpenSSL that is not known
        assert shown(trust(), below, middle.certificate, other.certificate) == (long, (middle.certificate,))
        monkeypatch.undo()
    assert shown(trust(), below, middle.certificate) is shown(trust(), below, middle.certificate), "and shared"


def test_kept_paths_are_bounded(trust, monkeypatch):
    monkeypatch.setattr(presented, "MOST", 3)
    monkeypatch.setattr(presented, "_known_paths", {})
    for number in range(5):
        middle = certs.intermediate(f"Intermediate {number}")
        handshake = login(trust(), certs.client(issuer=middle))
        assert certification_path(handshake.server).sent == (middle.certificate,)
    assert len(presented._known_paths) == 3


def test_a_session_is_checked_for_whether_an_authority_still_stands_behind_it(trust):
    other, middle = certs.authority("Another CA"), certs.intermediate()
    namesake = certs.issue(None, AUTHORITY.certificate.subject, is_ca=True)
    signs_without_saying_by_which_key = certs.without_key_identifiers(certs.client("old"), AUTHORITY)
    before, after, root = trust(authorities=(AUTHORITY, other)), trust(), AUTHORITY.certificate
    assert after.prove(certs.client().certificate) == ((root,), ())
    partner = certs.client_of_another_authority().certificate
    assert before.prove(partner) == ((other.certificate,), ())
    assert after.prove(partner).refusal is Refusal.CERTIFICATE_UNKNOWN_CA
    below = certs.client("bob", issuer=middle)
    assert after.prove(below.certificate, below.intermediates) == ((middle.certificate, root), below.intermediates)
    assert trust(authorities=(middle,)).prove(below.certificate) == ((middle.certificate,), ())
    for taken_away in (after.prove(below.certificate), trust(authorities=(other,)).prove(
        below.certificate, (*below.intermediates, root)  # as a client may send its root
    )):  # fmt: skip
        assert taken_away.refusal is Refusal.CERTIFICATE_UNKNOWN_CA
    for certificate in (certs.client().certificate, signs_without_saying_by_which_key):
        assert before.prove(certificate) == ((root,), ())
        assert isinstance(trust(authorities=(namesake,)).prove(certificate), Refused)


def test_who_has_a_session_is_asked_what_a_login_is_where_an_authority_may_vouch_for_servers_alone_now(trust):
    partner = certs.issue(None, certs.common_name("Partner CA"), is_ca=True)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    narrowed = dataclasses.replace(partner, certificate=certs.with_extension(partner, usage))
    alice = certs.client(issuer=partner)
    before, after = trust(authorities=(AUTHORITY, partner)), trust(authorities=(AUTHORITY, narrowed))
    assert login(before, alice).accepted and before.prove(alice.certificate) == ((partner.certificate,), ())
    assert login(after, alice).verdict.refusal is Refusal.CERTIFICATE_WRONG_PURPOSE
    assert after.prove(alice.certificate).refusal is Refusal.CERTIFICATE_WRONG_PURPOSE
    assert after.prove(certs.client().certificate) == ((AUTHORITY.certificate,), ())


@pytest.mark.parametrize(
    ("key", "digest", "words"),
    [
        (("RSA", "rsa_keygen_bits:1024"), "-sha256", "the key of its certificate authority is too small"),
        (("RSA", "rsa_keygen_bits:1960"), "-sha256", "the key of its certificate authority is too small"),
        (("RSA", "rsa_keygen_bits:1984"), "-sha256", ""),
        (("EC", "ec_paramgen_curve:prime192v1"), "-sha256", "the key of its certificate authority is too small"),
        (("EC", "ec_paramgen_curve:P-256"), "-sha1", "a digest that is too weak"),
        (("RSA", "rsa_keygen_bits:2048"), "-sha1", "a digest that is too weak"),
        (("RSA", "rsa_keygen_bits:2048"), "-sha224", ""),
        (("EC", "ec_paramgen_curve:secp224r1"), "-sha512", ""),
        (("ED448", ""), "-sha256", ""),
    ],
)
def test_who_has_a_session_is_asked_for_no_weaker_path_than_a_login(trust, tmp_path, key, digest, words):
    """After an authority that stood behind it by a strong path was taken away, and a weak one is left."""
    AUTHORITY.write(tmp_path, "ca")
    (tmp_path / "extensions").write_text("basicConstraints=critical,CA:TRUE\n")
    kind, option = key
    options = ["-pkeyopt", option] if option else []
    for command in (
        ["genpkey", "-algorithm", kind, *options, "-out", "middle.key"],
        ["req", "-new", "-key", "middle.key", "-subj", "/CN=Middle", "-out", "middle.csr"],
        ["x509", "-req", "-in", "middle.csr", "-CA", "ca.crt", "-CAkey", "ca.key", digest, "-extfile", "extensions",
         "-out", "middle.crt"],
        ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "alice.key"],
        ["req", "-new", "-key", "alice.key", "-subj", "/CN=alice", "-out", "alice.csr"],
        ["x509", "-req", "-in", "alice.csr", "-CA", "middle.crt", "-CAkey", "middle.key", "-sha256",
         "-out", "alice.crt"],
    ):  # fmt: skip
        made = subprocess.run(["openssl", *command], capture_output=True, cwd=tmp_path, text=True)
        assert made.returncode == 0, made.stderr
    alice, middle = (
        x509.load_pem_x509_certificate((tmp_path / f"{name}.crt").read_bytes()) for name in ("alice", "middle")
    )
    client = client_context(None, "1.3")
    client.set_cipher_list(b"ALL:@SECLEVEL=0")
    client.use_certificate(alice)
    client.add_extra_chain_cert(middle)
    client.use_privatekey_file(str(tmp_path / "alice.key"))
    trusted = trust()
    refused, proven = shake_hands(trusted.ssl_context, client).verdict, trusted.prove(alice, (middle,))
    assert words in refused.detail and (refused.refusal is Refusal.CERTIFICATE_WEAK_KEY) is bool(words)
    if words:
        assert proven == Refused(refused.refusal, refused.detail)
    else:
        assert proven == ((middle, AUTHORITY.certificate), (middle,))


def test_days_to_expiry_count_down_to_the_first_that_ends(trust):
    lists = (
        certs.certificate_revocation_list(end=START + 30 * DAY),
        certs.certificate_revocation_list(certs.intermediate(), end=START + 20 * DAY),
    )
    days = trust(*lists, authorities=(AUTHORITY, certs.intermediate()), now=START + 5 * DAY).days_to_expiry()
    assert days["crl"] == pytest.approx(15)
    assert days["server"] == pytest.approx(360)
    assert days["ca"] == pytest.approx(995)
    assert "crl" not in trust().days_to_expiry()
    assert trust().crl_expires_at is None
    assert trust().server_certificate_expires_at == certs.server().certificate.not_valid_after_utc.timestamp()


def test_a_trust_that_was_replaced_is_freed(trust):
    first = trust()
    assert login(first, certs.client()).accepted
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None


def test_nothing_deprecated_is_used(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = CertificateTrust.load(settings(certs.certificate_revocation_list()))
        assert made.check(certs.client().certificate, NO_PATH) is None
