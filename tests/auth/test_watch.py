"""Files that change while the gateway runs: noticed once, taken in whole or not at all."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import certs
from helpers.handshake import client_context, shake_hands

from cvpnd.auth.files import TrustError
from cvpnd.auth.watch import FileWatch, TrustKeeper
from cvpnd.reasons import Refusal
from cvpnd.wire.presented import NO_PATH


def test_a_change_is_told_once_however_the_file_was_changed(tmp_path: Path):
    plain, link = tmp_path / "plain", tmp_path / "link"
    plain.write_text("one")
    link.symlink_to(plain)
    watch = FileWatch([plain, link, tmp_path / "missing"], interval_s=0)
    assert not watch.changed(0)

    plain.write_text("longer")
    assert watch.changed(1)
    assert not watch.changed(2)

    replacement = tmp_path / "replacement"
    replacement.write_text("LONGER")
    stat = plain.stat()
    os.utime(replacement, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    replacement.rename(plain)  # same size, same time: only the inode differs
    assert watch.changed(3)

    other = tmp_path / "other"
    other.write_text("other")
    link.unlink()
    link.symlink_to(other)
    assert watch.changed(4)

    (tmp_path / "missing").write_text("here")
    assert watch.changed(5)
    (tmp_path / "missing").unlink()
    assert watch.changed(6)
    assert not watch.changed(7)


def test_files_are_looked_at_once_an_interval(tmp_path: Path):
    file = tmp_path / "file"
    watch = FileWatch([file], interval_s=1.0)
    assert not watch.changed(100.0)
    file.write_text("new")
    assert not watch.changed(100.9)
    assert watch.changed(101.0)


@pytest.fixture
def keeper(settings) -> TrustKeeper:
    return TrustKeeper(settings(certs.certificate_revocation_list()), interval_s=0)


def test_a_new_crl_is_taken_in_and_the_old_trust_handed_back(keeper):
    alice = certs.client("alice").certificate
    before = keeper.current
    keeper.current.settings.crl.write_bytes(
        certs.crl_pem(certs.certificate_revocation_list(revoked=[certs.client("alice")]))
    )
    assert keeper.poll(1) is before
    assert keeper.current.check(alice, NO_PATH).refusal is Refusal.CERTIFICATE_REVOKED
    assert keeper.poll(2) is None


@pytest.mark.parametrize("which", ["certificate", "private_key", "client_ca", "crl"])
def test_garbage_keeps_the_old_state_until_it_is_repaired(keeper, caplog, which):
    before = keeper.current
    path: Path = getattr(before.settings, which)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert keeper.poll(1) is None
    assert keeper.current is before
    assert keeper.last_error.path == path
    assert f"{path}: " in caplog.text
    assert "stay in use" in caplog.text
    caplog.clear()
    assert keeper.poll(2) is None
    assert not caplog.text, "one change, one line"

    path.write_bytes(good)
    assert keeper.poll(3) is before
    assert keeper.current is not before
    assert keeper.last_error is None


@pytest.mark.parametrize("curve", ["SM2", "secp112r1"])
@pytest.mark.parametrize("with_crl", [True, False])
def test_an_authority_with_a_key_of_an_unknown_kind_beside_a_list_keeps_the_old_state(settings, with_crl, curve):
    """OpenSSL knows more kinds than can be told apart here, as revocation needs, and nothing else."""
    made = settings(*[certs.certificate_revocation_list()] * with_crl)
    keeper, good = TrustKeeper(made), made.client_ca.read_bytes()
    before, key, odd = keeper.current, made.client_ca.with_name("odd.key"), made.client_ca.with_name("odd.crt")
    make = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-out", key]
    subprocess.run(make, check=True, capture_output=True)
    sign = ["openssl", "req", "-x509", "-key", key, "-subj", "/CN=Odd CA", "-out", odd]
    subprocess.run(sign, check=True, capture_output=True)
    made.client_ca.write_bytes(good + odd.read_bytes())
    if not with_crl:
        assert keeper.reload() is before and keeper.last_error is None
        assert shake_hands(keeper.current.ssl_context, client_context(certs.client("alice"))).accepted
        return
    assert keeper.reload() is None and keeper.current is before
    assert str(keeper.last_error).startswith(f"{made.client_ca}: certificate 2 of 2 in it has a name or a key")
    with pytest.raises(TrustError, match="take it out"):
        TrustKeeper(made)
    made.client_ca.write_bytes(good)
    assert keeper.reload() is before


def test_key_and_certificate_may_change_one_after_the_other(keeper):
    """Whoever renews the server's certificate writes two files: in between they do not fit, and that is no harm."""
    renewed = certs.issue(certs.authority(), certs.common_name("renewed"), usage=None)
    settings, before = keeper.current.settings, keeper.current
    settings.certificate.write_bytes(renewed.certificate_pem)
    assert keeper.poll(1) is None
    assert keeper.current is before
    settings.private_key.write_bytes(renewed.private_key_pem)
    assert keeper.poll(2) is before
    assert keeper.current.server_certificate == renewed.certificate


