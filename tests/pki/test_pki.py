"""The authority in a directory: what it signs, what it refuses, and that its files are whole and private."""

import datetime
import errno
import os
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from helpers import certs
from helpers.handshake import client_context, shake_hands

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.files import CertificateSettings
from cvpnd.pki import files, self_signed
from cvpnd.pki.authority import Authority, utc_now
from cvpnd.pki.files import PkiError, locked, write_file
from cvpnd.pki.index import certificates, format_serial, parse_serial, read_crl, revoked_serials
from cvpnd.pki.issue import issue_client, issue_server
from cvpnd.pki.revocation import CRL_DAYS, ensure_crl, revoke, sign_again_if_due
from cvpnd.pki.self_signed import RENEWED_BEFORE, ensure_self_signed
from cvpnd.reasons import Refusal


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "pki", "Acme CA")


def trust_of(authority: Authority) -> CertificateTrust:
    directory = authority.directory
    return CertificateTrust.load(
        CertificateSettings(
            certificate=directory / "server.crt",
            private_key=directory / "server.key",
            client_ca=directory / "ca.crt",
            crl=directory / "crl.pem",
        )
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- a whole life -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ecdsa", "rsa"])
def test_what_it_issues_logs_in_until_it_is_revoked(tmp_path, algorithm):
    authority = Authority.create(tmp_path / "pki", "Acme CA", algorithm=algorithm)
    issue_server(authority, "vpn.example.com")
    ensure_crl(authority)
    alice, bob = certs.as_client(issue_client(authority, "alice")), certs.as_client(issue_client(authority, "bob"))
    trust = trust_of(authority)
    for version in ("1.2", "1.3"):
        assert shake_hands(trust.ssl_context, client_context(alice, version)).accepted
    revoke(authority, name="alice")
    after = trust.reload()
    refused = shake_hands(after.ssl_context, client_context(alice))
    assert refused.verdict.refusal is Refusal.CERTIFICATE_REVOKED
    assert shake_hands(after.ssl_context, client_context(bob)).accepted


def test_certificates_say_what_they_are_for(authority):
    server = x509.load_pem_x509_certificate(issue_server(authority, "vpn.example.com").certificate)
    client = x509.load_pem_x509_certificate(issue_client(authority, "alice").certificate)

    def value(certificate, kind):
        return certificate.extensions.get_extension_for_class(kind).value

    assert list(value(server, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert value(server, x509.SubjectAlternativeName).get_values_for_type(x509.DNSName) == ["vpn.example.com"]
    assert value(server, x509.KeyUsage).digital_signature
    assert value(server, x509.KeyUsage).key_encipherment
    assert list(value(client, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not value(client, x509.KeyUsage).key_encipherment
    for certificate in (server, client):
        assert not value(certificate, x509.BasicConstraints).ca
        assert certificate.signature_hash_algorithm.name == "sha256"
        certificate.verify_directly_issued_by(authority.certificate)
    assert value(authority.certificate, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
    assert value(authority.certificate, x509.KeyUsage).crl_sign


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_a_server_may_be_called_by_its_address(authority, address):
    certificate = x509.load_pem_x509_certificate(issue_server(authority, address).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == [address]


def test_keys_are_of_the_authoritys_kind(tmp_path):
    rsa_ca = Authority.create(tmp_path / "rsa", "Acme CA", algorithm="rsa")
    key = certs.as_client(issue_client(rsa_ca, "alice")).private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size >= 2048
    assert isinstance(Authority.create(tmp_path / "ec", "Acme CA").private_key, ec.EllipticCurvePrivateKey)


def test_no_certificate_outlives_its_authority(tmp_path):
    authority = Authority.create(tmp_path / "pki", "Short CA", days=10)
    assert issue_client(authority, "alice", 365).not_after == authority.certificate.not_valid_after_utc


def test_opening_finds_the_same_authority(authority):
    again = Authority.open(authority.directory)
    assert again.certificate == authority.certificate
    issued = certs.as_client(issue_client(again, "alice"))
    issued.certificate.verify_directly_issued_by(authority.certificate)


# --- files ------------------------------------------------------------------------------------------------------------


def test_keys_are_private_and_clients_keys_are_not_kept(authority):
    old_umask = os.umask(0)
    try:
        issue_server(authority, "vpn.example.com")
        issued = issue_client(authority, "alice")
        ensure_crl(authority)
    finally:
        os.umask(old_umask)
    directory = authority.directory
    assert mode(directory) == 0o700
    assert mode(directory / "ca.key") == 0o600
    assert mode(directory / "server.key") == 0o600
    assert mode(directory / "ca.crt") == 0o644
    files_found = sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())
    assert files_found == ["ca.crt", "ca.key", "crl.pem", "issued/alice.crt", "server.crt", "server.key"]
    assert not any(issued.private_key in path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_reprs_show_no_secret(authority):
    issued = issue_client(authority, "alice")
    secret = issued.private_key.splitlines()[1].decode()
    for text in (repr(issued), repr(authority)):
        assert secret not in text
        assert "PRIVATE" not in text
        assert "private_key" not in text


def test_an_authority_is_never_replaced(authority):
    before = {p: p.read_bytes() for p in authority.directory.iterdir() if p.is_file()}
    with pytest.raises(PkiError, match="exists; a certificate authority is never replaced"):
        Authority.create(authority.directory, "Other CA")
    issue_server(authority, "vpn.example.com")
    with pytest.raises(PkiError, match="exists; move them away first"):
        issue_server(authority, "other.example.com")
    assert {p: p.read_bytes() for p in before} == before


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "file"
    write_file(target, b"old", 0o644)

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_file(target, b"new", 0o644, replace=True)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_file_is_only_replaced_on_request(tmp_path):
    target = tmp_path / "file"
    write_file(target, b"old", 0o600)
    with pytest.raises(FileExistsError):
        write_file(target, b"new", 0o600)
    assert target.read_bytes() == b"old"
    write_file(target, b"new", 0o644, replace=True)
    assert target.read_bytes() == b"new"
    assert mode(target) == 0o644
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "write",
    [
        lambda authority: issue_client(authority, "bob"),
        lambda authority: issue_server(authority, "vpn.example.com"),
        lambda authority: revoke(authority, name="alice"),
        lambda authority: sign_again_if_due(authority, now=certs.START + 170 * certs.DAY),
    ],
    ids=["issue-client", "issue-server", "revoke", "sign-again"],
)
def test_a_second_writer_waits_for_the_first(authority, write):
    """flock counts per open file, so a thread stands for another process here."""
    ensure_crl(authority)
    issue_client(authority, "alice")

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in authority.directory.rglob("*") if path.is_file()}

    before = content()
    second = threading.Thread(target=write, args=(authority,))
    with locked(authority.directory):
        second.start()
        second.join(0.3)
        assert second.is_alive()
        assert content() == before
    second.join(30)
    assert not second.is_alive()
    assert content() != before


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda d: (d / "ca.crt").unlink(), r"ca\.crt: cannot be read: No such file"),
        (lambda d: (d / "ca.crt").write_text("garbage"), r"ca\.crt: is not a PEM certificate"),
        (lambda d: (d / "ca.key").write_text("garbage"), r"ca\.key: is not a PEM private key"),
        (lambda d: (d / "ca.key").write_bytes(certs.client().private_key_pem), r"ca\.key: is not the key of"),
        (
            lambda d: (d / "ca.key").write_bytes(certs.client("e", "ed25519").private_key_pem),
            "is neither an ECDSA nor an RSA key",
        ),
    ],
)
def test_an_authority_that_cannot_be_opened_says_which_file(authority, spoil, problem):
    spoil(authority.directory)
    with pytest.raises(PkiError, match=problem):
        Authority.open(authority.directory)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alice", "alice@example.com", "a.b_c+d-e", "A", "x" * 64, "0day"])
def test_usual_names_are_issued(authority, name):
    assert issue_client(authority, name).name == name
    assert [record.name for record in certificates(authority)] == [name]


@pytest.mark.parametrize(
    "name", ["", "../evil", "a/b", ".hidden", "-option", "a b", "a\nb", "a\0b", "x" * 65, "Zoë", "$(id)", "a;b", "a\n"]
)
def test_names_that_could_be_mistaken_are_not(authority, name):
    before = sorted(authority.directory.rglob("*"))
    with pytest.raises(PkiError, match="cannot be the name of a certificate"):
        issue_client(authority, name)
    assert sorted(authority.directory.rglob("*")) == before


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "-x", "x.", "a" * 65])
def test_server_names_are_host_names_or_addresses(authority, name):
    with pytest.raises(PkiError, match="is no host name or address"):
        issue_server(authority, name)


