"""Real handshakes in TLS 1.2 and 1.3 with every certificate that is to be let in, and every one that is not."""

import dataclasses
import gc
import subprocess
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from helpers import certs, dear_certificates
from helpers.handshake import client_context, shake_hands
from OpenSSL import SSL

from cvpnd.auth.certificate import CertificateTrust, _refused_key
from cvpnd.auth.files import CertificateSettings, TrustError
from cvpnd.auth.identity import Refused
from cvpnd.reasons import Refusal
from cvpnd.wire import presented
from cvpnd.wire.errors import PeerError
from cvpnd.wire.presented import NO_PATH, CertificationPath, certification_path
from cvpnd.wire.tls import TlsConnection

AUTHORITY = certs.authority()
START, DAY = certs.START, certs.DAY

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning:cvpnd")

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


def login(trust: CertificateTrust, certificate: certs.TestCertificate | None, version: str = "1.3"):
    return shake_hands(trust.ssl_context, client_context(certificate, version))


# --- let in -----------------------------------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("kind", ["ec", "ec384", "ed25519", "rsa2048", "rsa4096"])
def test_every_usual_kind_of_client_key_is_let_in(trust, version, kind):
    handshake = login(trust(), certs.client("alice", kind), version)
    assert handshake.accepted, handshake
    assert handshake.server.get_protocol_version_name() == f"TLSv{version}"
    proven = handshake.server.get_peer_certificate(as_cryptography=True)
    assert proven == handshake.verdict.accepted == certs.client("alice", kind).certificate
    assert handshake.verdict.certificate.to_cryptography() == proven


@both_versions
@pytest.mark.parametrize("kind", ["ec384", "ed25519", "rsa2048"])
def test_every_usual_kind_of_server_key_serves(trust, version, kind):
    assert login(trust(server=certs.server(kind=kind)), certs.client(), version).accepted


@both_versions
def test_a_client_of_an_intermediate_sends_its_chain_and_is_let_in(trust, version):
    middle = certs.intermediate()
    assert login(trust(), certs.client("bob", issuer=middle), version).accepted


def test_a_certificate_without_extended_key_usage_is_let_in_as_rfc_5280_says(trust):
    assert login(trust(), certs.issue(AUTHORITY, certs.common_name("plain"))).accepted


def test_rsa_1024_is_let_in_where_the_setting_allows_it(trust):
    allowed = trust(allow_rsa_1024=True)
    for version in ("1.2", "1.3"):
        assert login(allowed, certs.client("old", "rsa1024"), version).accepted


def test_an_intermediate_alone_in_the_bundle_trusts_only_its_own(trust):
    middle = certs.intermediate()
    only_middle = trust(authorities=(middle,))
    assert login(only_middle, certs.client("bob", issuer=middle)).accepted
    refused = login(only_middle, certs.client("alice"))
    assert refused.verdict.refusal is Refusal.CERTIFICATE_UNKNOWN_CA


def test_two_authorities_overlap_while_one_follows_the_other(trust):
    new = certs.authority("Next CA")
    both = trust(authorities=(AUTHORITY, new))
    assert login(both, certs.client("alice")).accepted
    assert login(both, certs.client("alice", issuer=new)).accepted


# --- refused, each with its reason ------------------------------------------------------------------------------------


def _chain_too_deep() -> certs.TestCertificate:
    issuer = AUTHORITY
    for depth in range(18):
        issuer = certs.issue(issuer, certs.common_name(f"CA {depth}"), is_ca=True)
    return certs.client("deep", issuer=issuer)


def _issued_by_a_person() -> certs.TestCertificate:
    return certs.issue(certs.client("alice"), certs.common_name("forged"), usage=(ExtendedKeyUsageOID.CLIENT_AUTH,))


def _past_the_path_length() -> certs.TestCertificate:
    first = certs.issue(AUTHORITY, certs.common_name("CA without CAs below"), is_ca=True, path_length=0)
    second = certs.issue(first, certs.common_name("CA too far"), is_ca=True)
    return certs.client("far", issuer=second)


def _of_an_expired_intermediate() -> certs.TestCertificate:
    middle = certs.issue(AUTHORITY, certs.common_name("Old CA"), is_ca=True, end=START - DAY)
    return certs.issue(middle, certs.common_name("orphan"), usage=(ExtendedKeyUsageOID.CLIENT_AUTH,))


def _with_an_unknown_critical_extension() -> certs.TestCertificate:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    return certs.issue(AUTHORITY, certs.common_name("odd"), extensions=[(unknown, True)])


def _signed_by_a_namesake() -> certs.TestCertificate:
    """Another key under our CA's name; the key identifiers tell them apart."""
    namesake = certs.issue(None, AUTHORITY.certificate.subject, is_ca=True)
    return certs.issue(namesake, certs.common_name("mallory"), usage=(ExtendedKeyUsageOID.CLIENT_AUTH,))


