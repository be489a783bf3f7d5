"""Every way to log in with every restriction of the unit in force, and the state in PostgreSQL over either kind of
socket: what the unit's filters take away is missed nowhere else.

OpenLDAP, FreeRADIUS and PostgreSQL run on the gateway's own loopback, as on a small site."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from helpers import saml_idp, web_login
from helpers.booted import BootedSystem, cvpnctl, cvpnd, machine, source_drop_in, unit_files
from helpers.freeradius import BY_CODE, FREERADIUS, FreeRadius, code
from helpers.freeradius import toml as radius_toml
from helpers.lab import OpenVpnClient, wait_until
from helpers.management import Management
from helpers.netns import Namespace
from helpers.networks import subnet, vpc
from helpers.openldap import SLAPD, OpenLdap
from helpers.postgresql import installed as postgresql_installed
from helpers.totp import static
from helpers.web_login import ACS, Browser, Device

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="boots a systemd: needs root"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="systemd-container is not installed"),
    pytest.mark.skipif(
        not SLAPD.exists() or not FREERADIUS.exists() or not postgresql_installed(),
        reason="needs PostgreSQL, and slapd and freeradius, which make test unpacks",
    ),
    pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="needs xmlsec1"),
    pytest.mark.timeout(300),
]

RADIUS_PORT, DATABASE_PORT = 18120, 5433
DATABASE_PASSWORD = "of the database"
OVER_UNIX_SOCKET = f"postgresql:///cvpnd?port={DATABASE_PORT}"
OVER_TCP = f"postgresql://cvpnd:{DATABASE_PASSWORD.replace(' ', '%20')}@127.0.0.1:{DATABASE_PORT}/cvpnd"
CORP = '{ type = "directory-service-authentication", directory = "corp", mfa = "radius" }'
LOCAL = '{ type = "directory-service-authentication", directory = "local" }'
HANDLERS = """
[[handler]]
name = "AWSClientVPN-program"
executable = "/usr/local/bin/posture"
[[handler]]
name = "AWSClientVPN-python"
python = "posture:decide"
python_path = "handlers"
"""
ANSWER = (
    '{"allow": true, "error-msg-on-denied-connection": "", "posture-compliance-statuses": ["%s"], '
    '"schema-version": "v3"}'
)
PROGRAM = f"""#!/usr/bin/python3
import json, sys
json.load(sys.stdin)
print('{ANSWER % "program"}')
"""
FUNCTION = f"""import json
def decide(request):
    return json.loads('{ANSWER % "python"}')
"""


def endpoint(number: int, name: str, method: str, listen: str, more: str = "") -> str:
    return f"""
[[endpoint]]
name = "{name}"
client_cidr = "10.{100 + number}.0.0/22"
listen = ["{listen}"]
remote = "{web_login.HOST}"
server_certificate = {{ certificate = "pki/server.crt", private_key = "pki/server.key", chain = "pki/ca.crt" }}
authentication = [{method}]
split_tunnel = true
associate = ["subnet-a"]
{more}
"""


def configuration(state: str, ldap: OpenLdap, root: Path) -> str:
    """Everything in one; paths as the daemon sees them."""
    text = f"""
[daemon]
state = "{state}"
state_key = "/var/lib/cvpnd/state.key"

{vpc("vpc-main", "10.20.0.0/16")}
{subnet("subnet-a", "vpc-main", "10.20.0.0/24", "lan")}

[[saml_provider]]
id = "corp"
metadata = "idp.xml"

[status_file]
path = "/var/log/cvpnd/status.log"

[api]
listen = "https://127.0.0.1:8444"
{web_login.PORTAL.replace('"portal.', '"pki/portal.')}
{endpoint(0, "local", LOCAL, "tcp://0.0.0.0:443", 'connect_handler = "AWSClientVPN-python"')}
{endpoint(1, "corp", CORP, "udp://0.0.0.0:1195", 'connect_handler = "AWSClientVPN-program"')}
{endpoint(2, "sso", web_login.FEDERATED, "udp://0.0.0.0:1196")}
{ldap.toml()}
{radius_toml(ldap.directory, RADIUS_PORT, of="corp", more="code_once_s = 0")}
{HANDLERS}"""
    return text.replace(str(root), "")


@dataclass
class Site:
    system: BootedSystem
    client: Namespace
    ldap: OpenLdap
    browser: Browser

    def configure(self, state: str) -> None:
        path = self.system.root / "etc/cvpnd/cvpnd.toml"
        path.write_text(configuration(state, self.ldap, self.system.root))
        self.system.run("systemctl", "restart", "cvpnd")

    def openvpn(self, endpoint: str, login: str, *options: str) -> OpenVpnClient:
        """The stock client with the profile of an endpoint, and what its person types."""
        profile = self.client.directory / f"{endpoint}.ovpn"
        text = cvpnctl(self.system, "profile", "laptop", "--endpoint", endpoint)
        profile.write_text(re.sub("(?m)^static-challenge .*", "", text))  # nobody is there to be asked
        typed = self.client.directory / f"{endpoint}.login"
        typed.write_text(login)
        typed.chmod(0o600)
        asked = ("--auth-user-pass", typed, *options)
        return OpenVpnClient(self.client.start("openvpn", "--config", profile, "--verb", "4", *asked), self.client)

    def brings_from_identity_provider(
        self, person: Management, signer: saml_idp.Key
    ) -> tuple[OpenVpnClient, httpx.Response]:
        """The stock client, and what the portal says to the browser with an assertion that ``signer`` has signed."""
        client = self.openvpn("sso", "N/A\nN/A\n", *person.options, *web_login.WEB_AUTH)
        url = self.browser.sent_on(self.browser.get(Device(client, person).link()))
        (relay_state,) = parse_qs(urlsplit(url).query)["RelayState"]
        answer = saml_idp.answer(url, assertion_key=signer)
        return client, self.browser.post(ACS, SAMLResponse=answer, RelayState=relay_state)

    def served(self, client: OpenVpnClient, username: str) -> dict[str, object]:
        """Connected, with the target in reach; then it goes. How the gateway saw it."""
        client.wait_connected(20)
        assert self.client.ping("10.20.0.10", 3, 0.1).received == 3
        (view,) = [each for each in self.connections() if each["status"] == "active"]
        client.stop()
        wait_until(lambda: all(each["status"] != "active" for each in self.connections()), 20)
        assert view["username"] == username
        return view

    def refusals(self) -> list[str]:
        log = (self.system.root / "var/log/cvpnd/connections.log").read_text()
        return [json.loads(line)["connection-attempt-failure-reason"] for line in log.splitlines()]

    def connections(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(cvpnctl(self.system, "connection", "list", "--json"))
        return found


def database(system: BootedSystem) -> None:
    """Debian's, a cluster of its own; peer authentication over the Unix socket, a password over TCP."""
    version = max((each.name for each in Path("/usr/lib/postgresql").iterdir()), key=float)
    as_postgres = ("runuser", "-u", "postgres", "--")
    system.run("pg_createcluster", "--port", str(DATABASE_PORT), "--locale", "C.UTF-8", version, "vpn")
    system.run("systemctl", "start", f"postgresql@{version}-vpn")
    said = f"CREATE ROLE cvpnd LOGIN PASSWORD '{DATABASE_PASSWORD}';\nCREATE DATABASE cvpnd OWNER cvpnd;\n"
    system.run(*as_postgres, "psql", "--port", str(DATABASE_PORT), "--set", "ON_ERROR_STOP=1", input=said)


