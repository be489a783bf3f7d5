"""An OpenLDAP server of the test's own, with StartTLS and LDAPS on loopback; gone with the test.

Debian's package would start one on this host, so its files are unpacked below build/tools (see the Makefile)."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from helpers import certs
from helpers.lab import wait_until
from helpers.netns import Namespace, Process
from ldap3 import MODIFY_REPLACE, Connection, Server, Tls

TOOLS = Path(__file__).resolve().parents[2] / "build/tools"
SLAPD = TOOLS / "usr/sbin/slapd"
PORT, TLS_PORT = 3890, 6360
BASE = "dc=example,dc=org"
ADMIN = f"cn=admin,{BASE}"
PASSWORD = "of the service"

CONFIGURATION = """
include {tools}/etc/ldap/schema/core.schema
include {tools}/etc/ldap/schema/cosine.schema
include {tools}/etc/ldap/schema/inetorgperson.schema
include {tools}/etc/ldap/schema/nis.schema
attributetype ( 2.16.840.1.113730.3.1.610 NAME 'nsAccountLock' DESC 'as 389 Directory Server and FreeIPA have it'
  EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
modulepath {tools}/usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
pidfile {directory}/slapd.pid
argsfile {directory}/slapd.args
TLSCACertificateFile {directory}/ca.crt
TLSCertificateFile {directory}/ldap.crt
TLSCertificateKeyFile {directory}/ldap.key
security simple_bind=128
sizelimit unlimited
database mdb
maxsize 104857600
suffix "{base}"
rootdn "{admin}"
rootpw "{password}"
directory {directory}/data
dbnosync
index objectClass,uid,member eq
overlay ppolicy
ppolicy_use_lockout
"""


def server_certificate(name: str = "localhost") -> certs.TestCertificate:
    return certs.issue(
        certs.authority(), certs.common_name(name), names=[x509.DNSName(name)], usage=[ExtendedKeyUsageOID.SERVER_AUTH]
    )


class OpenLdap:
    """In ``place``, under the name localhost. Users' passwords are their names backwards."""

    def __init__(self, place: Namespace, directory: Path) -> None:
        self.place, self.directory = place, directory
        self.process: Process | None = None
        (directory / "data").mkdir(parents=True)
        server_certificate().write(directory, "ldap")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        text = CONFIGURATION.format(tools=TOOLS, directory=directory, base=BASE, admin=ADMIN, password=PASSWORD)
        (directory / "slapd.conf").write_text(text)

    def start(self) -> OpenLdap:
        urls = f"ldap://127.0.0.1:{PORT} ldaps://127.0.0.1:{TLS_PORT}"
        libraries = ":".join(str(path.parent) for path in (TOOLS / "usr/lib").rglob("libslapi*.so.*"))
        self.process = self.place.start(
            SLAPD, "-d", "0", "-f", self.directory / "slapd.conf", "-h", urls, env={"LD_LIBRARY_PATH": libraries}
        )
        wait_until(self._answers, 10, "slapd")
        return self

    def _answers(self) -> bool:
        assert self.process is not None and self.process.running, self.process and self.process.tail()
        with self.place.socket() as sock:
            return sock.connect_ex(("127.0.0.1", TLS_PORT)) == 0

    def stop(self) -> None:
        assert self.process is not None
        self.process.stop()

    def admin(self) -> Connection:
        """Connected; made in the namespace, in which its socket stays."""
        tls = Tls(validate=ssl.CERT_NONE)
        connection = Connection(Server("127.0.0.1", TLS_PORT, use_ssl=True, tls=tls, get_info="NONE"), ADMIN, PASSWORD)
        with self.place.entered():
            assert connection.bind(), connection.result
        return connection

    def fill(self, users: dict[str, str], groups: dict[str, list[str]]) -> None:
        """Users by uid, with their passwords ("locked" has a password policy); groups by cn, of users or groups."""
        admin = self.admin()

        def add(dn: str, classes: list[str], **attributes: Any) -> None:
            assert admin.add(dn, classes, attributes), (dn, admin.result)

        add(BASE, ["dcObject", "organization"], dc="example", o="Example")
        for name in ("people", "groups"):
            add(f"ou={name},{BASE}", ["organizationalUnit"], ou=name)
        add(
            f"cn=policy,{BASE}", ["pwdPolicy", "person"], cn="policy", sn="policy", pwdAttribute="userPassword",
            pwdLockout="TRUE", pwdMaxFailure=3, pwdMustChange="TRUE",
        )  # fmt: skip
        for uid, password in users.items():
            add(user_dn(uid), ["inetOrgPerson"], uid=uid, cn=uid, sn=uid, userPassword=password)
            if uid == "locked":
                self.change(user_dn(uid), pwdPolicySubentry=f"cn=policy,{BASE}")
        for cn, members in groups.items():
            dns = [user_dn(member) if member in users else group_dn(member) for member in members]
            add(group_dn(cn), ["groupOfNames"], cn=cn, member=dns)
        admin.unbind()

    def change(self, dn: str, **attributes: Any) -> None:
        admin = self.admin()
        changes = {
            name: [(MODIFY_REPLACE, value if isinstance(value, list) else [value])]
            for name, value in attributes.items()
        }
        assert admin.modify(dn, changes), admin.result
        admin.unbind()

    def toml(
        self, more: str = "", *, servers: str = f'"ldap://localhost:{PORT}", "ldaps://localhost:{TLS_PORT}"'
    ) -> str:
        (self.directory / "service.password").write_text(PASSWORD + "\n")
        return f"""
[[directory]]
id = "corp"
type = "openldap"
servers = ["ldap://localhost:{PORT}", "ldaps://localhost:{TLS_PORT}"]
ca = "{self.directory}/ca.crt"
bind_dn = "{ADMIN}"
bind_password_file = "{self.directory}/service.password"
user_base = "ou=people,{BASE}"
group_base = "ou=groups,{BASE}"
domains = ["EXAMPLE", "example.org"]
{more}
"""

    def toml_direct(self, more: str = "") -> str:
        """Without the service account."""
        lines = [line for line in self.toml(more).splitlines() if not line.startswith("bind_")]
        return "\n".join([*lines, 'bind = "direct"', ""])


def user_dn(uid: str) -> str:
    return f"uid={uid},ou=people,{BASE}"


def group_dn(cn: str) -> str:
    return f"cn={cn},ou=groups,{BASE}"