def _below(name: str, **made: Any) -> certs.TestCertificate:
    """A client of an intermediate that is made so."""
    middle = certs.issue(AUTHORITY, certs.common_name(f"CA {name}"), **{"is_ca": True, **made})
    return certs.client(name, issuer=middle)


def _below_names(permitted: str | None = None, excluded: str | None = None) -> certs.TestCertificate:
    """Of an intermediate that may certify people of one organisation, or all but those; the client is of ACME."""

    def of(organisation: str | None) -> list[x509.GeneralName] | None:
        return None if organisation is None else [x509.DirectoryName(_of(organisation))]

    limits = x509.NameConstraints(of(permitted), of(excluded))
    middle = certs.issue(AUTHORITY, certs.common_name("Limited CA"), is_ca=True, extensions=[(limits, True)])
    return certs.issue(middle, _of("ACME", "anna"))


def _of(organisation: str, name: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)]
    return x509.Name([*attributes, *([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])])


def _below_what_nobody_understands() -> certs.TestCertificate:
    oid = x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))
    limits = x509.NameConstraints([oid], None)
    middle = certs.issue(AUTHORITY, certs.common_name("Odd CA"), is_ca=True, extensions=[(limits, True)])
    return certs.issue(middle, certs.common_name("anna"), names=[oid])