@pytest.fixture(params=["tree", "package"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """With the unit started from this tree, or with all of it as the package installs it."""
    packaged = request.param == "package"
    if packaged and not os.environ.get("TEST_SERVICE"):
        pytest.skip("builds a package: make test-service")
    with (
        BootedSystem(tmp_path, with_source=not packaged) as system,
        machine("target", tmp_path) as target,
        machine("client", tmp_path) as client,
    ):
        if packaged:
            shutil.copy(request.getfixturevalue("packages")[0], system.root / "cvpnd.deb")
        else:
            unit_files(system.root)
            source_drop_in(system.root)
        system.boot()
        if packaged:
            system.run("dpkg", "--install", "/cvpnd.deb")
        system.run("chmod", "0666", "/dev/net/tun")  # what udev does on a real host
        system.connect("lan", "10.20.0.1/24", target, "10.20.0.10/24")
        system.connect("wan", f"{web_login.HOST}/24", client, "192.0.2.2/24")
        cvpnd(system, "init", "--dir", "/etc/cvpnd", "--name", "vpn.example.com")
        web_login.write_certificate(system.root / "etc/cvpnd/pki")
        (system.root / "etc/cvpnd/idp.xml").write_text(saml_idp.metadata())
        program, module = system.root / "usr/local/bin/posture", system.root / "etc/cvpnd/handlers/posture.py"
        program.write_text(PROGRAM)
        program.chmod(0o755)
        module.parent.mkdir()
        module.write_text(FUNCTION)
        with machine("loopback", tmp_path, of=system.init_pid) as loopback:
            (system.root / "srv/corp").mkdir()
            ldap = OpenLdap(loopback, system.root / "srv/corp/ldap").start()
            ldap.fill({"anna": "of the directory"}, {"eng": ["anna"]})
            FreeRadius(loopback, system.root / "srv/corp/radius", RADIUS_PORT, BY_CODE).start()
            database(system)
            yield Site(system, client, ldap, Browser(client))


def test_every_login_works_under_the_unit_with_either_socket_of_the_database(site: Site) -> None:
    system, unhappy = site.system, r"(?i)traceback|operation not permitted|permission denied|read-only file system"
    site.configure(OVER_UNIX_SOCKET)
    cvpnctl(system, "user", "add", "bert", input="of this gateway\n")
    for name in ("local", "corp", "sso"):
        cvpnctl(system, "rule", "add", name, "10.20.0.0/16", "--all-groups")

    for number, state in enumerate((OVER_UNIX_SOCKET, OVER_TCP)):
        site.configure(state)
        view = site.served(site.openvpn("local", "bert\nof this gateway\n"), "bert")
        assert view["posture_compliance_statuses"] == ["python"]

        view = site.served(site.openvpn("corp", f"anna\n{static('of the directory', code())}\n"), "anna")
        assert view["posture_compliance_statuses"] == ["program"]

        with Management(site.client.directory / f"stranger-{number}") as person:
            laptop, answered = site.brings_from_identity_provider(person, saml_idp.key("another"))
            assert answered.status_code == 403
            laptop.wait_for("AUTH_FAILED")
        wait_until(lambda number=number: site.refusals().count("saml-signature-invalid") == number + 1, 8)
        with Management(site.client.directory / f"person-{number}") as person:
            laptop, answered = site.brings_from_identity_provider(person, saml_idp.key())
            assert "Connected" in site.browser.decide(site.browser.consent_page(answered)).text
            site.served(laptop, "anna@example.com")
        journal = system.run("journalctl", "--no-pager", "--unit", "cvpnd").stdout
        assert re.search(unhappy, journal) is None, journal
