"""Which client keys an endpoint accepts, and what becomes of its protection when files change."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from helpers import certs

from cvpnd.auth.files import CertificateSettings, TrustError
from cvpnd.auth.watch import TrustKeeper
from cvpnd.config import ControlProtectionConfig
from cvpnd.endpoints.protection import DAY_S, ProtectionKeeper, issue_client_key
from cvpnd.wire.errors import DropReason
from cvpnd.wire.wrap.client_key import ClientKeyMetadata
from cvpnd.wire.wrap.key_files import (
    new_static_key,
    new_v2_server_key,
    parse_v2_client_key,
    serialise_static_key,
    serialise_v2_server_key,
)
from cvpnd.wire.wrap.plain import PLAIN
from cvpnd.wire.wrap.tls_auth import TlsAuth
from cvpnd.wire.wrap.tls_crypt import TlsCrypt


class Files:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        certificate, private_key = certs.server().write(directory, "server")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        self.revoke()
        self.trust = TrustKeeper(
            CertificateSettings(certificate, private_key, directory / "ca.crt", crl=directory / "crl.pem")
        )
        (directory / "v2.key").write_bytes(serialise_v2_server_key(new_v2_server_key()))
        (directory / "shared.key").write_bytes(serialise_static_key(new_static_key()))

    def revoke(self, *revoked: certs.TestCertificate) -> None:
        path = self.directory / "crl.new"
        path.write_bytes(certs.crl_pem(certs.certificate_revocation_list(revoked=list(revoked))))
        path.rename(self.directory / "crl.pem")

    def keeper(self, **tables: object) -> ProtectionKeeper:
        context = {"directory": self.directory}
        return ProtectionKeeper(ControlProtectionConfig.model_validate(tables, context=context), self.trust)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_key_is_refused_once_its_certificate_is_on_the_crl(files: Files) -> None:
    keeper = files.keeper(tls_crypt_v2={"server_key": "v2.key"})
    alice, bob = certs.client("alice"), certs.client("bob")
    server_key = keeper.current.server_key
    assert server_key is not None
    raw = {}
    for each in (alice, bob):
        wkc = parse_v2_client_key(issue_client_key(server_key, "x", each.certificate.serial_number)).wkc
        raw[each] = server_key.unwrap(wkc).metadata
        assert keeper.current.check_client_key(raw[each]) is None
    files.revoke(alice)
    files.trust.poll(math.inf)
    assert keeper.current.check_client_key(raw[alice]) is DropReason.CLIENT_KEY_REVOKED
    assert keeper.current.check_client_key(raw[bob]) is None
    assert keeper.current.check_client_key(b"\0somebody else's data") is None


@pytest.mark.parametrize(
    ("age_s", "refused"),
    [(-DAY_S, False), (0, False), (29.9 * DAY_S, False), (30.1 * DAY_S, True), (None, True)],
)
def test_the_age_limit_holds_for_both_kinds_of_metadata(files: Files, age_s: float | None, refused: bool) -> None:
    """A key of unknown age could be of any age, so a limit refuses it."""
    limited = files.keeper(tls_crypt_v2={"server_key": "v2.key", "max_age_days": 30}).current
    unlimited = files.keeper(tls_crypt_v2={"server_key": "v2.key"}).current
    created = None if age_s is None else int(time.time() - age_s)
    theirs = b"\0anything" if created is None else b"\1" + created.to_bytes(8, "big")
    for raw in (ClientKeyMetadata("alice", 5, created).serialise(), theirs):
        assert (limited.check_client_key(raw) is DropReason.CLIENT_KEY_TOO_OLD) is refused
        assert unlimited.check_client_key(raw) is None


def test_what_the_configuration_names_is_what_is_accepted(files: Files) -> None:
    v2 = {"server_key": "v2.key", "allow_stateful": False}
    assert files.keeper().current.shared is PLAIN
    assert isinstance(files.keeper(tls_crypt={"key": "shared.key"}).current.shared, TlsCrypt)
    auth = files.keeper(tls_auth={"key": "shared.key", "digest": "SHA512"}).current
    assert isinstance(auth.shared, TlsAuth)
    assert auth.shared.overhead == 64 + 8
    assert auth.server_key is None
    only_v2 = files.keeper(tls_crypt_v2=v2).current
    assert only_v2.shared is None
    assert not only_v2.allow_stateful
    both = files.keeper(tls_crypt_v2=v2, plain=True).current
    assert both.shared is PLAIN
    assert both.server_key is not None


def test_a_changed_key_is_taken_and_a_broken_one_is_not(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    keeper = files.keeper(tls_crypt={"key": "shared.key"})
    before = keeper.current
    keeper.poll(0.0)
    assert keeper.current is before
    path = files.directory / "shared.key"
    path.write_text("half writ")
    keeper.poll(10.0)
    assert keeper.current is before
    assert f"{path}: is not an" in caplog.text
    assert "half writ" not in caplog.text
    key = new_static_key()
    path.write_bytes(serialise_static_key(key))
    keeper.poll(20.0)
    assert keeper.current.shared is not None
    assert keeper.current.shared.key2 == key


def test_without_a_good_key_to_begin_with_there_is_no_protection(files: Files) -> None:
    with pytest.raises(TrustError, match=r"none\.key: cannot be read"):
        files.keeper(tls_crypt={"key": "none.key"})
    with pytest.raises(TrustError, match=r"shared\.key: is not an .OpenVPN tls-crypt-v2 server key"):
        files.keeper(tls_crypt_v2={"server_key": "shared.key"})