REFUSED = [
    pytest.param(
        lambda: _below("x1", is_ca=False, key_usage=certs.key_usage(key_cert_sign=True)),
        Refusal.CERTIFICATE_INVALID,
        id="issuer-may-sign-and-is-no-ca",
    ),
    pytest.param(
        lambda: _below("x2", key_usage=certs.key_usage(crl_sign=True)),
        Refusal.CERTIFICATE_INVALID,
        id="ca-may-not-sign-certificates",
    ),
    pytest.param(
        lambda: _below("x3", usage=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        Refusal.CERTIFICATE_WRONG_PURPOSE,
        id="ca-for-servers-only",
    ),
    pytest.param(lambda: _below_names(permitted="Other"), Refusal.CERTIFICATE_INVALID, id="name-not-permitted"),
    pytest.param(lambda: _below_names(excluded="acme"), Refusal.CERTIFICATE_INVALID, id="name-excluded"),
    pytest.param(_below_what_nobody_understands, Refusal.CERTIFICATE_INVALID, id="names-of-an-unknown-kind"),
    pytest.param(
        lambda: certs.issue(AUTHORITY, certs.common_name("alice", "")),
        Refusal.CERTIFICATE_NO_COMMON_NAME,
        id="the-last-of-two-names-is-empty",
    ),
    pytest.param(lambda: None, Refusal.CERTIFICATE_MISSING, id="none"),
    pytest.param(certs.client_of_another_authority, Refusal.CERTIFICATE_UNKNOWN_CA, id="another-ca"),
    pytest.param(_signed_by_a_namesake, Refusal.CERTIFICATE_UNKNOWN_CA, id="namesake-ca"),
    pytest.param(certs.self_signed_client, Refusal.CERTIFICATE_UNKNOWN_CA, id="self-signed"),
    pytest.param(certs.expired_client, Refusal.CERTIFICATE_EXPIRED, id="expired"),
    pytest.param(_of_an_expired_intermediate, Refusal.CERTIFICATE_EXPIRED, id="expired-intermediate"),
    pytest.param(certs.client_not_yet_valid, Refusal.CERTIFICATE_NOT_YET_VALID, id="not-yet-valid"),
    pytest.param(certs.client_without_common_name, Refusal.CERTIFICATE_NO_COMMON_NAME, id="no-common-name"),
    pytest.param(
        lambda: certs.client_with_subject(certs.common_name("a\0b")), Refusal.CERTIFICATE_INVALID, id="nul-in-name"
    ),
    pytest.param(certs.client_with_server_usage, Refusal.CERTIFICATE_WRONG_PURPOSE, id="server-usage"),
    pytest.param(
        lambda: certs.issue(AUTHORITY, certs.common_name("crypt"), key_usage=certs.key_usage(data_encipherment=True)),
        Refusal.CERTIFICATE_WRONG_PURPOSE,
        id="no-digital-signature",
    ),
    pytest.param(lambda: certs.client("old", "rsa1024"), Refusal.CERTIFICATE_WEAK_KEY, id="rsa-1024"),
    pytest.param(_issued_by_a_person, Refusal.CERTIFICATE_INVALID, id="issuer-is-no-ca"),
    pytest.param(_past_the_path_length, Refusal.CERTIFICATE_INVALID, id="path-length"),
    pytest.param(_chain_too_deep, Refusal.CERTIFICATE_INVALID, id="chain-too-deep"),
    pytest.param(_with_an_unknown_critical_extension, Refusal.CERTIFICATE_INVALID, id="critical-extension"),
]


@both_versions
@pytest.mark.parametrize(("make", "reason"), REFUSED)
def test_refusal_has_its_reason(trust, version, make, reason):
    from cvpnd.wire.errors import PeerError
    from cvpnd.wire.tls import TlsConnection

    server = TlsConnection(trust().ssl_context, server=True)
    client = TlsConnection(client_context(make(), version), server=False)
    client.start()
    with pytest.raises(PeerError):
        for _ in range(6):
            server.receive(client.output())
            client.receive(server.output())
    assert server.verdict.refusal is reason
    assert server.verdict.accepted is None and server.peer_certificate() is None
    assert not server.established
    assert server.output(), "the alert is there to be sent"


@pytest.mark.parametrize(
    ("make", "alert"),
    [
        (certs.client_of_another_authority, "unknown ca"),
        (certs.expired_client, "certificate expired"),
        (certs.client_with_server_usage, "unsupported certificate"),
        (certs.client_without_common_name, "bad certificate"),
        (lambda: certs.client("revoked"), "certificate revoked"),
    ],
)
@both_versions
def test_the_client_sees_the_alert_that_matches(trust, make, alert, version):
    crl = certs.certificate_revocation_list(revoked=[certs.client("revoked")])
    handshake = login(trust(crl), make(), version)
    assert alert in " ".join(handshake.client_errors)


def test_the_refused_certificate_is_named_in_the_verdict(trust):
    handshake = login(trust(), certs.expired_client("eve"))
    assert handshake.verdict.certificate.to_cryptography() == certs.expired_client("eve").certificate
    assert handshake.verdict.accepted is None


@both_versions
def test_a_name_that_its_authority_may_certify_is_let_in(trust, version):
    assert login(trust(), _below_names(permitted="acme"), version).accepted
    assert login(trust(), _below_names(excluded="Other"), version).accepted
    two = login(trust(), certs.issue(AUTHORITY, certs.common_name("alice", "bob")), version)
    assert two.verdict.common_name == "bob", "the last of several counts, in the log as at login"


@pytest.mark.parametrize("serial", [1, 2**159 - 1])
@both_versions
def test_every_serial_number_is_found_on_the_list_and_no_neighbour_of_it(trust, version, serial):
    namesakes = [certs.issue(AUTHORITY, certs.common_name(name), serial=serial) for name in ("one", "two")]
    revoked = trust(certs.certificate_revocation_list(revoked=[serial]))
    others = trust(certs.certificate_revocation_list(revoked=[serial ^ 2, serial ^ 4]))
    for each in namesakes:
        assert login(revoked, each, version).verdict.refusal is Refusal.CERTIFICATE_REVOKED
        assert login(others, each, version).accepted


@pytest.mark.parametrize(
    ("key", "extension", "version", "reason", "detail"),
    [
        ("EC:SM2", "", "1.3", Refusal.CERTIFICATE_INVALID, "cannot be read"),
        ("EC:sect233r1", "", "1.2", Refusal.CERTIFICATE_INVALID, "cannot be read"),
        ("EC:secp112r1", "", "1.2", Refusal.CERTIFICATE_WEAK_KEY, "too small"),
        ("EC:prime192v1", "", "1.2", Refusal.CERTIFICATE_WEAK_KEY, "too small"),
        ("EC:explicit", "", "1.3", Refusal.CERTIFICATE_INVALID, "written out"),
        ("RSA:512", "", "1.2", Refusal.CERTIFICATE_WEAK_KEY, "too small"),
        ("EC:P-256", "-sha1", "1.3", Refusal.CERTIFICATE_WEAK_KEY, "digest"),
        ("RSA:2047", "", "1.3", Refusal.CERTIFICATE_WEAK_KEY, "2047"),
        ("RSA:exponent", "", "1.3", Refusal.CERTIFICATE_INVALID, "an exponent of 33"),
        ("EC:P-256", "extendedKeyUsage=anyExtendedKeyUsage", "1.3", Refusal.CERTIFICATE_WRONG_PURPOSE, "key usage"),
        ("EC:P-256", "nsCertType=server", "1.3", Refusal.CERTIFICATE_WRONG_PURPOSE, "key usage"),
        (
            "EC:P-256",
            "proxyCertInfo=critical,language:id-ppl-anyLanguage,pathlen:0",
            "1.3",
            Refusal.CERTIFICATE_INVALID,
            "proxy certificate",
        ),
    ],
)
def test_an_odd_certificate_of_our_own_authority_is_refused_by_name(
    trust, tmp_path, caplog, key, extension, version, reason, detail
):
    kind, _, size = key.partition(":")
    options = {"RSA": f"rsa_keygen_bits:{size}", "EC": f"ec_paramgen_curve:{size}"}[kind]
    if size == "explicit":
        options = "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"
    if size == "exponent":
        options = "rsa_keygen_bits:2048", "-pkeyopt", f"rsa_keygen_pubexp:{2**32 + 1}"
    AUTHORITY.write(tmp_path, "ca")
    digest = extension if extension.startswith("-") else "-sha256"
    (tmp_path / "extensions").write_text(f"basicConstraints=CA:FALSE\n{extension if digest != extension else ''}\n")
    for command in (
        ["genpkey", "-algorithm", kind, "-pkeyopt", *([options] if isinstance(options, str) else options)],
        ["req", "-new", "-key", "odd.key", "-subj", "/CN=alice"],
        ["x509", "-req", "-in", "odd.csr", "-CA", "ca.crt", "-CAkey", "ca.key", digest, "-extfile", "extensions"],
    ):
        out = {"genpkey": "odd.key", "req": "odd.csr", "x509": "odd.crt"}[command[0]]
        subprocess.run(["openssl", *command, "-out", out], check=True, capture_output=True, cwd=tmp_path)
    client = client_context(None, version)
    client.use_certificate_file(str(tmp_path / "odd.crt"))
    client.use_privatekey_file(str(tmp_path / "odd.key"))
    refused = shake_hands(trust().ssl_context, client)
    assert refused.verdict.refusal is reason and detail in refused.verdict.detail
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("bits", "exponent", "taken"),
    [
        (8192, 2**32 - 1, True),
        (8193, 3, False),
        (16384, 65537, False),
        (2048, 2**32 + 1, False),
        (3072, 3**1900, False),
    ],
)
def test_an_rsa_key_is_taken_up_to_a_length_at_which_a_proof_is_no_work(bits, exponent, taken):
    key = rsa.RSAPublicNumbers(exponent, 2**bits - 1).public_key()
    name = certs.common_name("alice")
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(AUTHORITY.certificate.subject)
    builder = builder.public_key(key).serial_number(1).not_valid_before(certs.START).not_valid_after(certs.START)
    certificate = builder.sign(AUTHORITY.private_key, hashes.SHA256())
    refused = _refused_key(certificate, 2048)
    assert (refused is None) is taken
    assert refused is None or (refused.refusal, f"{bits} bits" in refused.detail) == (Refusal.CERTIFICATE_INVALID, True)


