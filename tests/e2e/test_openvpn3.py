"""OpenVPN 3, the core of OpenVPN Connect, as the client: each protection, both transports, renewed keys, goodbye."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from helpers import certs, other_releases
from helpers.lab import TARGET_LEG, Lab, wait_until
from helpers.matrix import FIRST_PORT, WRAPPINGS, Cell, Matrix
from helpers.openvpn3 import OpenVpn3, openvpn3_client

pytestmark = pytest.mark.skipif(
    not (other_releases.DIRECTORY / "openvpn3-client").exists(), reason="make test-clients fetches OpenVPN 3"
)

RENEGOTIATE_S = 5
"""Less than the minute for which OpenVPN 3 goes on with its old key: the gateway waits for it."""


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with Lab() as lab:
        yield Matrix(lab, renegotiate_s=RENEGOTIATE_S)


@pytest.fixture(scope="module")
def client(matrix: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenVpn3]:
    with openvpn3_client(matrix.lab.client, tmp_path_factory.mktemp("openvpn3")) as client:
        yield client


def profile(matrix: Matrix, cell: Cell) -> str:
    _, case = WRAPPINGS[cell.wrapping]
    host = matrix.lab.gateway_address_of(0, cell.outside)
    options = zip(case.client_options[::2], case.client_options[1::2], strict=True)
    lines = [
        "client",
        "dev tun",
        f"proto {cell.transport}",
        f"remote {host} {FIRST_PORT + cell.endpoint}",
        "remote-cert-tls server",
        *(f"{name[2:]} {value}" for name, value in options),
    ]
    blocks = (
        ("ca", certs.authority().certificate_pem),
        ("cert", certs.client().certificate_pem),
        ("key", certs.client().private_key_pem),
        *case.client_files,
    )
    return "\n".join([*lines, *(f"<{tag}>\n{content.decode()}</{tag}>" for tag, content in blocks)]) + "\n"


def ends(matrix: Matrix, cell: Cell) -> list[str]:
    of_endpoint = [e for e in matrix.gateway.connection_log() if e["endpoint-name"] == f"e{cell.endpoint}"]
    return [e["connection-end-reason"] for e in of_endpoint if e["connection-log-type"] == "connection-reset"]


@pytest.mark.parametrize(
    ("wrapping", "transport", "outside"),
    [
        ("plain", "udp", 4),
        ("plain", "tcp", 6),
        ("tls-auth SHA256", "tcp", 4),
        ("tls-auth SHA1", "udp", 6),
        ("tls-crypt", "udp", 6),
        ("tls-crypt", "tcp", 4),
        ("tls-crypt-v2", "udp", 4),
        ("tls-crypt-v2", "tcp", 6),
    ],
)
def test_openvpn3_connects_carries_traffic_and_says_goodbye(
    matrix: Matrix, client: OpenVpn3, wrapping: str, transport: str, outside: int
) -> None:
    cell = Cell(wrapping, "AES-256-GCM", transport, outside)
    ended = len(ends(matrix, cell))
    client.connect(profile(matrix, cell))
    try:
        matrix.check_traffic(matrix.lab.client)
    finally:
        client.disconnect()
    wait_until(lambda: len(ends(matrix, cell)) == ended + 1, 10, "the end in the connection log")
    assert ends(matrix, cell)[-1] == ("client-exit" if transport == "udp" else "tcp-closed")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.timeout(200)
def test_openvpn3_loses_nothing_while_keys_are_renewed(matrix: Matrix, client: OpenVpn3, transport: str) -> None:
    cell = Cell("tls-crypt", "AES-256-GCM", transport, 4)
    ended = len(ends(matrix, cell))
    renewed = f'cvpnd_renegotiations_total{{endpoint="e{cell.endpoint}"}}'
    before = matrix.gateway.metrics().get(renewed, 0)
    client.connect(profile(matrix, cell))
    try:
        matrix.check_traffic(matrix.lab.client)
        ping = matrix.lab.client.start_ping(TARGET_LEG.host)
        wait_until(lambda: matrix.gateway.metrics().get(renewed, 0) > before + 1, 120, "two new keys")
        time.sleep(3)
        assert ping.finish().lost == 0
        matrix.check_traffic(matrix.lab.client)
    finally:
        client.disconnect()
    wait_until(lambda: len(ends(matrix, cell)) == ended + 1, 10, "the end in the connection log")
    assert ends(matrix, cell)[-1] == ("client-exit" if transport == "udp" else "tcp-closed"), "said with its old key"
