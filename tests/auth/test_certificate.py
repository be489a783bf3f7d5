"""Real handshakes in TLS 1.2 and 1.3 with every certificate that is to be let in, and every one that is not."""

import dataclasses
import subprocess
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from helpers import certs
from helpers.handshake import both_versions, client_context, login, shake_hands

from cvpnd.auth.certificate import _refused_key
from cvpnd.auth.files import TrustError
from cvpnd.reasons import Refusal
from cvpnd.wire.errors import PeerError
from cvpnd.wire.presented import certification_path
from cvpnd.wire.tls import TlsConnection

AUTHORITY = certs.authority()
START, DAY = certs.START, certs.DAY

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning:cvpnd")


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
