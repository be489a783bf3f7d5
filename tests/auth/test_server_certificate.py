"""What a gateway shows and offers in its handshakes, and the files for it that cannot be used."""

import dataclasses
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import certs
from helpers.handshake import client_context, login, shake_hands
from OpenSSL import SSL

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.files import CertificateSettings, TrustError

AUTHORITY = certs.authority()

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning:cvpnd")


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