def test_a_path_that_only_openssl_can_read_is_no_error_of_ours(trust):
    """Its authority has a name whose letters are none of the type that it says, as old ones have. It is looked at
    later, by a list that came meanwhile."""
    name = [x509.NameAttribute(NameOID.COMMON_NAME, "Autorit__", _ASN1Type.IA5String)]
    middle = certs.issue(AUTHORITY, x509.Name(name), is_ca=True)
    alice = certs.client("alice", issuer=middle)
    middle = dataclasses.replace(middle, certificate=_with_bytes_above_127(middle, AUTHORITY))
    alice = dataclasses.replace(
        alice, certificate=_with_bytes_above_127(alice, middle), intermediates=(middle.certificate,)
    )
    with pytest.raises(ValueError):
        assert alice.certificate.issuer
    before = login(trust(), alice)
    assert before.accepted
    path = certification_path(before.server)
    after = trust(certs.certificate_revocation_list())
    assert after.check(alice.certificate, path).refusal is Refusal.CERTIFICATE_INVALID
    assert login(after, alice).verdict.refusal is Refusal.CERTIFICATE_INVALID
    revoked = trust(certs.certificate_revocation_list(revoked=[middle]))
    assert revoked.check(alice.certificate, path).refusal is Refusal.CERTIFICATE_REVOKED


def _with_bytes_above_127(made: certs.TestCertificate, issuer: certs.TestCertificate) -> x509.Certificate:
    """The same, by the same issuer, for "__"."""
    to_sign = made.certificate.tbs_certificate_bytes.replace(b"Autorit__", b"Autorit\xe9\xe9")
    signature = b"\0" + issuer.private_key.sign(to_sign, ec.ECDSA(hashes.SHA256()))
    ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")
    body = to_sign + ecdsa_with_sha256 + bytes([3, len(signature)]) + signature
    return x509.load_der_x509_certificate(b"\x30\x82" + len(body).to_bytes(2) + body)


def test_a_leaf_in_the_ca_bundle_is_refused_when_it_is_read(trust):
    with pytest.raises(TrustError, match=r"ca\.crt: CN=alice is not a certificate authority"):
        trust(authorities=(AUTHORITY, certs.client("alice")))