def test_a_reload_on_demand_does_not_wait_for_a_change(keeper):
    before = keeper.current
    assert keeper.reload() is before
    assert keeper.current is not before


def test_without_good_files_there_is_nothing_to_keep(settings):
    broken = settings()
    broken.client_ca.write_bytes(b"")
    with pytest.raises(TrustError):
        TrustKeeper(broken)


def test_a_look_at_any_time_does_not_stop_the_regular_ones(tmp_path):
    path = tmp_path / "file"
    watch = FileWatch([path], interval_s=1.0)
    assert not watch.changed(float("inf"))
    path.write_text("1")
    assert watch.changed(float("inf"))
    path.write_text("two")
    assert watch.changed(5.0)
    path.write_text("three")
    assert not watch.changed(5.5)
    assert watch.changed(6.0)


def _write(path: Path, *revoked: certs.TestCertificate, **edition: Any) -> None:
    path.write_bytes(certs.crl_pem(certs.certificate_revocation_list(revoked=revoked, **edition)))


def test_an_older_list_keeps_the_one_in_force_until_a_newer_comes(settings, caplog):
    alice, path = certs.client("alice"), settings(certs.certificate_revocation_list()).crl
    keeper = TrustKeeper(settings(certs.certificate_revocation_list(revoked=[alice], number=2)), interval_s=0)
    before = keeper.current
    for attempt in range(2):
        _write(path, start=certs.START - (3 + attempt) * certs.DAY)
        assert keeper.poll(attempt) is None
        assert keeper.current is before
        assert "crl-goes-back" in str(keeper.last_error)
        assert "number 1 of" in caplog.text and "stay in use" in caplog.text
        assert before.check(alice.certificate, NO_PATH).refusal is Refusal.CERTIFICATE_REVOKED
    with pytest.raises(TrustError, match="crl-goes-back"):
        TrustKeeper(before.settings, before=before)
    named = replace(before.settings, crl=path.with_name("restored.pem"))
    path.rename(named.crl)
    restored = TrustKeeper(named, before=before).current
    assert restored.check(alice.certificate, NO_PATH) is None, "its operator names it"
    _write(path, start=certs.START - 2 * certs.DAY)
    with pytest.raises(TrustError, match="crl-goes-back"):
        TrustKeeper(before.settings, before=restored, known=before.lists)
    _write(path, number=3)
    assert keeper.poll(9) is before
    assert keeper.current.check(alice.certificate, NO_PATH) is None


def test_no_way_back_leads_over_a_list_that_nobody_signed_or_one_of_tomorrow(settings):
    alice, other = certs.client("alice"), certs.authority("Another CA")
    keeper = TrustKeeper(settings(certs.certificate_revocation_list(revoked=[alice], number=2)), interval_s=0)
    path = keeper.current.settings.crl
    _write(path, signer=other)
    assert keeper.reload() is not None
    assert keeper.current.check(alice.certificate, NO_PATH).refusal is Refusal.CRL_UNUSABLE
    _write(path, start=certs.START - 3 * certs.DAY)
    assert keeper.reload() is None
    _write(path, alice, start=certs.START + certs.DAY, number=2)
    assert keeper.reload() is not None
    _write(path, alice, number=2)
    assert keeper.reload() is not None, "the next one is right again, and need not be later than a mistake"
    assert keeper.current.check(alice.certificate, NO_PATH).refusal is Refusal.CERTIFICATE_REVOKED


def test_an_authority_takes_its_list_with_it(settings):
    other = certs.authority("Another CA")
    both = (certs.certificate_revocation_list(), certs.certificate_revocation_list(other))
    keeper = TrustKeeper(settings(*both, authorities=(certs.authority(), other)), interval_s=0)
    kept = keeper.current.settings
    _write(kept.crl)
    assert keeper.reload() is None
    assert "is not in it any more" in str(keeper.last_error)
    kept.client_ca.write_bytes(certs.authority().certificate_pem)
    assert keeper.reload() is not None


def test_by_a_list_older_than_one_of_before_the_start_nobody_gets_in_until_a_newer_comes(settings, caplog):
    alice, bob = certs.client("alice"), certs.client("bob")
    made = settings(certs.certificate_revocation_list(revoked=[alice], number=2))
    known = TrustKeeper(made).current.lists
    _write(made.crl)
    keeper = TrustKeeper(made, interval_s=0, known=known)
    for each in (alice, bob):
        assert keeper.current.check(each.certificate, NO_PATH).refusal is Refusal.CRL_UNUSABLE
    assert "crl-goes-back" in keeper.current.crl_problem and "number 2 of" in str(keeper.last_error)
    assert "nobody can connect" in caplog.text
    assert keeper.reload() is None, "and not by a reload"
    _write(made.crl, alice, number=3)
    assert keeper.poll(1) is not None and keeper.last_error is None
    assert keeper.current.check(alice.certificate, NO_PATH).refusal is Refusal.CERTIFICATE_REVOKED
    assert keeper.current.check(bob.certificate, NO_PATH) is None
    other = certs.authority("Another CA")
    made = settings(certs.certificate_revocation_list(other), authorities=(other,))
    assert TrustKeeper(made, known=known).last_error is None, "an authority takes its list with it"
