"""What a change finds in the files of an endpoint before it sends anybody away."""

from __future__ import annotations

from pathlib import Path

from helpers import certs

from cvpnd.config import load
from cvpnd.endpoints.checks import _keepers

TOML = """
[[endpoint]]
name = "staff"
client_cidr = "10.100.0.0/22"
listen = ["udp://0.0.0.0:1194"]
server_certificate = { certificate = "server.crt", private_key = "server.key" }
authentication = [{ type = "certificate-authentication", client_ca = "ca.crt", crl = "crl.pem" }]
"""


def write_crl(path: Path, number: int, *revoked: certs.TestCertificate) -> None:
    path.write_bytes(certs.crl_pem(certs.certificate_revocation_list(revoked=revoked, number=number)))


def test_a_list_that_is_there_already_does_not_give_way_to_one_from_memory(tmp_path: Path) -> None:
    """A reload that read it was refused: what was before comes back, but not those whom it has revoked."""
    (tmp_path / "cvpnd.toml").write_text(TOML)
    certs.server().write(tmp_path, "server")
    (tmp_path / "ca.crt").write_bytes(certs.authority().certificate_pem)
    bob, crl = certs.client("bob"), tmp_path / "crl.pem"
    write_crl(crl, 1)
    (endpoint,) = load(tmp_path / "cvpnd.toml").endpoints
    before = _keepers(endpoint, None, {}, read=False)
    first = before[0].current.crl
    assert first is not None and not first.names_serial(bob.certificate.serial_number)
    write_crl(crl, 2, bob)
    again, _ = _keepers(endpoint, before, {}, read=False)
    assert again.current.crl is not None and again.current.crl.names_serial(bob.certificate.serial_number)

    crl.write_text("not a list")
    kept, _ = _keepers(endpoint, before, {}, read=False)
    assert kept.current.crl is again.current.crl, "what cannot be used changes nothing"