def test_an_authority_that_cannot_be_read_is_refused_with_its_file(trust):
    party = x509.UnrecognizedExtension(x509.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3007a505a1030c0141"))
    odd = certs.issue(None, certs.common_name("Odd CA"), is_ca=True, extensions=[(party, False)])
    with pytest.raises(TrustError, match=r"ca\.crt: certificate 2 of 2 in it .* cannot be read"):
        trust(authorities=(AUTHORITY, odd))


def test_a_connection_without_a_verdict_is_refused(trust):
    handshake = shake_hands(trust().ssl_context, client_context(certs.client()), with_verdict=False)
    assert not handshake.server_finished
    assert handshake.server_errors == ["certificate verify failed"]


def test_an_error_of_our_own_refuses_and_is_logged(trust, monkeypatch, caplog):
    monkeypatch.setattr("cvpnd.auth.certificate.common_name", lambda certificate: 1 / 0)
    handshake = login(trust(), certs.client())
    assert handshake.verdict.refusal is Refusal.INTERNAL_ERROR
    assert not handshake.accepted
    assert "ZeroDivisionError" in caplog.text


# --- the CRL at login -------------------------------------------------------------------------------------------------


@both_versions
def test_a_revoked_certificate_is_refused_and_others_are_not(trust, version):
    crl = certs.large_revocation_list(20_000, certs.client("revoked"))
    with_crl = trust(crl)
    refused = login(with_crl, certs.client("revoked"), version)
    assert refused.verdict.refusal is Refusal.CERTIFICATE_REVOKED
    assert f"{certs.client('revoked').certificate.serial_number:x}" in refused.verdict.detail
    assert login(with_crl, certs.client("alice"), version).accepted


def test_logins_do_not_parse_the_crl_again(trust, monkeypatch):
    parsed = []
    original = x509.load_pem_x509_crl
    monkeypatch.setattr(x509, "load_pem_x509_crl", lambda data: parsed.append(len(data)) or original(data))
    with_crl = trust(certs.large_revocation_list())
    for _ in range(5):
        assert login(with_crl, certs.client()).accepted
    assert len(parsed) == 1


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_an_expired_crl_refuses_everybody(trust, version):
    crl = certs.certificate_revocation_list(end=START - DAY, start=START - 9 * DAY)
    handshake = login(trust(crl), certs.client(), version)
    assert handshake.verdict.refusal is Refusal.CRL_EXPIRED


def test_an_expired_crl_still_revokes_where_the_operator_lets_the_others_in(trust):
    crl = certs.certificate_revocation_list(revoked=[certs.client("revoked")], end=START - DAY, start=START - 9 * DAY)
    known_good = trust(crl, crl_expired="allow-known-good")
    assert login(known_good, certs.client()).accepted
    assert login(known_good, certs.client("revoked")).verdict.refusal is Refusal.CERTIFICATE_REVOKED


def test_a_crl_from_the_future_is_unusable(trust):
    crl = certs.certificate_revocation_list(start=START + DAY)
    assert login(trust(crl), certs.client()).verdict.refusal is Refusal.CRL_UNUSABLE


def test_a_crl_that_nobody_in_the_bundle_signed_lets_nobody_in(trust, caplog):
    unusable = trust(certs.certificate_revocation_list(certs.authority("Another CA")))
    assert login(unusable, certs.client()).verdict.refusal is Refusal.CRL_UNUSABLE
    assert "crl.pem" in caplog.text
    assert "nobody can connect" in caplog.text


def test_authorities_without_a_list_are_named_where_others_have_one(trust, caplog):
    middle, other = certs.intermediate(), certs.authority("Other, CA")
    bundle = (AUTHORITY, middle, other)
    lists = [certs.certificate_revocation_list(each) for each in bundle]
    assert trust(authorities=bundle).without_list == ()
    assert trust(*lists, authorities=bundle).without_list == ()
    assert trust(certs.certificate_revocation_list(certs.authority("Nobody")), authorities=bundle).without_list == ()
    assert not [each for each in caplog.records if "cannot be revoked" in each.message]
    assert trust(lists[0], authorities=bundle).without_list == ("CN=Test Intermediate CA", "CN=Other\\, CA")
    (told,) = [each.message for each in caplog.records if "cannot be revoked" in each.message]
    assert "no revocation list of CN=Test Intermediate CA and of CN=Other\\, CA: " in told
    assert trust(lists[1], authorities=bundle[:2]).without_list == ("CN=Test CA",)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("openssl dsaparam -noout -genkey 1024", "unusual parameters"),
        ("openssl ecparam -noout -genkey -name prime256v1 -param_enc explicit", "unusual parameters"),
        ("openssl ecparam -noout -genkey -name prime256v1 | openssl ec -conv_form compressed", "compressed point"),
    ],
)
@both_versions
def test_authorities_with_whose_certificate_no_client_gets_in_are_named_at_start(
    settings, tmp_path, caplog, version, key, problem
):
    """OpenSSL sends it along to who has it in its file of authorities, as with OpenVPN's ``ca``."""
    with (tmp_path / "old.key").open("wb") as made:
        subprocess.run(["sh", "-c", key], check=True, stdout=made, stderr=subprocess.DEVNULL)
    for command in (
        ["req", "-x509", "-key", "old.key", "-subj", "/CN=Old CA", "-out", "old.crt"],
        ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "a.key", "-subj", "/CN=a", "-out", "a.csr"],
        ["x509", "-req", "-in", "a.csr", "-CA", "old.crt", "-CAkey", "old.key", "-set_serial", "2", "-out", "a.crt"],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True, cwd=tmp_path)
    bundle = tmp_path / "ca.crt"
    good = CertificateTrust.load(settings())
    assert good.unfit_to_be_sent == () and not caplog.records
    bundle.write_bytes(bundle.read_bytes() + (tmp_path / "old.crt").read_bytes())
    trust = good.reload()
    (told,) = trust.unfit_to_be_sent
    assert told.startswith(f"{bundle}: CN=Old CA is a certificate ") and problem in told
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == [told]
    client = client_context(None, version)
    client.use_certificate_file(str(tmp_path / "a.crt"))
    client.use_privatekey_file(str(tmp_path / "a.key"))
    client.load_verify_locations(str(tmp_path / "old.crt"))
    there, here = TlsConnection(client, server=False), TlsConnection(trust.ssl_context, server=True)
    there.start()
    here.receive(there.output())
    there.receive(here.output())
    with pytest.raises(PeerError, match=problem):
        here.receive(there.output())
    assert here.verdict.refusal is Refusal.CERTIFICATE_INVALID


