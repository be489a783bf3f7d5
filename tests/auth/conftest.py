import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from helpers import certs

from cvpnd.auth.certificate import CertificateTrust
from cvpnd.auth.files import CertificateSettings

MakeTrust = Callable[..., CertificateTrust]


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., CertificateSettings]:
    """Writes an endpoint's files: server certificate, CA bundle, and a CRL file where lists are given."""

    def make(
        *crls: x509.CertificateRevocationList,
        authorities: tuple[certs.TestCertificate, ...] = (),
        server: certs.TestCertificate | None = None,
        **options: Any,
    ) -> CertificateSettings:
        certificate, private_key = (server or certs.server()).write(tmp_path, "server")
        bundle = tmp_path / "ca.crt"
        bundle.write_bytes(b"".join(ca.certificate_pem for ca in authorities or (certs.authority(),)))
        if crls:
            options["crl"] = tmp_path / "crl.pem"
            options["crl"].write_bytes(certs.crl_pem(*crls))
        return CertificateSettings(certificate=certificate, private_key=private_key, client_ca=bundle, **options)

    return make


@pytest.fixture
def trust(settings: Callable[..., CertificateSettings]) -> MakeTrust:
    def make(
        *crls: x509.CertificateRevocationList, now: datetime.datetime | None = None, **options: Any
    ) -> CertificateTrust:
        made = settings(*crls, **options)
        return CertificateTrust.load(made, clock=lambda: now) if now is not None else CertificateTrust.load(made)

    return make
