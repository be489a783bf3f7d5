"""Certificate revocation lists, at login: whom they refuse, and what becomes of everybody where one cannot be used."""

import dataclasses
import gc
import subprocess
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from helpers import certs, dear_certificates
from helpers.handshake import both_versions, client_context, login
from OpenSSL import SSL

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.reasons import Refusal
from cvpnd.wire.errors import PeerError
from cvpnd.wire.tls import TlsConnection

AUTHORITY = certs.authority()
START, DAY = certs.START, certs.DAY

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning:cvpnd")


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