def test_intermediates_of_the_server_that_clients_may_send_too_are_looked_at(settings, tmp_path):
    made, chain = settings(), tmp_path / "chain.crt"
    compressed = dear_certificates.compressed_point()
    chain.write_bytes(compressed.public_bytes(serialization.Encoding.PEM))
    (told,) = CertificateTrust.load(dataclasses.replace(made, chain=chain)).unfit_to_be_sent
    assert told.startswith(f"{chain}: ") and "compressed point" in told
    assert CertificateTrust.load(dataclasses.replace(made, chain=chain, client_ca=None)).unfit_to_be_sent == ()


def test_no_client_is_asked_to_compress_its_certificates(trust):
    """RFC 8879: nobody judges what is in them. 3.2 or newer, built so, would ask by itself."""
    context = trust().ssl_context._context  # which pyOpenSSL lets nobody ask any more, for it is in use
    assert SSL._lib.SSL_CTX_set_options(context, 0) & 1 << 33


def test_lists_that_a_reload_replaces_are_gone_with_the_last_who_goes_by_them(trust):
    before = trust(certs.certificate_revocation_list())
    session = SSL.Connection(before.ssl_context, None)
    gone = weakref.ref(before.crl)
    gc.disable()  # a gateway in which little happens may not look for cycles for days
    try:
        after = before.reload()
        del before
        assert gone() is not None, "a handshake under way still goes by it"
        del session
        assert gone() is None and after.crl is not None
    finally:
        gc.enable()


@both_versions
def test_handshakes_under_way_end_by_the_lists_they_began_with_whatever_is_freed_meanwhile(trust, version):
    """C calls back by an address, of which Python makes the next callback where the last was."""
    alice = certs.client()
    current = trust(certs.certificate_revocation_list(revoked=[alice]))

    def begin() -> tuple[TlsConnection, TlsConnection]:
        server = TlsConnection(current.ssl_context, server=True)
        client = TlsConnection(client_context(alice, version), server=False)
        client.start()
        server.receive(client.output())
        return server, client

    def end(server: TlsConnection, client: TlsConnection) -> Refusal | None:
        with suppress(PeerError):
            client.receive(server.output())
            server.receive(client.output())
        return server.verdict.refusal

    under_way = [begin() for _ in range(40)]
    current.settings.crl.write_bytes(certs.crl_pem(certs.certificate_revocation_list(number=2)))
    current = current.reload()
    with ThreadPoolExecutor(4) as threads:
        ends = [threads.submit(end, *pair) for pair in under_way]
        del under_way
        for _ in range(40):
            current = current.reload()
            gc.collect()
        assert {each.result() for each in ends} == {Refusal.CERTIFICATE_REVOKED}
    assert end(*begin()) is None


def test_a_revoked_intermediate_takes_its_clients_with_it(trust):
    middle = certs.intermediate()
    crl = certs.certificate_revocation_list(revoked=[middle])
    handshake = login(trust(crl), certs.client("bob", issuer=middle))
    assert handshake.verdict.refusal is Refusal.CERTIFICATE_REVOKED
    assert not handshake.accepted
    assert handshake.verdict.certificate.to_cryptography() == certs.client("bob", issuer=middle).certificate


