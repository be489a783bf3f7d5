"""One daemon for the tests of a file, and a certificate in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import certs, saml_idp, web_login
from helpers.aws_api import TOML, Api
from helpers.lab import GatewayProcess, Lab


@pytest.fixture(scope="module")
def daemon() -> Iterator[GatewayProcess]:
    with Lab() as lab:
        directory = lab.directory / "gateway"
        directory.mkdir()
        certs.server().write(directory, "server")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        web_login.write_certificate(directory)
        (directory / "idp.xml").write_text(saml_idp.metadata())
        for network in ("10.20.1", "10.20.2", "10.20.3"):
            lab.gateway.run("ip", "address", "add", f"{network}.1/28", "dev", "lan")
        gateway = lab.gateway_process(TOML)
        gateway.running.wait_for("ready: ")  # the admin socket answers before the API listens
        with lab.gateway.entered():
            yield gateway
        gateway.stop()


@pytest.fixture(scope="module")
def shared(daemon: GatewayProcess) -> Api:
    return Api(daemon)


@pytest.fixture
def api(shared: Api) -> Iterator[Api]:
    yield shared
    shared.clear()


@pytest.fixture
def arn(api: Api) -> str:
    return api.import_certificate()
