"""A PKI that easy-rsa made serves as it is: its paths in the configuration, its CRL, its files with text in them."""

import pytest
from helpers import certs
from helpers.easy_rsa import EASY_RSA, EasyRsa
from helpers.handshake import client_context, shake_hands

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.crl import certificate_key
from cvpnd.auth.files import CertificateSettings
from cvpnd.auth.identity import common_name
from cvpnd.auth.watch import TrustKeeper
from cvpnd.reasons import Refusal

pytestmark = pytest.mark.skipif(not EASY_RSA.exists(), reason="easy-rsa is not installed (Debian package easy-rsa)")


@pytest.mark.parametrize("algorithm", ["rsa", "ec", "ed"])
def test_an_easy_rsa_pki_serves_revokes_and_is_reloaded(tmp_path, algorithm):
    easy_rsa = EasyRsa(tmp_path, algorithm)
    easy_rsa("build-server-full", "vpn.example.com", "nopass")
    alice, bob = easy_rsa.client("alice"), easy_rsa.client("bob")
    easy_rsa("gen-crl")
    keeper = TrustKeeper(
        CertificateSettings(
            certificate=easy_rsa.pki / "issued/vpn.example.com.crt",
            private_key=easy_rsa.pki / "private/vpn.example.com.key",
            client_ca=easy_rsa.pki / "ca.crt",
            crl=easy_rsa.pki / "crl.pem",
        ),
        interval_s=0,
    )

    def login(certificate: certs.TestCertificate, trust: CertificateTrust, version: str):
        return shake_hands(trust.ssl_context, client_context(certificate, version))

    assert common_name(alice.certificate) == "alice"
    for version in ("1.2", "1.3"):
        assert login(alice, keeper.current, version).accepted
        assert login(bob, keeper.current, version).accepted

    easy_rsa("revoke", "alice")
    easy_rsa("gen-crl")
    assert keeper.poll(1) is not None
    assert certs.revoked_by(keeper.current.crl) == {certificate_key(alice.certificate)}
    assert login(alice, keeper.current, "1.3").verdict.refusal is Refusal.CERTIFICATE_REVOKED
    assert login(bob, keeper.current, "1.3").accepted
