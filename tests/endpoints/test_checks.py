"""What a change finds in the files of an endpoint before it sends anybody away."""

from __future__ import annotations

import logging
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest
from helpers import certs

from cvpnd.config import Listen, load
from cvpnd.endpoints.checks import Checks, _keepers
from cvpnd.endpoints.managed import ManagedError

ID = "cvpn-endpoint-0123456789abcdef0"

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


@pytest.mark.parametrize("whose", ["file", "store"])
async def test_a_name_that_is_anothers_id_is_refused_of_a_file_that_is_read_anew_and_keeps_no_gateway_from_starting(
    tmp_path: Path, whose: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could give the endpoint of the store another name then."""
    (tmp_path / "cvpnd.toml").write_text(TOML.replace("staff", ID) if whose == "file" else TOML)
    file = load(tmp_path / "cvpnd.toml")
    (of_file,) = file.endpoints
    others = {"client_cidr": ip_network("10.200.0.0/22"), "listen": (Listen("udp", "0.0.0.0", 1195),)}
    name = "guests" if whose == "file" else of_file.id
    managed = of_file.model_copy(update={"id": ID, "name": name, **others})
    checks = Checks(SimpleNamespace(read=lambda *_: (managed,)), None, {})  # type: ignore[arg-type]
    monkeypatch.setattr(checks, "_read_files", AsyncMock())
    monkeypatch.setattr(checks, "_check_new_ports", Mock())
    with caplog.at_level(logging.WARNING):
        assert (await checks.check(file, {}, {}, again=True, read=False)).managed == (managed,)
    assert "is the id of endpoint" in caplog.text
    if whose == "file":
        with pytest.raises(ManagedError, match=f'"{ID}" is the id of endpoint guests; choose another'):
            await checks.check(file, {}, {}, again=True, read=True)
    else:
        assert await checks.check(file, {}, {}, again=True, read=True)


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
