"""A PKI that easy-rsa made serves as it is: its paths in the configuration, its CRL, its files with text in them."""

import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from helpers import certs
from helpers.handshake import client_context, shake_hands

from cvpnd.auth.certificate import CertificateTrust, newly_revoked
from cvpnd.auth.crl import certificate_key
from cvpnd.auth.files import CertificateSettings
from cvpnd.auth.identity import common_name
from cvpnd.auth.watch import TrustKeeper
from cvpnd.reasons import Refusal

EASY_RSA = Path("/usr/share/easy-rsa/easyrsa")

pytestmark = pytest.mark.skipif(not EASY_RSA.exists(), reason="easy-rsa is not installed (Debian package easy-rsa)")


class EasyRsa:
    def __init__(self, directory: Path, algorithm: str) -> None:
        self.pki = directory / "pki"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "EASYRSA": str(EASY_RSA.parent),
            "EASYRSA_PKI": str(self.pki),
            "EASYRSA_BATCH": "1",
            "EASYRSA_REQ_CN": "Acme Easy-RSA CA",
            "EASYRSA_ALGO": algorithm,
            "EASYRSA_CURVE": "prime256v1" if algorithm == "ec" else "ed25519",
        }
        self("init-pki")
        self("build-ca", "nopass")

    def __call__(self, *arguments: str) -> None:
        environment = dict(self._environment)
        if "build-ca" not in arguments:
            del environment["EASYRSA_REQ_CN"]
        done = subprocess.run(
            [EASY_RSA, *arguments], env=environment, cwd=self.pki.parent, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def client(self, name: str) -> certs.TestCertificate:
        self("build-client-full", name, "nopass")
        return certs.TestCertificate(
            x509.load_pem_x509_certificate((self.pki / f"issued/{name}.crt").read_bytes()),
            load_pem_private_key((self.pki / f"private/{name}.key").read_bytes(), None),
        )


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
    old = keeper.poll(1)
    assert old is not None
    assert newly_revoked(old, keeper.current) == {certificate_key(alice.certificate)}
    assert login(alice, keeper.current, "1.3").verdict.refusal is Refusal.CERTIFICATE_REVOKED
    assert login(bob, keeper.current, "1.3").accepted
