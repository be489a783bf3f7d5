"""A Samba Active Directory controller of the test's own, in a namespace; gone with the test.

It needs Debian's samba packages, whose services this host must not run: ``make test-samba`` installs them."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from helpers import certs
from helpers.lab import wait_until
from helpers.netns import Namespace, Process
from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE, Connection, Server, Tls
from ldap3.protocol.formatters.formatters import format_sid

BASE = "DC=lab,DC=test"
ADMIN = "administrator@lab.test"
PASSWORD = "Secret-of-2026"
INSTALLED = shutil.which("samba-tool") is not None and os.geteuid() == 0


class SambaAd:
    """LAB / lab.test, under the name localhost. Users' passwords are ``PASSWORD``."""

    def __init__(self, place: Namespace, directory: Path) -> None:
        self.place, self.directory = place, directory
        self.process: Process | None = None
        for name in ("etc", "run", "ncalrpc"):
            (directory / name).mkdir(parents=True)
        names = [x509.DNSName("localhost")]
        certs.issue(
            certs.authority(), certs.common_name("localhost"), names=names, usage=[ExtendedKeyUsageOID.SERVER_AUTH]
        ).write(directory, "dc")
        (directory / "ca.crt").write_bytes(certs.authority().certificate_pem)
        (directory / "dc.key").chmod(0o600)
        self.conf = directory / "etc/smb.conf"
        self.conf.touch()  # or the host's is merged
        options = {
            "interfaces": "lo", "bind interfaces only": "yes", "server services": "ldap",
            "log file": f"{directory}/log.%m", "pid directory": f"{directory}/run",
            "ncalrpc dir": f"{directory}/ncalrpc",
            "tls keyfile": f"{directory}/dc.key", "tls certfile": f"{directory}/dc.crt",
            "tls cafile": f"{directory}/ca.crt",
        }  # fmt: skip
        self.tool(
            "domain", "provision", f"--configfile={self.conf}", f"--targetdir={directory}", "--realm=LAB.TEST",
            "--domain=LAB", "--server-role=dc", "--dns-backend=NONE", "--host-name=dc1", "--host-ip=127.0.0.1",
            f"--adminpass={PASSWORD}", *(f"--option={name}={value}" for name, value in options.items()),
        )  # fmt: skip

    def tool(self, *arguments: str, at: str = "") -> None:
        """samba-tool; ``at``: as if it were then (faketime)."""
        command = [*(["faketime", at] if at else []), "samba-tool", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=180, env={**os.environ, "SMB_CONF_PATH": str(self.conf)}
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)

    def local(self, *arguments: str, at: str = "") -> None:
        self.tool(*arguments, "-H", f"{self.directory}/private/sam.ldb", at=at)

    def start(self) -> SambaAd:
        self.process = self.place.start(
            "samba", "--foreground", "--no-process-group", "--model=single", "-s", self.conf, "-d1"
        )
        wait_until(self._answers, 30, "samba")
        return self

    def _answers(self) -> bool:
        assert self.process is not None and self.process.running, self.process and self.process.tail()
        with self.place.socket() as sock:
            return sock.connect_ex(("127.0.0.1", 636)) == 0

    def admin(self) -> Connection:
        tls = Tls(validate=ssl.CERT_NONE)
        connection = Connection(Server("127.0.0.1", 636, use_ssl=True, tls=tls, get_info="NONE"), ADMIN, PASSWORD)
        with self.place.entered():
            assert connection.bind(), connection.result
        return connection

    def change(self, dn: str, **attributes: Any) -> None:
        admin = self.admin()
        values = {name: value if isinstance(value, list) else [value] for name, value in attributes.items()}
        assert admin.modify(dn, {name: [(MODIFY_REPLACE, each)] for name, each in values.items()}), admin.result
        admin.unbind()

    def bind(self, name: str, password: str) -> bool:
        tls = Tls(validate=ssl.CERT_NONE)
        server = Server("127.0.0.1", 636, use_ssl=True, tls=tls, get_info="NONE")
        with self.place.entered():
            return bool(Connection(server, user_dn(name), password).bind())

    def move(self, name: str, group: str, to: str | None) -> None:
        """A user or group from one group to another, or to none."""
        admin = self.admin()
        member = [user_dn(name)]
        assert admin.modify(user_dn(group), {"member": [(MODIFY_DELETE, member)]}), admin.result
        assert to is None or admin.modify(user_dn(to), {"member": [(MODIFY_ADD, member)]}), admin.result
        admin.unbind()

    def sid(self, name: str) -> str:
        """Of a user or group."""
        admin = self.admin()
        admin.search(BASE, f"(sAMAccountName={name})", attributes=["objectSid"])
        (found,) = (each for each in admin.response if each["type"] == "searchResEntry")
        admin.unbind()
        return str(format_sid(found["raw_attributes"]["objectSid"][0]))

    def toml(self, more: str = "") -> str:
        (self.directory / "service.password").write_text(PASSWORD)
        return f"""
[[directory]]
id = "corp"
type = "active-directory"
servers = ["ldaps://localhost", "ldap://localhost"]
ca = "{self.directory}/ca.crt"
bind_dn = "{ADMIN}"
bind_password_file = "{self.directory}/service.password"
user_base = "{BASE}"
domains = ["LAB", "lab.test"]
{more}
"""


def user_dn(name: str) -> str:
    return f"CN={name},CN=Users,{BASE}"