@pytest.mark.parametrize("order", [1, -1])
def test_each_authority_of_a_chain_has_its_own_crl(trust, order):
    middle = certs.intermediate()
    bob, carol = certs.client("bob", issuer=middle), certs.client("carol", issuer=middle)
    lists = (certs.certificate_revocation_list(), certs.certificate_revocation_list(middle, [bob]))[::order]
    both = trust(*lists, authorities=(AUTHORITY, middle))
    assert login(both, bob).verdict.refusal is Refusal.CERTIFICATE_REVOKED
    assert login(both, carol).accepted
    assert login(both, certs.client("alice")).accepted


# --- the server's side ------------------------------------------------------------------------------------------------


def test_no_session_can_be_resumed_and_tickets_are_stubs(trust):
    context = trust().ssl_context
    client = client_context(certs.client(), "1.3")
    first = shake_hands(context, client)
    assert first.accepted
    assert first.bytes_after_finish <= 200
    again = shake_hands(context, client, first.client.get_session())
    assert again.accepted
    assert again.verdict.certificate is not None, "a resumed session would not have shown its certificate"


def test_a_handshake_inside_tls_1_2_is_not_begun_again(trust):
    """A storm of them would cost a signature each, behind the limits on handshakes."""
    first = shake_hands(trust().ssl_context, client_context(certs.client(), "1.2"))
    assert first.accepted
    first.client.renegotiate()
    for _ in range(100):
        with suppress(SSL.Error):
            first.client.do_handshake()
        with suppress(SSL.Error):
            first.server.bio_write(first.client.bio_read(1 << 16))
        with pytest.raises(SSL.WantReadError):
            first.server.recv(1)
        with suppress(SSL.Error):
            assert len(first.server.bio_read(1 << 16)) < 100, "an alert, and no handshake"
    assert first.server.total_renegotiations() == 0


def test_tls_versions_follow_the_settings(trust):
    only_13 = trust(minimum_version="1.3")
    assert not login(only_13, certs.client(), "1.2").server_finished
    assert login(only_13, certs.client(), "1.3").accepted
    only_12 = trust(maximum_version="1.2")
    assert not login(only_12, certs.client(), "1.3").server_finished


def test_cipher_suites_follow_the_settings(trust):
    chosen = trust(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256:TLS_CHACHA20_POLY1305_SHA256")
    assert login(chosen, certs.client(), "1.2").server.get_cipher_name() == "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert login(chosen, certs.client(), "1.3").server.get_cipher_name() == "TLS_CHACHA20_POLY1305_SHA256"
    with pytest.raises(TrustError, match="no usable TLS cipher suite"):
        trust(ciphers="NO-SUCH-SUITE")


def test_suites_without_forward_secrecy_are_not_offered(trust):
    client = client_context(certs.client(), "1.2")
    client.set_cipher_list(b"AES256-GCM-SHA384:AES128-SHA:@SECLEVEL=0")
    handshake = shake_hands(trust(server=certs.server(kind="rsa2048")).ssl_context, client)
    assert not handshake.server_finished
    assert "no shared cipher" in handshake.server_errors[0]


@pytest.mark.parametrize("groups", ["ffdhe2048", "ffdhe3072", "ffdhe3072:ffdhe2048"])
def test_no_client_chooses_a_key_exchange_that_is_work_for_us_alone(trust, groups):
    """CVE-2002-20001: he sends any bytes for a share of it."""
    handshake = shake_hands(trust().ssl_context, client_context(certs.client(), groups=groups))
    assert not handshake.server_finished
    assert "no suitable key share" in handshake.server_errors[0]


@pytest.mark.parametrize(
    "groups", ["X25519MLKEM768", "X25519", "P-256", "X448", "P-384", "P-521", "ffdhe3072:P-256", "ffdhe2048:X25519"]
)
def test_every_other_key_exchange_is_left_to_the_client(trust, groups):
    assert shake_hands(trust().ssl_context, client_context(certs.client(), groups=groups)).accepted


def test_an_openssl_that_knows_no_way_to_leave_groups_out_serves_all_the_same(trust, monkeypatch, caplog):
    monkeypatch.setattr("cvpnd.auth.context._GROUPS", b"DEFAULT:-no-such-group:nor-this")
    assert login(trust(), certs.client()).accepted
    assert "too old" in caplog.text


def test_server_intermediates_are_sent_from_the_certificate_or_the_chain_file(trust, tmp_path):
    server = certs.server(issuer=certs.intermediate())
    inline = login(trust(server=server), certs.client())
    assert inline.client.get_peer_cert_chain(as_cryptography=True) == [server.certificate, *server.intermediates]
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certs.intermediate().certificate_pem)
    bare = certs.TestCertificate(server.certificate, server.private_key)
    apart = login(trust(server=bare, chain=chain), certs.client())
    assert apart.client.get_peer_cert_chain(as_cryptography=True) == [server.certificate, *server.intermediates]


