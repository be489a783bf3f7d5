"""A gateway with single sign-on and its portal in the lab, a stock client for it, and a browser of a few lines."""

from __future__ import annotations

import html
import re
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from helpers import certs
from helpers.lab import OpenVpnClient, wait_until
from helpers.management import Management
from helpers.netns import Namespace

PORT = 8443
HOST = "192.0.2.1"
"""Of the gateway, as the first client reaches it."""
URL = f"https://{HOST}:{PORT}"
ACS = f"{URL}/saml/acs"
CERTIFICATE = '{ type = "certificate-authentication", client_ca = "ca.crt", crl = "crl.pem" }'
FEDERATED = '{ type = "federated-authentication", saml_provider = "corp" }'
NOBODY = "<auth-user-pass>\nN/A\nN/A\n</auth-user-pass>\n"
WEB_AUTH = ("--setenv", "IV_SSO", "webauth", "--push-peer-info")


PORTAL = f"""
[portal]
listen = "0.0.0.0:{PORT}"
url = "{URL}"
certificate = "portal.crt"
private_key = "portal.key"
"""


def write_certificate(directory: Path) -> None:
    """The portal's."""
    names = [x509.IPAddress(ip_address(HOST))]
    certificate = certs.issue(
        certs.authority(), certs.common_name(HOST), names=names, usage=[ExtendedKeyUsageOID.SERVER_AUTH]
    )
    certificate.write(directory, "portal")


def toml(site: Any, metadata: Path, *methods: str, more: str = "", portal: str = "") -> str:
    """subnet-b is for the group eng."""
    write_certificate(site.directory)
    text = site.toml(more).replace(f"[{CERTIFICATE}]", f"[{', '.join(methods or (FEDERATED,))}]")
    text = text.replace('private_key = "server.key"', 'private_key = "server.key", chain = "ca.crt"')
    text = text.replace("authorize = [", 'authorize = [{ network = "10.30.0.0/16", group = "eng" }, ')
    return f"""{text}
[[saml_provider]]
id = "corp"
metadata = "{metadata}"
{PORTAL}{portal}
"""


@dataclass
class Device:
    """A stock client and whoever sits at it."""

    client: OpenVpnClient
    person: Management
    links: list[str] = field(default_factory=list)

    def link(self) -> str:
        """The next one that it was sent, which a graphical client would open by itself."""
        pattern = r">INFOMSG:(?:WEB_AUTH:[^:]*|OPEN_URL):(\S+)"

        def found() -> list[str]:
            return re.findall(pattern, self.person.heard())

        wait_until(lambda: len(found()) > len(self.links), 15, self.client.log())
        self.links = found()
        return self.links[-1]


def device(
    site: Any,
    name: str,
    *options: str,
    where: Namespace | None = None,
    host: str = HOST,
    port: int = 1194,
    text: str = "",
    certificate: certs.TestCertificate | None = None,
) -> Device:
    """With the user name that is none, as openvpn wants one or a certificate. ``text``: a profile that has all it
    needs."""
    profile = site.profile(certificate, name=name, host=host, port=port)
    without = "(?m)^(cert|key) .*\n" if certificate is None else "$^"
    profile.write_text(text or re.sub(without, "", profile.read_text()) + NOBODY)
    person = Management(profile.parent / "person")
    options = options or (() if text else WEB_AUTH)
    return Device(site.lab.openvpn(profile, *person.options, *options, client=where), person)


class Browser:
    """Follows what it is told, knows forms, keeps cookies as they say; no scripts."""

    def __init__(self, place: Namespace) -> None:
        self._place = place
        trust = ssl.create_default_context(cadata=certs.authority().certificate_pem.decode())
        self._http = httpx.Client(verify=trust, timeout=15, trust_env=False)

    def get(self, url: str, headers: dict[str, str] | None = None) -> httpx.Response:
        with self._place.entered():
            return self._http.get(url, headers=headers)

    def post(self, url: str, headers: dict[str, str] | None = None, /, **fields: str) -> httpx.Response:
        with self._place.entered():
            return self._http.post(url, data=fields, headers=headers)

    @property
    def cookies(self) -> httpx.Cookies:
        return self._http.cookies

    def sent_on(self, answer: httpx.Response) -> str:
        assert answer.status_code == 303, (answer.status_code, answer.text)
        return urljoin(str(answer.url), answer.headers["location"])

    def consent_page(self, answer: httpx.Response) -> httpx.Response:
        """After the identity provider's answer was posted."""
        page = self.get(self.sent_on(answer))
        assert page.status_code == 200, page.text
        return page

    def decide(self, page: httpx.Response, decision: str = "allow") -> httpx.Response:
        found = re.search('name="consent" value="([^"]*)"', page.text)
        assert found, page.text
        return self.post(str(page.url), consent=html.unescape(found[1]), decision=decision)
