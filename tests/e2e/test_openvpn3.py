"""OpenVPN 3, the core of OpenVPN Connect, as the client: each protection, both transports, renewed keys, goodbye,
changed routes and resolvers, a login in a browser, and what somebody sees who is refused."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers import certs, other_releases, saml_idp, web_login
from helpers.lab import TARGET_LEG, Lab, wait_until
from helpers.matrix import Cell, Matrix
from helpers.openvpn3 import OpenVpn3, openvpn3_client

from .conftest import Site

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


@pytest.fixture
def client_of_site(site: Site, tmp_path: Path) -> Iterator[OpenVpn3]:
    with openvpn3_client(site.lab.client, tmp_path) as client:
        yield client


def profile(
    host: str,
    port: int,
    transport: str,
    certificate: certs.TestCertificate | None = None,
) -> str:
    certificate = certificate or certs.client()
    lines = [
        "client",
        "dev tun",
        f"proto {transport}",
        f"remote {host} {port}",
        "remote-cert-tls server",
    ]
    blocks = (
        ("ca", certs.authority().certificate_pem),
        ("cert", certificate.certificate_pem),
        ("key", certificate.private_key_pem),
    )
    return "\n".join([*lines, *(f"<{tag}>\n{content.decode()}</{tag}>" for tag, content in blocks)]) + "\n"


def profile_of(matrix: Matrix, cell: Cell) -> str:
    return matrix.written_profile(cell, matrix.lab.gateway_address_of(0, cell.outside), "connect")


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
    client.connect(profile_of(matrix, cell))
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
    client.connect(profile_of(matrix, cell))
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


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_openvpn3_takes_changed_routes_and_resolvers_and_stays(
    site: Site, client_of_site: OpenVpn3, ping: Callable[..., float], transport: str
) -> None:
    """PUSH_UPDATE, in several messages."""
    client = client_of_site
    gateway = site.start(
        'dns_servers = ["10.20.0.10"]\nroute = [{ destination = "10.76.0.0/16", target = "subnet-a" }]'
    )
    client.connect(profile(site.lab.gateway_address, 1194, transport))
    assert client.resolvers() == ["10.20.0.10"]
    wanted = {f"172.16.{n}.0/24" for n in range(100)}
    extra = ", ".join(f'{{ destination = "{network}", target = "subnet-a" }}' for network in wanted)
    gateway.write_config(site.toml(f'dns_servers = ["10.20.0.11"]\nroute = [{extra}]'))
    gateway.reload()

    def routes() -> str:
        return site.lab.client.run("ip", "route", "show", check=False).stdout

    wait_until(lambda: set(re.findall(r"172\.16\.\d+\.0/24", routes())) == wanted, 10, "the new routes")
    assert "10.76.0.0/16" not in routes()
    wait_until(lambda: client.resolvers() == ["10.20.0.11"], 5, "the new resolver")
    assert ping() == 1.0
    assert len(gateway.connection_log()) == 1, "nobody was sent back"
    client.disconnect()
    wait_until(lambda: client.resolvers() == [], 5, "the resolvers as they were")


def test_openvpn3_goes_to_its_next_remote_once_its_listener_is_gone(
    site: Site, client_of_site: OpenVpn3, ping: Callable[..., float]
) -> None:
    """By itself: it is told no more than to come back."""
    host, timers = site.lab.gateway_address, {"ping_s": 10, "ping_restart_s": 120}
    gateway = site.start(listen=("udp://0.0.0.0:1194", "udp://0.0.0.0:443"), **timers)
    first = f"remote {host} 1194"
    client_of_site.connect(profile(host, 1194, "udp").replace(first, f"{first}\nremote {host} 443"))
    gateway.write_config(site.toml(listen=("udp://0.0.0.0:443",), **timers))
    gateway.reload()
    wait_until(lambda: len(gateway.connection_log()) == 3, 25, "its return")
    wait_until(lambda: ping() == 1.0, 10, "traffic")
    client_of_site.disconnect()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_openvpn3_takes_a_thousand_routes_and_a_long_banner_and_a_thousand_others(
    site: Site, client_of_site: OpenVpn3, ping: Callable[..., float], transport: str
) -> None:
    """Some 45 kB in one PUSH_REPLY of many messages, and 27 in a PUSH_UPDATE."""
    banner = "\N{LOCK}" * 1400

    def settings(second: int) -> tuple[set[str], str]:
        networks = {f"172.{second + n // 250}.{n % 250}.0/24" for n in range(1000)}
        routes = ", ".join(f'{{ destination = "{network}", target = "subnet-a" }}' for network in networks)
        return networks, f'login_banner = "{banner}"\nroute = [{routes}]'

    def routes() -> set[str]:
        shown = site.lab.client.run("ip", "route", "show", check=False).stdout
        return set(re.findall(r"172\.\d+\.\d+\.0/24", shown))

    (wanted, more), (others, changed) = settings(16), settings(24)
    gateway = site.start(more)
    client_of_site.connect(profile(site.lab.gateway_address, 1194, transport))
    wait_until(lambda: routes() == wanted, 40, "the routes")
    assert ping() == 1.0
    gateway.write_config(site.toml(changed))
    gateway.reload()
    wait_until(lambda: routes() == others, 60, "the other routes")
    wait_until(lambda: ping() == 1.0, 10, "traffic")
    assert len(gateway.connection_log()) == 1, "nobody was sent back"
    client_of_site.disconnect()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_openvpn3_says_why_a_certificate_is_refused(site: Site, client_of_site: OpenVpn3, transport: str) -> None:
    """And ends. Refused by the stock server it says nothing, and was still trying after a minute."""
    site.write_crl(certs.client("revoked"))
    gateway = site.start()
    client_of_site.connect(profile(site.lab.gateway_address, 1194, transport, certs.client("revoked")))
    wait_until(lambda: "TLS_ALERT_CERTIFICATE_REVOKED" in client_of_site.log(), 10, "the reason in its log")
    time.sleep(2)
    assert [e["connection-attempt-failure-reason"] for e in gateway.connection_log()] == ["certificate-revoked"]


@pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1")
def test_openvpn3_has_the_browser_opened_once_and_renews_its_keys_without_it(
    site: Site, client_of_site: OpenVpn3, ping: Callable[..., float]
) -> None:
    """With the profile that it is given here, its own words on where to log in, and a restart of the gateway."""
    (site.directory / "idp.xml").write_text(saml_idp.metadata())
    settings = f'remote = "{web_login.HOST}"\nrenegotiate_s = {RENEGOTIATE_S}'
    gateway = site._gateway = site.lab.gateway_process(web_login.toml(site, site.directory / "idp.xml", more=settings))
    client, browser = client_of_site, web_login.Browser(site.lab.client)
    link = client.connect_with_browser(gateway.ctl("profile", "anna", "--for", "connect").stdout)
    assert link.startswith(f"{web_login.URL}/saml/login/")
    url = browser.sent_on(browser.get(link))
    (relay_state,) = parse_qs(urlsplit(url).query)["RelayState"]
    page = browser.consent_page(browser.post(web_login.ACS, SAMLResponse=saml_idp.answer(url), RelayState=relay_state))
    assert "Linux, OpenVPN3/Linux" in page.text
    assert "Connected" in browser.decide(page).text
    wait_until(lambda: "Client connected" in client.sessions(), 10, "the tunnel")
    assert ping() == ping("10.30.0.10") == 1.0
    renewed = 'cvpnd_renegotiations_total{endpoint="staff"}'
    pinging = site.lab.client.start_ping("10.30.0.10")
    wait_until(lambda: gateway.metrics().get(renewed, 0) >= 1, 90, "a new key")
    assert pinging.finish().lost == 0
    gateway.stop()
    gateway.start()
    wait_until(lambda: len(gateway.ctl_json("connection", "list")) == 1, 40, "its return")
    wait_until(lambda: ping("10.30.0.10") == 1.0, 10, "traffic")
    statuses = [entry["connection-attempt-status"] for entry in gateway.connection_log()]
    assert statuses.count("waiting-for-assertion") == 1, "one browser visit"
    client.disconnect()
