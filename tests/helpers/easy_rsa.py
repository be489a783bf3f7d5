"""A PKI made by the real easy-rsa."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from helpers import certs

EASY_RSA = Path("/usr/share/easy-rsa/easyrsa")


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