def test_an_intermediate_among_the_clients_authorities_is_sent_but_no_root(trust):
    server, middle = certs.server(issuer=certs.intermediate()), certs.intermediate()
    bare = certs.TestCertificate(server.certificate, server.private_key)
    found = login(trust(server=bare, authorities=(AUTHORITY, middle)), certs.client())
    assert found.client.get_peer_cert_chain(as_cryptography=True) == [server.certificate, middle.certificate]
    alone = login(trust(server=bare), certs.client())
    assert alone.client.get_peer_cert_chain(as_cryptography=True) == [server.certificate]
    below_the_root = login(trust(), certs.client())
    assert below_the_root.client.get_peer_cert_chain(as_cryptography=True) == [certs.server().certificate]


# --- files that cannot be used ----------------------------------------------------------------------------------------


def spoil(which: str, data: bytes | None) -> Callable[[CertificateSettings], Path]:
    def apply(settings: CertificateSettings) -> Path:
        path: Path = getattr(settings, which)
        path.unlink() if data is None else path.write_bytes(data)
        return path

    return apply


@pytest.mark.parametrize(
    ("do", "problem"),
    [
        (spoil("certificate", None), "cannot be read: No such file or directory"),
        (spoil("certificate", b""), "does not hold a complete PEM certificate"),
        (spoil("certificate", certs.server().certificate_pem[:-40]), "does not hold a complete PEM certificate"),
        (spoil("certificate", certs.client("alice", "rsa1024").certificate_pem), "is not the key of the certificate"),
        (spoil("private_key", b"garbage"), "does not hold a PEM private key without a passphrase"),
        (spoil("private_key", certs.server().private_key_pem[:100]), "does not hold a PEM private key"),
        (spoil("private_key", certs.client().private_key_pem), "is not the key of the certificate"),
        (spoil("client_ca", b"\x00"), "does not hold a complete PEM certificate"),
        (spoil("crl", b""), "is not a complete certificate revocation list"),
        (spoil("crl", certs.crl_pem(certs.certificate_revocation_list())[:-30]), "is not a complete certificate"),
        (spoil("crl", certs.server().certificate_pem), "is not a complete certificate revocation list"),
        (spoil("crl", None), "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(settings, do, problem):
    spoiled = settings(certs.certificate_revocation_list())
    path = do(spoiled)
    with pytest.raises(TrustError, match=problem) as error:
        CertificateTrust.load(spoiled)
    named = {path} if "key of the certificate" not in problem else {spoiled.private_key}
    assert error.value.path in named
    assert str(error.value).startswith(f"{error.value.path}: ")


def test_a_weak_server_certificate_is_an_error_at_start(trust):
    with pytest.raises(TrustError, match=r"server\.crt: OpenSSL refuses it: ee key too small"):
        trust(server=certs.server(kind="rsa1024"))


@pytest.mark.parametrize("key", [("RSA-PSS", "rsa_keygen_bits:2048"), ("EC", "ec_paramgen_curve:secp256k1")])
def test_a_server_key_that_no_client_could_finish_a_handshake_with_is_an_error_at_start(settings, tmp_path, key):
    private_key, certificate = tmp_path / "odd.key", tmp_path / "odd.crt"
    make = ["openssl", "genpkey", "-algorithm", key[0], "-pkeyopt", key[1], "-out", private_key]
    subprocess.run(make, check=True, capture_output=True)
    sign = ["openssl", "req", "-x509", "-key", private_key, "-subj", "/CN=vpn", "-out", certificate]
    subprocess.run(sign, check=True, capture_output=True)
    odd = dataclasses.replace(settings(), certificate=certificate, private_key=private_key)
    with pytest.raises(TrustError, match=r"odd\.crt: no client could finish a handshake .*; use an ECDSA key"):
        CertificateTrust.load(odd)


def test_suites_for_another_kind_of_server_key_are_an_error_at_start(trust):
    suites = {"ciphers": "ECDHE-RSA-AES256-GCM-SHA384", "maximum_version": "1.2"}
    assert login(trust(server=certs.server(kind="rsa2048"), **suites), certs.client(), "1.2").accepted
    with pytest.raises(TrustError, match="no client could finish a handshake"):
        trust(server=certs.server(kind="ec"), **suites)


def test_no_error_and_no_repr_shows_a_private_key(settings):
    spoiled = settings()
    secret = b"".join(certs.server().private_key_pem.splitlines()[1:-1])
    spoiled.private_key.write_bytes(certs.server().private_key_pem.replace(b"END PRIVATE", b"END"))
    with pytest.raises(TrustError) as error:
        CertificateTrust.load(spoiled)
    assert secret[:12].decode() not in str(error.value)
    assert error.value.__cause__ is None
    certs.server().write(spoiled.private_key.parent, "server")
    assert "PRIVATE" not in repr(CertificateTrust.load(spoiled))


# --- after the login --------------------------------------------------------------------------------------------------


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
