"""A gateway in the three-namespace lab, with certificates, ready for the stock client."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import certs
from helpers.lab import GatewayProcess, Lab, OpenVpnClient
from helpers.openldap import OpenLdap

CERTIFICATE = '{ type = "certificate-authentication", client_ca = "ca.crt", crl = "crl.pem" }'
ENDPOINT = """
[[endpoint]]
name = "staff"
client_cidr = "10.100.0.0/22"
listen = [{listen}]
server_certificate = {{ certificate = "server.crt", private_key = "server.key" }}
authentication = [{certificate}]
split_tunnel = true
associate = ["subnet-a", "subnet-b"]
authorize = [{{ network = "10.20.0.0/16", all_groups = true }}{rules_v6}]
ping_s = {ping_s}
ping_restart_s = {ping_restart_s}
{more}
"""
CLIENT_CIDR_V6 = 'client_cidr_v6 = "fd00:100::/64"'
LISTEN = ("udp://0.0.0.0:1194", "tcp://0.0.0.0:1194", "udp://0.0.0.0:443", "tcp://0.0.0.0:443")


class Site:
    """One lab, one gateway, and as many stock clients as a test starts. ``subnet-a`` is allowed, ``subnet-b`` not."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory / "gateway"
        self.directory.mkdir()
        self._clients: list[OpenVpnClient] = []
        self._gateway: GatewayProcess | None = None
        certs.server().write(self.directory, "server")
        (self.directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        self.write_crl()

    @property
    def gateway(self) -> GatewayProcess:
        assert self._gateway is not None, "not started"
        return self._gateway

    def write_crl(self, *revoked: certs.TestCertificate, **validity: Any) -> None:
        path = self.directory / "crl.new"
        path.write_bytes(certs.crl_pem(certs.certificate_revocation_list(revoked=list(revoked), **validity)))
        path.rename(self.directory / "crl.pem")

    def toml(
        self,
        more: str = "",
        *,
        listen: tuple[str, ...] = LISTEN,
        ping_s: int = 1,
        ping_restart_s: int = 4,
        ipv6: bool = False,
        packet_offload: str = "auto",
        workers: int | None = None,
        daemon: str = "",
    ) -> str:
        """``ipv6``: clients get IPv6 in the tunnel, and may reach the target network (fd00:20::/48) over it."""
        endpoint = ENDPOINT.format(
            listen=", ".join(f'"{url}"' for url in listen),
            certificate=CERTIFICATE,
            ping_s=ping_s,
            ping_restart_s=ping_restart_s,
            more=f"{CLIENT_CIDR_V6}\n{more}" if ipv6 else more,
            rules_v6=', { network = "fd00:20::/48", all_groups = true }' if ipv6 else "",
        )
        if workers is not None:
            daemon += f"\nworkers = {workers}\n"
        daemon = f'[daemon]\npacket_offload = "{packet_offload}"\n{daemon}\n'
        return daemon + self.lab.networks_toml(ipv6=ipv6) + endpoint

    def start(self, more: str = "", **options: Any) -> GatewayProcess:
        self._gateway = self.lab.gateway_process(self.toml(more, **options))
        return self._gateway

    def profile(
        self,
        certificate: certs.TestCertificate | None = None,
        *,
        transport: str = "udp",
        port: int = 1194,
        host: str | None = None,
        name: str = "client",
        binding: str = "nobind",
    ) -> Path:
        directory = self.lab.directory / f"{name}-{transport}-{port}"
        directory.mkdir(exist_ok=True)
        (certificate or certs.client()).write(directory, "client")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        path = directory / "client.ovpn"
        path.write_text(
            f"client\ndev tun\nproto {transport}\nremote {host or self.lab.gateway_address} {port}\n{binding}\n"
            "ca ca.crt\ncert client.crt\nkey client.key\nremote-cert-tls server\npersist-tun\n"
            "connect-retry 1 1\n"
        )
        return path

    def connect(
        self, certificate: certs.TestCertificate | None = None, *options: str, wait: bool = True, **where: Any
    ) -> OpenVpnClient:
        client_namespace = where.pop("client", None)
        client = self.lab.openvpn(self.profile(certificate, **where), *options, client=client_namespace)
        self._clients.append(client)
        return client.wait_connected() if wait else client


@pytest.fixture(scope="session")
def site_in() -> type[Site]:
    """For tests that make a lab of their own."""
    return Site


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """With two machines for clients, or as many as the test is parametrized with."""
    with Lab(clients=getattr(request, "param", 2)) as lab:
        yield Site(lab)


@pytest.fixture
def ping(site: Site) -> Callable[..., float]:
    """Ping the target (or ``host``) through the tunnel; returns the share of answers, 0..1."""

    def run(host: str = "10.20.0.10", count: int = 3, client: Any = None) -> float:
        return (client or site.lab.client).ping(host, count, 0.1).received / count

    return run


@pytest.fixture
def start_corp(site):
    """A gateway that asks a real OpenLDAP server about ``users`` (name: password); subnet-a is for everybody, subnet-b
    for the group eng. Returns the server."""

    def run(
        users: dict[str, str], groups: dict[str, list[str]], *, endpoint: str = "", directory: str = "",
        mfa: str = "off", daemon: str = "", more: str = "", bind: str = "service",
    ) -> OpenLdap:  # fmt: skip
        ldap = OpenLdap(site.lab.gateway, site.lab.directory / "ldap").start()
        ldap.fill(users, groups)
        method = f'{{ type = "directory-service-authentication", directory = "corp", mfa = "{mfa}" }}'
        toml = site.toml(endpoint, daemon=daemon).replace(f"[{CERTIFICATE}]", f"[{method}]")
        toml = toml.replace("authorize = [", 'authorize = [{ network = "10.30.0.0/16", group = "eng" }, ')
        toml = toml.replace('private_key = "server.key"', 'private_key = "server.key", chain = "ca.crt"')
        site._gateway = site.lab.gateway_process(
            toml + more + (ldap.toml_direct(directory) if bind == "direct" else ldap.toml(directory))
        )
        return ldap

    return run


@pytest.fixture
def connect(site):
    """The stock client with a user name and a password in a file, without a certificate unless asked."""

    def run(user: str, password: str, *options: str, certificate=None, **where):
        where.setdefault("name", f"{user}-{password}".replace(":", "_"))
        profile = site.profile(certificate, **{k: v for k, v in where.items() if k in ("name", "host", "port")})
        (profile.parent / "login").write_text(f"{user}\n{password}\n")
        (profile.parent / "login").chmod(0o600)
        if certificate is None:
            profile.write_text(re.sub("(?m)^(cert|key) .*\n", "", profile.read_text()))
        profile.write_text(profile.read_text() + "auth-user-pass login\n")
        client = site.lab.openvpn(profile, *options, client=where.get("client"))
        client.login_file = profile.parent / "login"
        return client

    return run


@pytest.fixture
def faulty_nft(tmp_path: Path) -> Callable[[str], Path]:
    """An nft for the ``PATH`` of a gateway, which does instead what the shell is told while the file is there that this
    returns; it lies beside that."""

    def run(instead: str) -> Path:
        program, while_there = tmp_path / "nft", tmp_path / "faulty"
        real = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        program.write_text(f'#!/bin/sh\n{real}\n[ -e {while_there} ] && {instead}\nexec nft "$@"\n')
        program.chmod(0o755)
        return while_there

    return run