@pytest.mark.parametrize("days", [0, -1])
def test_a_validity_of_no_days_is_refused(authority, days):
    with pytest.raises(PkiError, match="choose at least 1"):
        issue_client(authority, "alice", days)


# --- the index, renewal and revocation --------------------------------------------------------------------------------


def test_a_name_has_one_certificate_until_it_ends_soon(authority):
    issue_client(authority, "alice")
    with pytest.raises(PkiError, match=r"alice has a certificate .* revoke it first"):
        issue_client(authority, "alice")
    first = issue_client(authority, "bob", 20)
    second = issue_client(authority, "bob")
    records = certificates(authority, "bob")
    assert {record.serial for record in records} == {first.serial, second.serial}
    assert [record.status for record in records] == ["valid", "valid"]
    assert (authority.issued_directory / "bob.crt").read_bytes() == second.certificate
    revoked = revoke(authority, name="bob")
    assert {record.serial for record in revoked} == {first.serial, second.serial}
    assert issue_client(authority, "bob").serial not in revoked_serials(read_crl(authority))


def test_an_expired_certificate_is_listed_as_such(authority, monkeypatch):
    issue_client(authority, "alice", 10)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=11)
    monkeypatch.setattr("cvpnd.pki.index.utc_now", lambda: later)
    assert [record.status for record in certificates(authority)] == ["expired"]


def test_revoking_by_serial_number_takes_what_people_copy(authority):
    first, second = issue_client(authority, "alice"), issue_client(authority, "bob")
    text = ":".join(format_serial(first.serial)[i : i + 2] for i in range(0, len(format_serial(first.serial)), 2))
    assert [record.name for record in revoke(authority, serial=text.lower())] == ["alice"]
    assert revoked_serials(read_crl(authority)) == {first.serial}
    assert parse_serial(format_serial(second.serial)) == second.serial
    for wrong in ("xyz", ""):
        with pytest.raises(PkiError, match="is no serial number"):
            revoke(authority, serial=wrong)


def test_revoking_nobody_is_an_error_and_revoking_twice_is_not(authority):
    issue_client(authority, "alice")
    for wrong in ({"name": "nobody"}, {"serial": "1234"}):
        with pytest.raises(PkiError, match="no certificate"):
            revoke(authority, **wrong)
    for wrong in ({}, {"name": "alice", "serial": "12"}):
        with pytest.raises(PkiError, match="either"):
            revoke(authority, **wrong)
    revoke(authority, name="alice")
    crl = authority.crl_path.read_bytes()
    assert [record.status for record in revoke(authority, name="alice")] == ["revoked"]
    assert authority.crl_path.read_bytes() == crl


def test_each_crl_follows_the_one_before(authority):
    assert ensure_crl(authority)
    assert not ensure_crl(authority)
    issue_client(authority, "alice")
    issue_client(authority, "bob")
    revoke(authority, name="alice")
    first = next(iter(read_crl(authority)))
    revoke(authority, name="bob")
    crl = read_crl(authority)
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3
    assert crl.get_revoked_certificate_by_serial_number(first.serial_number).revocation_date_utc == (
        first.revocation_date_utc
    )
    assert mode(authority.crl_path) == 0o644


def test_the_crl_is_signed_again_when_half_of_its_life_is_over(authority):
    ensure_crl(authority)
    issue_client(authority, "alice")
    revoke(authority, name="alice")
    before = read_crl(authority)
    assert not sign_again_if_due(authority)
    later = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=CRL_DAYS / 2 + 1)
    assert sign_again_if_due(authority, now=later)
    after = read_crl(authority)
    assert after.next_update_utc == later + datetime.timedelta(days=CRL_DAYS)
    assert revoked_serials(after) == revoked_serials(before) != frozenset()
    assert not sign_again_if_due(authority, now=later)


def test_what_is_revoked_while_the_clock_is_years_ahead_is_revoked_and_others_get_in_once_it_is_right(
    authority, monkeypatch
):
    issue_server(authority, "vpn.example.com")
    ensure_crl(authority)
    alice, bob = certs.as_client(issue_client(authority, "alice")), certs.as_client(issue_client(authority, "bob"))
    ahead = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=40 * 365)
    with monkeypatch.context() as patched:
        for module in ("index", "revocation"):
            patched.setattr(f"cvpnd.pki.{module}.utc_now", lambda: ahead)
        assert [record.status for record in revoke(authority, name="alice")] == ["revoked"]
        assert not sign_again_if_due(authority)
    trust = trust_of(authority)
    early = shake_hands(trust.ssl_context, client_context(bob))
    assert early.verdict.refusal is Refusal.CRL_UNUSABLE
    assert sign_again_if_due(authority) and not sign_again_if_due(authority)
    after = trust.reload()
    assert shake_hands(after.ssl_context, client_context(alice)).verdict.refusal is Refusal.CERTIFICATE_REVOKED
    assert shake_hands(after.ssl_context, client_context(bob)).accepted


def test_a_crl_of_somebody_else_is_not_built_upon(authority):
    issue_client(authority, "alice")
    for data in (certs.crl_pem(certs.certificate_revocation_list()), b"garbage"):
        authority.crl_path.write_bytes(data)
        with pytest.raises(PkiError, match=r"crl\.pem"):
            revoke(authority, name="alice")
        assert authority.crl_path.read_bytes() == data


# --- the API's own, which signs itself ------------------------------------------------------------------------------


def test_the_apis_certificate_is_another_one_before_it_ends_and_where_it_cannot_be_used(tmp_path, monkeypatch):
    paths = certificate, key = tmp_path / "state" / "api.crt", tmp_path / "state" / "api.key"
    assert not ensure_self_signed(*paths, "192.0.2.1"), "there was none before"
    first = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert (mode(certificate), mode(key)) == (0o644, 0o600)

    def at(when, **more):
        monkeypatch.setattr("cvpnd.pki.self_signed.utc_now", lambda: when)
        return ensure_self_signed(*paths, "192.0.2.1", **more)

    begins, ends = first.not_valid_before_utc, first.not_valid_after_utc
    day = datetime.timedelta(days=1)
    assert not at(begins) and not at(ends - RENEWED_BEFORE - day)
    before = certificate.read_bytes(), key.read_bytes()
    assert at(ends - RENEWED_BEFORE + day) and certificate.read_bytes() != before[0]
    kept = [path.with_name(f"{path.name}~") for path in paths]
    assert tuple(path.read_bytes() for path in kept) == before and [mode(path) for path in kept] == [0o644, 0o600]
    assert sorted(path.name for path in certificate.parent.iterdir()) == ["api.crt", "api.crt~", "api.key", "api.key~"]
    assert not at(begins + day, is_clock_right=False), "or by one that is behind now"
    assert at(begins + day), "by a clock that was ahead"
    assert not at(begins + day)
    key.write_bytes(before[1])
    assert at(begins + day), "a crash left the key of another one"
    certificate.write_text("damaged")
    assert at(begins + day)


def test_what_an_authority_signed_in_its_place_is_left_alone_until_it_ends(tmp_path, authority, monkeypatch):
    issue_server(authority, "vpn.example.com", days=RENEWED_BEFORE.days - 10)
    paths = certificate, _ = authority.directory / "server.crt", authority.directory / "server.key"
    before = certificate.read_bytes()
    assert not ensure_self_signed(*paths, "192.0.2.1") and certificate.read_bytes() == before
    first, day = x509.load_pem_x509_certificate(before), datetime.timedelta(days=1)
    monkeypatch.setattr("cvpnd.pki.self_signed.utc_now", lambda: first.not_valid_before_utc - day)
    assert not ensure_self_signed(*paths, "192.0.2.1"), "by a clock that is behind"
    assert certificate.read_bytes() == before
    monkeypatch.setattr("cvpnd.pki.self_signed.utc_now", lambda: first.not_valid_after_utc + day)
    assert ensure_self_signed(*paths, "192.0.2.1") and certificate.with_name("server.crt~").read_bytes() == before


@pytest.mark.parametrize("failing", ["api.key", "api.crt~", "api.crt"])
def test_a_pair_that_cannot_be_replaced_stays_as_it_is(tmp_path, monkeypatch, failing):
    paths = tmp_path / "api.crt", tmp_path / "api.key"
    ensure_self_signed(*paths, "192.0.2.1")
    before = [path.read_bytes() for path in paths]
    write_file = self_signed.write_file

    def fill_the_disk(path, *arguments, **more):
        if path.name == failing:
            raise OSError(errno.ENOSPC, "no space left")
        write_file(path, *arguments, **more)

    monkeypatch.setattr(self_signed, "write_file", fill_the_disk)
    monkeypatch.setattr(self_signed, "utc_now", lambda: utc_now() + datetime.timedelta(days=10_000))
    with pytest.raises(OSError, match="no space left"):
        ensure_self_signed(*paths, "192.0.2.1")
    assert [path.read_bytes() for path in paths] == before and not list(tmp_path.glob(".*"))
